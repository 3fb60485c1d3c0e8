"""A trained regular network, compressed to an IGC network.

Every convolution is replaced by the nearest block (`igc_ref.reference.nearest`), then the network
is fine-tuned, beside a twin of the same architecture that is trained from scratch.
"""

from __future__ import annotations

import json
import shlex
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from igc_ref import data
from igc_ref.errors import CheckpointError, SpecError, describe
from igc_ref.files import writable, write_json
from igc_ref.networks import IGC, Conv2d
from igc_ref.networks.architecture import Architecture
from igc_ref.networks.builder import cost
from igc_ref.networks.model import Model, build
from igc_ref.reference import nearest_block, nearest_groups
from igc_ref.reference.structure import Array
from igc_ref.report import Report
from igc_ref.training import folder as runs
from igc_ref.training.checkpoint import Checkpoint
from igc_ref.training.config import TrainConfig
from igc_ref.training.evaluation import evaluate, precise_statistics
from igc_ref.training.session import run_to_end

RESULT = "compress.json"


def compressed(regular: Architecture, L: int, M: int) -> Architecture:
    """Return the IGC network of the same family and depth; a SpecError if its width differs."""
    if regular.unit != "regular":
        raise SpecError(f"{regular} is no regular network: only a regular one can be compressed")
    if regular.family == "densenet":
        raise SpecError(f"{regular}: no IGC network has the widths of a DenseNet's transitions")
    target, G = regular.with_unit("igc", L=L, M=M), regular.channels
    if target.channels != G:
        product = f"{target.L}*{target.M} = {target.channels}"
        raise SpecError(f"L*M = {product} is not the width of {regular}; it must be {G}")
    return target


def project_network(
    model: Model, architecture: Architecture
) -> tuple[dict[str, Array], dict[str, float]]:
    """Project the convolutions of a regular network; keep everything else.

    Parameters
    ----------
    model : Model
        A regular network.
    architecture : Architecture
        The IGC network, as `compressed` returns it.

    Returns
    -------
    state : dict of ndarrays
        As `Model.load_state_dict` of the IGC network takes it.
    errors : dict of float
        ‖K - K'‖ / ‖K‖ of every convolution that is replaced, by name.
    """
    target = build(architecture, "numpy", model.dtype)
    regular, projected, errors = model.state_dict(), dict[str, Array](), dict[str, float]()
    for name, layer in target.network.named_layers():
        if isinstance(layer, IGC):
            kernel = regular[name.removesuffix("igc") + "conv.weight"].astype(np.float64)
            primary, secondary, errors[name] = nearest_block(kernel, layer.spec)
            projected |= {f"{name}.primary": primary, f"{name}.secondary": secondary}
        elif isinstance(layer, Conv2d) and layer.groups > 1:
            kernel = regular[f"{name}.weight"].astype(np.float64)
            projected[f"{name}.weight"], errors[name] = nearest_groups(kernel, layer.groups)
    own = target.state_dict()
    state = own | regular | projected
    return {name: state[name].astype(array.dtype) for name, array in own.items()}, errors


def compress(
    run: str,
    L: int,
    M: int,
    out: str,
    report: Report,
    *,
    epochs: int = 2,
    lr: float | None = None,
    distil: bool = False,
    backend: str = "auto",
    data_dir: str | None = None,
) -> dict[str, Any]:
    """Turn a trained regular network into an IGC network, and measure what it keeps.

    Parameters
    ----------
    run : str
        Folder of a finished run of a regular network.
    L, M : int
        Partitions of the first stage; L*M is the network's width.
    out : str
        Folder for the runs ``finetuned`` and ``scratch`` and for ``compress.json``. Runs that are
        already finished are not trained again.
    report : callable
        Receives lines of text.
    epochs : int
        Of fine-tuning, and of the twin's training.
    lr : float, optional
        Peak learning rate of both; the run's own by default.
    distil : bool
        Whether to fine-tune once more, as ``distilled``, with the regular network as teacher.
    backend, data_dir
        As in `TrainConfig`.

    Returns
    -------
    dict
        ``accuracies`` on the test set (0 to 1): ``before``, ``projected``, ``precise_bn`` (with
        batch statistics estimated anew), ``finetuned``, maybe ``distilled``, ``scratch``;
        ``errors`` by layer; settings and costs.

    Raises
    ------
    CheckpointError
        If `run` is no finished run, or `out` holds a run or the compression of another network.
    SpecError
        If the run is not of a regular network, or L*M is not its width.
    """
    folder = runs.of_study(out)
    model, saved = _finished(run, backend, report)
    config = saved.config
    target = compressed(model.architecture, L, M)
    settings = replace(
        config, arch=target.arch, L=target.L, M=target.M, width=None, epochs=epochs, until=None,
        lr=config.lr if lr is None else lr, backend=backend,
        data_dir=config.data_dir if data_dir is None else data_dir, teacher=None,
        temperature=TrainConfig.temperature, alpha=TrainConfig.alpha,
    )  # fmt: skip
    result_file, weights = writable(folder / RESULT, make_folder=True), model.sha256()
    _claim(result_file, weights)
    small, accuracies, errors = _project(model, target, settings, saved, report)
    for name in ("finetuned", *["distilled"] * distil, "scratch"):
        c = replace(settings, out=str(folder / name), teacher=run if name == "distilled" else None)
        initial = None if name == "scratch" else small.state_dict()
        accuracies[name] = run_to_end(c, report, initial).test_accuracy
    result = {
        "weights": weights,
        "run": config.to_dict() | {"out": None, "data_dir": None},
        **{name: getattr(settings, name) for name in ("L", "M", "epochs", "lr")},
        "accuracies": accuracies,
        "errors": errors,
        "cost_before": cost(model.architecture, saved.metadata.size)._asdict(),
        "cost_after": cost(target, saved.metadata.size)._asdict(),
    }
    write_json(result_file, result)
    return result


def _claim(file: Path, weights: str) -> None:
    """Note whose compression a folder holds, for runs that were fine-tuned do not say it."""
    if not file.exists():
        write_json(file, {"weights": weights})
        return
    try:
        had = json.loads(file.read_text(encoding="utf-8"))["weights"]
    except (ValueError, LookupError, TypeError) as error:
        raise CheckpointError(f"{file} is damaged: {describe(error)}") from error
    if had != weights:
        text = f"holds the compression of weights of SHA-256 {had}, not {weights}"
        raise CheckpointError(f"{file.parent} {text}; choose another --out")


def _finished(run: str, backend: str, report: Report) -> tuple[Model, Checkpoint]:
    model, saved = runs.load_run(run, backend, report)
    if not saved.fingerprint:
        raise CheckpointError(f"{run} holds imported weights; the run that was exported is needed")
    if not saved.finished:
        raise CheckpointError(
            f"{run} has trained {len(saved.records)} of its {saved.config.epochs} epochs; finish "
            f"it first: igc-ref train --resume {shlex.quote(run)}"
        )
    return model, saved


def _project(
    model: Model, target: Architecture, settings: TrainConfig, saved: Checkpoint, report: Report
) -> tuple[Model, dict[str, float], dict[str, float]]:
    """Return the projected network, the accuracies up to it, and the errors of its layers."""
    test_set = runs.load_test_set(saved, settings.data_dir, report)
    model.backend.prepare(model.dtype, report)
    test = partial(evaluate, dataset=test_set, mirror=settings.test_mirror)
    where = settings.data_dir, report, settings.data_size
    train_set = data.load(settings.data, "train", *where)
    accuracies = {"before": test(model).accuracy}
    report(f"{model.architecture}: {accuracies['before']:.2%}")
    state, errors = project_network(model, target)
    report("\n".join(f"{name}: relative error {e:.3f}" for name, e in errors.items()))
    small = build(target, model.backend, model.dtype)
    small.load_state_dict(state)
    accuracies["projected"] = test(small).accuracy
    line = f"{target}: {accuracies['projected']:.2%} as projected"
    if target.norm == "batch":
        precise_statistics(small, train_set)
        accuracies["precise_bn"] = test(small).accuracy
        line += f", {accuracies['precise_bn']:.2%} with batch statistics estimated anew"
    report(line)
    return small, accuracies, errors


def summary_cells(result: dict[str, Any]) -> list[tuple[str, ...]]:
    """Return the result of `compress` as rows of text, a header first."""
    accuracy, epochs = result["accuracies"], result["epochs"]
    before, after = (result[f"cost_{when}"]["parameters"] for when in ("before", "after"))
    config = TrainConfig.from_dict(result["run"])
    rows = (
        (f"regular, trained for {config.epochs} epochs", before, "before"),
        ("nearest IGC", after, "projected"),
        ("... statistics estimated anew", after, "precise_bn"),
        (f"... fine-tuned for {epochs}", after, "finetuned"),
        (f"... fine-tuned for {epochs}, the regular one as teacher", after, "distilled"),
        (f"IGC from scratch for {epochs}", after, "scratch"),
    )
    header = ("network", "parameters", "test accuracy")
    found = [(name, f"{n:,}", f"{accuracy[key]:.2%}") for name, n, key in rows if key in accuracy]
    return [header, *found]
