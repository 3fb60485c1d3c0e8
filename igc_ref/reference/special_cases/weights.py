"""What every construction of a special case returns."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy.typing as npt

from igc_ref.spec import IGCSpec

Array = npt.NDArray[Any]


class Weights(NamedTuple):
    """An IGC block with its weights."""

    primary: Array
    secondary: Array
    spec: IGCSpec
