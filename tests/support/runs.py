"""Small training runs, and what of them must not depend on what happened to them."""

import json

from igc_ref import TrainConfig
from igc_ref.cli import main
from igc_ref.training import checkpoint
from igc_ref.training import folder as runs

SMALL = {
    "arch": "plain_igc", "depth": 5, "L": 2, "M": 2, "backend": "numpy", "epochs": 2,
    "batch_size": 16, "lr": 0.05,
}  # fmt: skip
STEPS = 4  # in an epoch of 60 images, 16 at a time: the last batch has 12


def config(tmp_path, name="run", **changes):
    return TrainConfig(**{**SMALL, "out": str(tmp_path / name), **changes})


def failing(error):
    def fail(*_, **__):
        raise error

    return fail


def error_of(capsys, *arguments):
    """Run a command that must fail with exactly one line; return the line."""
    capsys.readouterr()
    assert main([str(a) for a in arguments]) == 1
    out, err = capsys.readouterr()
    assert err.startswith("igc-ref: error: ")
    assert err.count("\n") == 1
    assert "Traceback" not in err + out
    return err


def read_log(folder):
    return [json.loads(line) for line in (folder / runs.LOG).read_text().splitlines()]


def outcome(folder):
    """Weights, statistics and velocities in bytes, and the log without its timings."""
    saved = checkpoint.load(folder / runs.CHECKPOINT)
    for line, record in zip(read_log(folder), saved.records, strict=True):
        assert line == {**line, **record}
    arrays = {**saved.model, **{f"velocity of {n}": v for n, v in saved.velocity.items()}}
    timings = {"seconds", "images_per_second"}
    log = [{k: v for k, v in r.items() if k not in timings} for r in saved.records]
    return {name: array.tobytes() for name, array in arrays.items()}, log
