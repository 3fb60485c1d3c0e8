"""A trained regular network as an IGC network: every 3x3 kernel replaced by its nearest IGC.

A block with L and M composes to a dense kernel (see `igc_ref.reference.nearest`) whose slices

    K[r*M+m, b*n+i, s] = sum over j < q of  W_d^m[r, j*L+b] * W_p^b[q*m+j, i, s],

n = in/L, q = out/(L*M), have rank at most q when read as matrices of rows r and columns (i, s). In
the square block q is 1. Slices share no weights, so the best rank-q piece of each, by its singular
value decomposition, is the nearest block (Eckart and Young). ``docs/compress.md`` derives it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from igc_ref.architecture import ARCHITECTURES, Architecture
from igc_ref.errors import SpecError
from igc_ref.layers import IGC, Conv2d
from igc_ref.models import Model, build
from igc_ref.spec import IGCSpec

Array = npt.NDArray[Any]


class Projected(NamedTuple):
    """The nearest block to a dense kernel, and ‖K - K'‖ / ‖K‖ in Frobenius norm, from 0 to 1."""

    primary: Array
    secondary: Array
    error: float


def nearest_block(kernel: Array, spec: IGCSpec) -> Projected:
    """Find the block nearest to a dense kernel in Frobenius norm.

    Parameters
    ----------
    kernel : ndarray, shape ``spec.composed_shape``
        float64.
    spec : IGCSpec
        L*M must divide the output channels.

    Returns
    -------
    primary, secondary : ndarrays
        Shapes ``spec.primary_shape`` and ``spec.secondary_shape``; both factors of a slice have
        the same norm.
    error : float

    Raises
    ------
    SpecError
        If the kernel has another shape, or L*M does not divide its output channels.
    """
    L, M, out = spec.L, spec.M, spec.out_channels
    if kernel.shape != spec.composed_shape:
        raise SpecError(f"the kernel has shape {kernel.shape}; {spec} needs {spec.composed_shape}")
    if out % (L * M):
        raise SpecError(f"out_channels={out} is not divisible by L*M = {L}*{M} = {L * M}")
    q = out // (L * M)
    K = kernel.reshape(out // M, M, L, -1).transpose(1, 2, 0, 3)  # (m, b, r, n*S)
    U, sigma, V = np.linalg.svd(K, full_matrices=False)
    kept = min(q, sigma.shape[-1])
    root = np.sqrt(sigma[..., :kept])
    W_d = np.zeros((M, L, out // M, q), kernel.dtype)  # (m, b, r, j)
    W_p = np.zeros((M, L, q, K.shape[-1]), kernel.dtype)  # (m, b, j, n*S)
    W_d[..., :kept] = U[..., :kept] * root[..., None, :]
    W_p[..., :kept, :] = V[..., :kept, :] * root[..., None]
    total = float((sigma**2).sum())
    lost = float((sigma[..., kept:] ** 2).sum())
    return Projected(
        primary=W_p.transpose(1, 0, 2, 3).reshape(spec.primary_shape),  # row b*(out/L) + q*m + j
        secondary=W_d.transpose(0, 2, 3, 1).reshape(spec.secondary_shape),  # column j*L + b
        error=math.sqrt(lost / total) if total else 0.0,
    )


def nearest_groups(kernel: Array, groups: int) -> tuple[Array, float]:
    """Find the group convolution nearest to a dense one: its diagonal blocks; and the error."""
    out, inp = kernel.shape[:2]
    blocks = kernel.reshape(groups, out // groups, groups, inp // groups, *kernel.shape[2:])
    kept = np.concatenate([blocks[g, :, g] for g in range(groups)])
    total, inside = float((kernel**2).sum()), float((kept**2).sum())
    return kept, math.sqrt(max(0.0, 1 - inside / total)) if total else 0.0


def compressed(regular: Architecture, L: int, M: int) -> Architecture:
    """Return the IGC network of the same family and depth; a SpecError if its width differs."""
    kinds = {kind: name for name, kind in ARCHITECTURES.items()}
    if regular.unit != "regular":
        raise SpecError(f"{regular} is no regular network: only such a one can be compressed")
    if regular.channels != L * M:
        raise SpecError(
            f"L*M = {L}*{M} = {L * M} is not the width of {regular}; it must be {regular.channels}"
        )
    return replace(regular, arch=kinds[regular.family, "igc"], L=L, M=M, width=None)


def project_network(
    model: Model, architecture: Architecture
) -> tuple[dict[str, Array], dict[str, float]]:
    """Project the convolutions of a regular network; keep everything else.

    Parameters
    ----------
    model : Model
        A regular network.
    architecture : Architecture
        The IGC network that is wanted, as `compressed` names it.

    Returns
    -------
    state : dict of ndarrays
        As `Model.load_state_dict` of the IGC network takes it.
    errors : dict of float
        ‖K - K'‖ / ‖K‖ of every convolution that was replaced, by name.
    """
    target = build(architecture, "numpy", model.dtype)
    ours, state, errors = model.state_dict(), dict[str, Array](), dict[str, float]()
    for name, layer in target.network.named_layers():
        found = _of_layer(name, layer, ours)
        if found is not None:
            weights, errors[name] = found
            state.update(weights)
    for name, array in target.state_dict().items():
        state[name] = state.get(name, ours.get(name, array)).astype(array.dtype)
    return {name: state[name] for name in target.state_dict()}, errors


def _of_layer(
    name: str, layer: Any, ours: Mapping[str, Array]
) -> tuple[dict[str, Array], float] | None:
    """Return weights and error of a layer that is not what it was, or None."""
    if isinstance(layer, IGC):
        kernel = ours[name.removesuffix("igc") + "conv.weight"].astype(np.float64)
        primary, secondary, error = nearest_block(kernel, layer.spec)
        return {f"{name}.primary": primary, f"{name}.secondary": secondary}, error
    if isinstance(layer, Conv2d) and layer.groups > 1:
        kernel = ours[f"{name}.weight"].astype(np.float64)
        weight, error = nearest_groups(kernel, layer.groups)
        return {f"{name}.weight": weight}, error
    return None
