"""What every construction of a special case returns."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy.typing as npt

from igc_ref.spec.block import IGCSpec

Array = npt.NDArray[Any]


class Weights(NamedTuple):
    """An IGC block with its weights."""

    primary: Array
    secondary: Array
    spec: IGCSpec


def weights(primary: Array, secondary: Array, spec: IGCSpec) -> Weights:
    """Return the weights of a block; a SpecError if their shapes are not the block's."""
    spec.check_weights(primary, secondary)
    return Weights(primary, secondary, spec)
