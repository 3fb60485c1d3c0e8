"""Into and out of the world around: ONNX, safetensors, PyTorch. Optional libraries, one a file.

`save` and `load` choose `safetensors` or `onnx` by a file's suffix.
"""

from __future__ import annotations

import os
from importlib import import_module
from typing import Any

from igc_ref.errors import BackendError, SpecError, describe, user_path
from igc_ref.networks.model import Model

SUFFIXES = (".safetensors", ".onnx")


def save(model: Model, path: str | os.PathLike[str], **options: Any) -> None:
    """Write a network to a file whose suffix is its format; see `safetensors.save`, `onnx.save`.

    Raises
    ------
    SpecError
        For another suffix, or an option, which only ``.onnx`` files have.
    BackendError
        If the library of the format is not installed.
    """
    module = _format(path)
    if options and not str(path).endswith(".onnx"):
        raise SpecError(f"{path} takes no {', '.join(options)}: only .onnx files do")
    module.save(model, path, **options)


def load(path: str | os.PathLike[str], backend: str = "auto") -> Model:
    """Read a network that `save` wrote: see `safetensors.load`, `onnx.load`. Raises as `save`."""
    model: Model = _format(path).load(path, backend)
    return model


def _format(path: str | os.PathLike[str]) -> Any:
    suffix = user_path("path", path).suffix
    if suffix not in SUFFIXES:
        raise SpecError(f"{path} must end in {' or '.join(SUFFIXES)}, which is its format")
    try:
        return import_module(f"igc_ref.exchange{suffix}")
    except ImportError as error:
        need = f'{suffix} files need: pip install "igc-ref[{suffix[1:]}]"'
        raise BackendError(f"{need} ({describe(error)})") from error
