"""How many float32 numbers a vector holds: fixed when the kernels are imported, until the end."""

from __future__ import annotations

asked: int | None = None  # for what `vectors`, once imported, has taken; None: the processor's
