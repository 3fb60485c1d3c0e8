"""Compressing a trained network: projected, fine-tuned, and beside a twin trained from scratch."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from igc_ref import data, runs
from igc_ref.architecture import Architecture
from igc_ref.builder import cost
from igc_ref.config import TrainConfig
from igc_ref.evaluation import evaluate, precise_statistics
from igc_ref.files import replacing
from igc_ref.models import Model, build
from igc_ref.report import Report
from igc_ref.studies.nearest import compressed, project_network
from igc_ref.studies.resumable import run_to_end

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
    with replacing(Path(out) / RESULT) as file:
        file.write((json.dumps(result, indent=2, allow_nan=False) + "\n").encode())
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
