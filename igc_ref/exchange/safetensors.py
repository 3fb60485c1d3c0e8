"""Networks as safetensors files, their weights by PyTorch's names and in its layouts."""

from __future__ import annotations

import os

from safetensors import numpy as safetensors
from safetensors import safe_open

from igc_ref.errors import CheckpointError, describe, instance, user_path
from igc_ref.exchange import header
from igc_ref.exchange.state import to_ours, to_theirs
from igc_ref.files import replacing
from igc_ref.networks.model import Model


def save(model: Model, path: str | os.PathLike[str]) -> None:
    """Write a network, whole or not at all; PyTorch reads the file as a ``state_dict`` too.

    Examples
    --------
    >>> from igc_ref import build_model
    >>> save(build_model("plain_igc", 8, L=4, M=8, backend="numpy"), "model.safetensors")
    >>> load("model.safetensors", "numpy").architecture.L
    4
    """
    instance("model", model, Model)
    metadata = {"format": "pt", header.KEY: header.write(model)}
    # The library misplaces the numbers of arrays that are not C-contiguous; those of to_theirs are.
    content = safetensors.save(to_theirs(model.state_dict()), metadata)
    with replacing(user_path("path", path)) as file:
        file.write(content)


def load(path: str | os.PathLike[str], backend: str = "auto") -> Model:
    """Read a network that `save` wrote, or that PyTorch saved with the metadata of such a file.

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
            about = file.metadata() or {}
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except Exception as error:  # of the library, or of NumPy, which does not know every dtype
        raise CheckpointError(f"{place} cannot be read: {describe(error, 300)}") from error
    if header.KEY not in about:
        raise CheckpointError(
            f"{place} does not say of which network: save it with metadata=safe_open(ORIGINAL, "
            "'pt').metadata(), or give its state to exchange.torch.from_torch(module, state)"
        )
    shapes = [array.shape for array in arrays.values()]
    model, _ = header.read(about[header.KEY], str(place), backend, shapes)
    try:
        model.load_state_dict(to_ours(arrays, model.state_dict()))
    except CheckpointError as error:
        raise CheckpointError(f"{place}: {error}") from error
    return model
