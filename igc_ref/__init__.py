"""igc_ref: the executable reference of Interleaved Group Convolutions (arXiv:1707.02725).

x' = P W_d Pᵀ W_p x, as explicit matrices, as fast operators, and as networks that train.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from igc_ref import reference
    from igc_ref.networks.model import build_model
    from igc_ref.spec.block import IGCSpec
    from igc_ref.training.config import TrainConfig
    from igc_ref.training.evaluation import evaluate
    from igc_ref.training.session import resume, train

__all__ = ["IGCSpec", "TrainConfig", "build_model", "evaluate", "reference", "resume", "train"]
__version__ = "0.1.0"


# Imported when first used: so the command catches Ctrl-C from its first moment, and what needs no
# SciPy does not wait for it.
_HOMES = {
    "IGCSpec": "spec.block", "TrainConfig": "training.config", "build_model": "networks.model",
    "evaluate": "training.evaluation", "resume": "training.session", "train": "training.session",
}  # fmt: skip


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = import_module(f"igc_ref.{_HOMES.get(name, name)}")
    return getattr(module, name) if name in _HOMES else module


def __dir__() -> list[str]:
    return [*globals(), *__all__]
