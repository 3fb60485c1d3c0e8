"""What an exported file says of its network: enough to build it again, and what it is for."""

from __future__ import annotations

import json
import math
from collections.abc import Collection
from dataclasses import asdict, replace
from typing import Any

import igc_ref
from igc_ref.backends.operators.library import DTYPES
from igc_ref.errors import CheckpointError, choice, describe
from igc_ref.networks.architecture import Architecture
from igc_ref.networks.builder import cost
from igc_ref.networks.layers import BatchNorm
from igc_ref.networks.metadata import Metadata
from igc_ref.networks.model import Model, build

KEY = "igc_ref"  # of the header in a file's own key-value table
Shapes = Collection[tuple[int, ...]]


def write(model: Model, **more: Any) -> str:
    """Return the header of a network as JSON; `more` is what the format adds."""
    header = {
        "version": igc_ref.__version__,
        "architecture": asdict(model.architecture),
        "dtype": model.dtype,
        "bn_momentum": momentum(model),
        "metadata": model.metadata and model.metadata.to_dict(),
    }
    return json.dumps(header | more)


def momentum(model: Model) -> float | None:
    """Return the momentum of a network's batch norms, None if it has none."""
    layers = (layer for _, layer in model.network.named_layers())
    return next((layer.momentum for layer in layers if isinstance(layer, BatchNorm)), None)


def read(
    text: str | None, place: str, backend: str, shapes: Shapes
) -> tuple[Model, dict[str, Any]]:
    """Build the network of a header, its weights not yet the file's; return also the header.

    Raises a CheckpointError, which names `place`, if there is no header, or it describes no
    network, or one that is too large for the file's arrays, of these shapes.
    """
    if text is None:
        raise CheckpointError(f"{place} was not exported by igc_ref: it does not say which network")
    try:
        header = json.loads(text)
        architecture = Architecture(**header["architecture"])
        dtype = choice("dtype", header["dtype"], DTYPES)
        about = header["metadata"]
        metadata = None if about is None else Metadata.from_dict(about)
        if metadata and len(metadata.classes) != architecture.num_classes:
            raise ValueError(f"{len(metadata.classes)} names of {architecture.num_classes} classes")
        if metadata and len(metadata.mean) != architecture.in_channels:
            raise ValueError(f"{len(metadata.mean)} means of {architecture.in_channels} channels")
        _bound(architecture, shapes)
        model = build(architecture, backend, dtype, bn_momentum=header["bn_momentum"])
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise CheckpointError(f"{place} is damaged: {describe(error, 300)}") from error
    model.metadata = metadata
    return model, header


def _bound(a: Architecture, shapes: Shapes) -> None:
    """Raise a ValueError if a network needs far more numbers than a file has; takes no memory."""
    numbers = sum(map(math.prod, shapes))
    # Folding batch norm leaves more than half of a network's numbers. The ones of a fusion network,
    # which are not in its file, take as much memory as an IGC network's W_d.
    twin = replace(a, arch=a.arch.replace("fusion", "igc"))
    too_small = a.depth > len(shapes) or a.channels > numbers
    if too_small or cost(a).parameters > 2 * numbers or cost(twin).parameters > 64 * numbers:
        raise ValueError(f"{a}, {a.num_classes} classes, is not in {numbers:,} numbers")
