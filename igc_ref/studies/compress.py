"""Compressing a trained network: projected, fine-tuned, and beside a twin trained from scratch."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from igc_ref import data
from igc_ref.errors import SpecError
from igc_ref.files import write_json
from igc_ref.networks import IGC, Conv2d
from igc_ref.networks.architecture import ARCHITECTURES, Architecture
from igc_ref.networks.builder import cost
from igc_ref.networks.model import Model, build
from igc_ref.report import Report
from igc_ref.spec.block import IGCSpec
from igc_ref.training import folder as runs
from igc_ref.training.config import TrainConfig
from igc_ref.training.evaluation import evaluate, precise_statistics
from igc_ref.training.session import run_to_end

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


RESULT = "compress.json"


def compress(
    run: str,
    L: int,
    M: int,
    out: str,
    report: Report,
    *,
    epochs: int = 2,
    lr: float | None = None,
    backend: str = "auto",
    data_dir: str | None = None,
) -> dict[str, Any]:
    """Turn a trained regular network into an IGC network, and see what it keeps.

    Parameters
    ----------
    run : str
        Folder of a finished run of a regular network.
    L, M : int
        Partitions of the first stage; L*M is the network's width.
    out : str
        Folder for the runs ``finetuned`` and ``scratch`` and for ``compress.json``. What is there
        already is not trained again.
    report : callable
        Receives lines of text.
    epochs : int
        Of fine-tuning, and of the twin's training.
    lr : float, optional
        Peak learning rate of both; the run's own by default.
    backend, data_dir
        As in `TrainConfig`.

    Returns
    -------
    dict
        ``accuracies`` on the test set (0 to 1): ``before``, ``projected``, ``precise_bn`` (with
        batch statistics estimated anew), ``finetuned``, ``scratch``; ``errors`` by layer; settings
        and costs.

    Raises
    ------
    CheckpointError
        If `run` is no finished run, or `out` holds something else.
    SpecError
        If the run is not of a regular network, or L*M is not its width.
    """
    model, config = runs.load_run(run, backend)
    target = compressed(model.architecture, L, M)
    settings = replace(
        config, arch=target.arch, L=L, M=M, width=None, epochs=epochs, lr=lr or config.lr,
        backend=backend, data_dir=data_dir or config.data_dir, out=str(Path(out) / "finetuned"),
    )  # fmt: skip
    small, accuracies, errors = _project(model, target, settings, report)
    finetuned = run_to_end(settings, report, initial=small.state_dict())
    scratch = run_to_end(replace(settings, out=str(Path(out) / "scratch")), report)
    accuracies |= {"finetuned": finetuned.test_accuracy, "scratch": scratch.test_accuracy}
    result = {
        "run": config.to_dict() | {"out": None, "data_dir": None},
        "L": L,
        "M": M,
        "epochs": epochs,
        "lr": settings.lr,
        "accuracies": accuracies,
        "errors": errors,
        "cost_before": cost(model.architecture)._asdict(),
        "cost_after": cost(target)._asdict(),
    }
    write_json(Path(out) / RESULT, result)
    return result


def _project(
    model: Model, target: Architecture, settings: TrainConfig, report: Report
) -> tuple[Model, dict[str, float], dict[str, float]]:
    """Return the projected network, the accuracies up to it, and the errors of its layers."""
    model.backend.prepare(model.dtype, report)
    train_set, test_set = (
        data.load(settings.data, split, settings.data_dir, report) for split in ("train", "test")
    )
    accuracies = {"before": evaluate(model, test_set).accuracy}
    report(f"{model.architecture}: {accuracies['before']:.2%}")
    state, errors = project_network(model, target)
    report("\n".join(f"{name}: relative error {e:.3f}" for name, e in errors.items()))
    small = build(target, model.backend, model.dtype)
    small.load_state_dict(state)
    accuracies["projected"] = evaluate(small, test_set).accuracy
    precise_statistics(small, train_set)
    accuracies["precise_bn"] = evaluate(small, test_set).accuracy
    report(
        f"{target}: {accuracies['projected']:.2%} as projected, "
        f"{accuracies['precise_bn']:.2%} with batch statistics estimated anew"
    )
    return small, accuracies, errors


def summary_cells(result: dict[str, Any]) -> list[tuple[str, ...]]:
    """Return what compressing gave as rows of text, a header first."""
    accuracy, epochs = result["accuracies"], result["epochs"]
    before, after = (result[f"cost_{when}"]["parameters"] for when in ("before", "after"))
    config = TrainConfig.from_dict(result["run"])
    return [
        ("network", "parameters", "test accuracy"),
        (
            f"regular, trained for {config.epochs} epochs",
            f"{before:,}",
            f"{accuracy['before']:.2%}",
        ),
        ("nearest IGC", f"{after:,}", f"{accuracy['projected']:.2%}"),
        ("... statistics estimated anew", f"{after:,}", f"{accuracy['precise_bn']:.2%}"),
        (f"... fine-tuned for {epochs}", f"{after:,}", f"{accuracy['finetuned']:.2%}"),
        (f"IGC from scratch for {epochs}", f"{after:,}", f"{accuracy['scratch']:.2%}"),
    ]
