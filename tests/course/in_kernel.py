"""What the tests of the notebooks run inside a notebook's kernel."""

import traceback

import numpy as np


def spoil(value):
    """Return something of the same kind that is wrong; of a function, one that returns such."""
    if value is ... or value is None:
        raise TypeError(f"{value!r} is no answer")
    if callable(value):
        return lambda *args, **kwargs: spoil(value(*args, **kwargs))
    if isinstance(value, np.ndarray):
        rolled = np.roll(value, 1)  # a permutation stays one
        return rolled if not np.array_equal(rolled, value) else value + 1
    if isinstance(value, bool | np.bool_):
        return not value
    if isinstance(value, str):
        return value + "?"
    if isinstance(value, tuple | list):
        spoilt = [*value[:-1], spoil(value[-1])]
        return type(value)(*spoilt) if hasattr(value, "_fields") else type(value)(spoilt)
    return value + 1


def move_every_widget():
    """Move every slider to both its ends and choose every option; raise what a callback raised.

    ``interact`` shows the error of its callback and goes on: it is caught where it is shown.
    """
    from IPython import get_ipython
    from ipywidgets.widgets import widget as module

    shell, shown = get_ipython(), []
    original = shell.showtraceback
    shell.showtraceback = lambda *args, **kwargs: shown.append(traceback.format_exc())
    try:
        for widget in list(module._instances.values()):
            for name, value in positions(widget):
                setattr(widget, name, value)
    finally:
        shell.showtraceback = original
    if shown:
        raise AssertionError("\n".join(shown))


def positions(widget):
    """Yield (trait, value) of every position that a reader can easily put a widget in."""
    value = getattr(widget, "value", None)
    if hasattr(widget, "options"):
        yield from (("index", i) for i in range(len(widget.options)))
    elif hasattr(widget, "min") and hasattr(widget, "max") and not isinstance(value, tuple):
        yield from (("value", end) for end in (widget.min, widget.max, value))
    elif isinstance(value, bool):
        yield from (("value", not value), ("value", value))
