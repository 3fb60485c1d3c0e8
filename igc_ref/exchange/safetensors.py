"""Networks as safetensors files, their weights by PyTorch's names and in its layouts."""

from __future__ import annotations

import os

from safetensors import SafetensorError, safe_open
from safetensors import numpy as safetensors

from igc_ref.errors import CheckpointError, describe, user_path
from igc_ref.exchange import header
from igc_ref.exchange.state import to_ours, to_theirs
from igc_ref.files import replacing
from igc_ref.networks.model import Model

DTYPES = ("F32", "F64", "I64")  # of our weights, and of PyTorch's counters


def save(model: Model, path: str | os.PathLike[str]) -> None:
    """Write a network, whole or not at all; PyTorch reads the file as a ``state_dict`` too.

    Examples
    --------
    >>> from igc_ref import build_model
    >>> save(build_model("plain_igc", 8, L=4, M=8, backend="numpy"), "model.safetensors")
    >>> load("model.safetensors", "numpy").architecture.L
    4
    """
    # The library misplaces the numbers of arrays that are not C-contiguous; those of to_theirs are.
    metadata = {"format": "pt", header.KEY: header.write(model)}
    content = safetensors.save(to_theirs(model.state_dict()), metadata)
    with replacing(user_path("path", path)) as file:
        file.write(content)


def load(path: str | os.PathLike[str], backend: str = "auto", like: Model | None = None) -> Model:
    """Read a network that `save` wrote, or that PyTorch saved after fine-tuning.

    Parameters
    ----------
    path : path
        A file of `save`, or of ``safetensors.torch.save_file(module.state_dict(), path, metadata)``
        with the metadata of the file that the module came from.
    backend : str
        As in `build_model`.
    like : Model, optional
        A network of the same architecture, for a file that was saved without metadata.

    Raises
    ------
    CheckpointError
        If the file is missing, damaged, of another network, or does not say of which one.
    """
    place = user_path("path", path)
    if not place.is_file():
        raise CheckpointError(f"there is no file {place}")
    try:
        with safe_open(place, framework="np") as file:
            text = (file.metadata() or {}).get(header.KEY) if like is None else header.write(like)
            if text is None:
                hint = "metadata=safe_open(ORIGINAL, 'pt').metadata(), or load(FILE, like=MODEL)"
                raise CheckpointError(
                    f"{place} does not say of which network: give save_file {hint}"
                )
            found = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118
            shapes = [tuple(array.get_shape()) for array in found.values()]
            model, _ = header.read(text, str(place), backend, shapes)
            for name, array in found.items():
                if array.get_dtype() not in DTYPES:
                    raise ValueError(f"{name} is {array.get_dtype()}; F32 or F64 is needed")
            state = to_ours({name: file.get_tensor(name) for name in found}, model.state_dict())
            model.load_state_dict(state)
    except CheckpointError:
        raise
    except (SafetensorError, ValueError) as error:
        raise CheckpointError(f"{place} cannot be read: {describe(error, 300)}") from error
    return model
