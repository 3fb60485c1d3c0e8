"""Weights by PyTorch's names and in its layouts, and back. Needs no PyTorch.

Ours differ in the names of batch norm's parameters, and in that a 1x1 convolution's weight has two
dimensions where PyTorch's has four.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from igc_ref.networks.model import check_state
from igc_ref.training.checkpoint import check_numbers

State = dict[str, npt.NDArray[Any]]
THEIRS = {"gamma": "weight", "beta": "bias"}
BLOCK = ("primary", "secondary")  # starts of names: convolutions of a block, modules in PyTorch
COUNTER = "num_batches_tracked"  # of PyTorch's batch norm; no result depends on it


def to_theirs(state: Mapping[str, npt.NDArray[Any]]) -> State:
    """Return the arrays of `Model.state_dict` by PyTorch's names, C-contiguous.

    Examples
    --------
    >>> {name: a.shape for name, a in to_theirs({"igc.secondary": np.ones((8, 2))}).items()}
    {'igc.secondary.weight': (8, 2, 1, 1)}
    """
    found = {}
    for name, array in state.items():
        shape = (*array.shape, 1, 1) if name.endswith(".secondary") else array.shape
        found[_their_name(name)] = np.ascontiguousarray(array).reshape(shape)
    return found


def to_ours(state: Mapping[str, npt.NDArray[Any]], like: Mapping[str, npt.NDArray[Any]]) -> State:
    """Return arrays by PyTorch's names as the model takes them whose ``state_dict`` is `like`.

    A CheckpointError if a name, shape or dtype differs, or a number is not finite.
    """
    given = {n: np.asarray(a) for n, a in state.items() if not n.endswith(f".{COUNTER}")}
    check_state(to_theirs(like), given)
    found = {name: given[_their_name(name)].reshape(array.shape) for name, array in like.items()}
    check_numbers(found)
    return found


def _their_name(name: str) -> str:
    place, _, own = name.rpartition(".")
    return f"{place}.{own}.weight" if own.startswith(BLOCK) else f"{place}.{THEIRS.get(own, own)}"
