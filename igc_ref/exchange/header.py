"""What an exported file says of its network: enough to build it again, and what it is for."""

from __future__ import annotations

import json
import math
from collections.abc import Collection
from dataclasses import asdict
from typing import Any

import igc_ref
from igc_ref.backends.operators.library import DTYPES
from igc_ref.errors import CheckpointError, choice, describe
from igc_ref.networks.architecture import Architecture
from igc_ref.networks.builder import cost
from igc_ref.networks.metadata import Metadata
from igc_ref.networks.model import Model, build

KEY = "igc_ref"  # of the header in a file's own key-value table
LONGEST = 1 << 20  # characters
Shapes = Collection[tuple[int, ...]]


def write(model: Model, **more: Any) -> str:
    """Return the header of a network as JSON.

    Parameters
    ----------
    model : Model
    more
        What the format adds, ready for JSON.
    """
    about = None if model.metadata is None else model.metadata.to_dict()
    header = {
        "version": igc_ref.__version__,
        "architecture": asdict(model.architecture),
        "dtype": model.dtype,
        "metadata": about,
    }
    return json.dumps(header | more)


def read(
    text: str | None, place: str, backend: str = "auto", shapes: Shapes | None = None
) -> tuple[Model, dict[str, Any]]:
    """Build the network that a header describes, its weights not yet those of the file.

    Parameters
    ----------
    text : str or None
        What `write` returned; None if the file has no header.
    place : str
        The file, for messages.
    backend : str
        As in `build_model`.
    shapes : collection of tuple of int, optional
        Of the file's arrays; a header that they cannot be of builds no network.

    Returns
    -------
    model, header : Model, dict

    Raises
    ------
    CheckpointError
        If the file has no header, or one that describes no network, or one too large for the file.
    """
    if text is None:
        raise CheckpointError(f"{place} was not exported by igc_ref: it does not say which network")
    try:
        if len(text) > LONGEST:
            raise ValueError(f"its header has {len(text):,} characters")
        header = json.loads(text)
        architecture = Architecture(**header["architecture"])
        dtype = choice("dtype", header["dtype"], DTYPES)
        metadata = header["metadata"] and Metadata.from_dict(header["metadata"])
        if metadata and len(metadata.classes) != architecture.num_classes:
            raise ValueError(f"{len(metadata.classes)} names of {architecture.num_classes} classes")
        if shapes is not None:
            _bound(architecture, shapes)
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise CheckpointError(f"{place} is damaged: {describe(error, 300)}") from error
    model = build(architecture, backend, dtype)
    model.metadata = metadata
    return model, header


def _bound(a: Architecture, shapes: Shapes) -> None:
    """Raise a ValueError if a file's arrays cannot be those of a network; it takes no memory."""
    numbers = sum(map(math.prod, shapes))
    # Every layer has an array, their average is no smaller than the first stage has channels, and
    # batch norm that is folded leaves more than half of a network's numbers.
    too_small = a.depth > len(shapes) or max(a.num_classes, a.depth * a.channels) > numbers
    fixed = a.depth * a.channels * (a.L or 1) if a.unit == "fusion" else 0  # ones, not in the file
    if too_small or cost(a).parameters > 2 * numbers or fixed > 64 * numbers:
        raise ValueError(f"{a}, {a.num_classes} classes, is not in {numbers:,} numbers")
