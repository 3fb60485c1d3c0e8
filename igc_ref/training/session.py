"""Training from scratch, and from where a run was interrupted."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from igc_ref.errors import CheckpointError
from igc_ref.report import Report, silent
from igc_ref.training import folder as runs
from igc_ref.training.checkpoint import History
from igc_ref.training.config import TrainConfig
from igc_ref.training.evaluation import Evaluation, evaluate
from igc_ref.training.loop import Trainer

__all__ = ["Evaluation", "History", "TrainConfig", "Trainer", "evaluate", "resume", "train"]

MAY_CHANGE = ("backend", "data_dir", "checkpoint_every")  # between a run and its continuation


def train(
    config: TrainConfig, report: Report = silent, initial: Mapping[str, Any] | None = None
) -> History:
    """Train a network, as `config` says.

    Parameters
    ----------
    config : TrainConfig
    report : callable
        Receives a line of text at the start and after every epoch.
    initial : dict of ndarrays, optional
        Weights and statistics to begin with, as `Model.state_dict` gives them, instead of freshly
        drawn ones.

    Returns
    -------
    History

    Raises
    ------
    IGCError
        For data, a backend or a folder that cannot serve; raised before anything is written.
    TrainingError
        If the loss is not finite any more, or the memory does not suffice.
    Interrupted
        After Ctrl-C or SIGTERM; the run has been saved and can be resumed.
    """
    trainer = Trainer(config, report)
    if initial is not None:
        trainer.model.load_state_dict(initial)
    with runs.create(config) as folder:
        return trainer.finish(folder, report)


def resume(
    folder: str | Path,
    report: Report = silent,
    initial: Mapping[str, Any] | None = None,
    **settings: Any,
) -> History:
    """Continue an interrupted run from its last checkpoint; the same bits as without the pause.

    If the last checkpoint is damaged, that is reported, and the one before it is taken.

    Parameters
    ----------
    folder : path
        The run's folder.
    report : callable
        As in `train`.
    initial : dict of ndarrays, optional
        As in `train`; for a run that was ended before its first checkpoint.
    settings
        Fields of `TrainConfig`. ``backend``, ``data_dir`` and ``checkpoint_every`` may be new;
        anything else must be what the run has.

    Raises
    ------
    CheckpointError
        If there is no run, it is finished, `settings` describe another run, the pictures are not
        the run's, or another process is at it.
    """
    folder = Path(folder)
    with runs.locked(folder):
        saved = runs.load_newest(folder, report)
        config = runs.read_config(folder) if saved is None else saved.config
        differing = [
            f"{name}={value} (the run has {getattr(config, name)})"
            for name, value in settings.items()
            if name not in MAY_CHANGE and value != getattr(config, name)
        ]
        if differing:
            raise CheckpointError(f"{folder} is another run: {', '.join(differing)}")
        if saved is not None and len(saved.records) >= config.epochs:
            raise CheckpointError(f"{folder} has finished all its {config.epochs} epochs")
        config = replace(config, **{n: v for n, v in settings.items() if n in MAY_CHANGE})
        trainer = Trainer(config, report)
        if saved is not None:
            trainer.restore(saved)
        elif initial is not None:
            trainer.model.load_state_dict(initial)
        return trainer.finish(folder, report)


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
