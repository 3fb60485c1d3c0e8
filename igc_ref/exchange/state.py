"""Weights by PyTorch's names and in its layouts, and back. Needs no PyTorch.

Ours differ in the names of batch norm's parameters, and in that a 1x1 convolution's weight has two
dimensions where PyTorch's has four.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from igc_ref.errors import CheckpointError
from igc_ref.training.checkpoint import check_numbers

State = dict[str, npt.NDArray[Any]]
THEIRS = {
    "gamma": "weight", "beta": "bias", "primary": "primary.weight", "secondary": "secondary.weight",
}  # fmt: skip
COUNTER = "num_batches_tracked"  # of PyTorch's batch norm; no result depends on it


def their_name(name: str) -> str:
    """Return PyTorch's name of one of our arrays.

    Examples
    --------
    >>> their_name("stage1.block1.igc.primary"), their_name("stem.bn.gamma")
    ('stage1.block1.igc.primary.weight', 'stem.bn.weight')
    """
    place, _, own = name.rpartition(".")
    return f"{place}.{THEIRS.get(own, own)}"


def to_theirs(state: Mapping[str, npt.NDArray[Any]]) -> State:
    """Return the arrays of `Model.state_dict` by PyTorch's names, C-contiguous.

    Parameters
    ----------
    state : dict of ndarray
        The secondary weights of a block, (out, out/M), become (out, out/M, 1, 1).
    """
    return {
        their_name(name): np.ascontiguousarray(
            array[:, :, None, None] if name.endswith(".secondary") else array
        )
        for name, array in state.items()
    }


def to_ours(state: Mapping[str, npt.NDArray[Any]], like: Mapping[str, npt.NDArray[Any]]) -> State:
    """Return arrays that have PyTorch's names as `Model.load_state_dict` takes them.

    Parameters
    ----------
    state : dict of ndarray
        What `to_theirs` returns, or a ``state_dict`` of the same network in PyTorch; how many
        batches its batch norms have seen is left out.
    like : dict of ndarray
        The model's own ``state_dict``: which arrays it has.

    Raises
    ------
    CheckpointError
        If arrays are missing or left over, a secondary weight is not 1x1, or a number not finite.
    """
    names = {their_name(name): name for name in like}
    given = {name for name in state if name.rpartition(".")[2] != COUNTER}
    for name in sorted(given ^ set(names)):
        where = "has, but the network has not," if name in given else "lacks"
        raise CheckpointError(f"the state {where} {name!r}: another architecture?")
    found = {name: np.asarray(state[theirs]) for theirs, name in names.items()}
    for name, array in found.items():
        if name.endswith(".secondary"):
            if array.shape[2:] != (1, 1):
                raise CheckpointError(f"{name} has shape {array.shape}; (out, out/M, 1, 1) needed")
            found[name] = array[:, :, 0, 0]
    check_numbers(found)
    return found
