"""A run that a study needs: trained, gone on with, or read, whatever is left to do."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from igc_ref import runs
from igc_ref.config import TrainConfig
from igc_ref.errors import CheckpointError
from igc_ref.history import History
from igc_ref.report import Report
from igc_ref.train import MAY_CHANGE, resume, train


def run_to_end(
    config: TrainConfig,
    report: Report,
    initial: Mapping[str, Any] | None = None,
) -> History:
    """Return what a run reached, after training whatever of it is missing.

    Parameters
    ----------
    config : TrainConfig
        With the run's folder in ``out``.
    report : callable
        Receives a line of text at the start and after every epoch.
    initial : dict of ndarrays, optional
        As in `igc_ref.train.train`.

    Raises
    ------
    CheckpointError
        If the folder holds a run with other settings, or is damaged.
    """
    folder = Path(config.out or "")
    if not (folder / runs.CONFIG).exists():
        return train(config, report, initial)
    check_same(folder, config)
    if (folder / runs.LOG).exists():
        records = runs.read_log(folder)
        if len(records) >= config.epochs:
            report(f"{folder} is finished: {records[-1]['test_accuracy']:.2%}")
            return History(folder, records)
    new = {name: getattr(config, name) for name in MAY_CHANGE}
    return resume(folder, report, initial, **new)


def check_same(folder: Path, config: TrainConfig) -> None:
    """Raise a CheckpointError that names what differs unless the run in a folder is this one."""
    found = asdict(runs.read_config(folder))
    differing = [
        f"{name}={value} (the run has {found[name]})"
        for name, value in asdict(config).items()
        if name not in (*MAY_CHANGE, "out") and value != found[name]
    ]
    if differing:
        raise CheckpointError(
            f"{folder} holds another run: {', '.join(differing)}; choose another --out"
        )
