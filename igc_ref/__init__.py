"""igc_ref: the executable reference of Interleaved Group Convolutions (arXiv:1707.02725).

x' = P W_d Pᵀ W_p x, as explicit matrices, as fast operators, and as networks that train.
"""

from __future__ import annotations

from importlib import import_module
from types import ModuleType

from igc_ref.networks.model import build_model
from igc_ref.spec.block import IGCSpec
from igc_ref.training.config import TrainConfig
from igc_ref.training.evaluation import evaluate
from igc_ref.training.session import resume, train

__all__ = ["IGCSpec", "TrainConfig", "build_model", "evaluate", "reference", "resume", "train"]
__version__ = "0.1.0"


def __getattr__(name: str) -> ModuleType:
    # The reference needs SciPy and serves as an oracle: nothing here imports it unasked.
    if name == "reference":
        return import_module("igc_ref.reference")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
