"""Other shuffles in the places of ours: the same matrix, the same networks, or neither."""

from typing import Any

import numpy as np

from benchmarks.complaints.timing import Answer, Script
from igc_ref.reference.structure import block_diagonal, blockmask, interleave
from igc_ref.report import aligned

BLOCKS = ((4, 4, 16), (24, 2, 48), (4, 8, 32), (24, 2, 96))  # L, M, channels


def places() -> dict[str, tuple[Any, ...]]:
    """Return, by name: groups before and after, our permutation (groups, size), and another."""
    found = {"ShuffleNet g = 3, 60 channels, inverse": (3, 3, (3, 20), (20, 3))}
    for L, M, out in BLOCKS:
        name, first, second = f"L{L}M{M}, {out} channels", (L, out // L), (M, out // M)
        found[f"{name}: between, inverse"] = L, M, first, first[::-1]
        for text, other in (
            ("inverse", second[::-1]),
            ("undo first", first[::-1]),
            ("none", (1, out)),
        ):
            found[f"{name}: after, {text}"] = M, L, second, other
    return found


def counts(Q: Any, before: int, after: int) -> Any:
    """Count the channels that Q takes from each group (column) to each group (row)."""
    return Q.reshape(after, len(Q) // after, before, -1).sum((1, 3))


def relabelling(Q: Any, other: Any, before: int, after: int) -> tuple[Any, Any]:
    """Return S and R with ``other == R @ Q @ S``; both stay within groups if the counts agree."""

    def order(P: Any) -> Any:
        source, target = P.argmax(1), np.arange(len(P))
        return source[np.lexsort((source * before // len(P), target * after // len(P)))]

    S = np.zeros_like(Q)
    S[order(Q), order(other)] = 1
    return S, other @ S.T @ Q.T


def judge(before: int, after: int, ours: Any, theirs: Any) -> dict[str, Any]:
    """Compare another permutation with ours; where the networks are the same, check it exactly."""
    Q, other = interleave(*ours), interleave(*theirs)
    tables = [counts(P, before, after) for P in (Q, other)]
    same = bool(np.array_equal(*tables))
    S, R = relabelling(Q, other, before, after)
    within = np.array_equal(blockmask(S, before), S) and np.array_equal(blockmask(R, after), R)
    rng, C = np.random.default_rng(0), len(Q)
    W_1, W_2 = (
        block_diagonal(rng.integers(-9, 10, (g, C // g, C // g)).astype(float))
        for g in (before, after)
    )
    assert same == within
    assert np.array_equal(W_2 @ other @ W_1, (W_2 @ R) @ Q @ (S @ W_1))
    connected = [float((table > 0).mean()) for table in tables]
    return {"moved": int((other != Q).any(1).sum()), "connected": connected, "same": same}


def measure() -> dict[str, Any]:
    """Judge every place."""
    return {name: judge(*place) for name, place in places().items()}


def lines(found: Any) -> list[str]:
    """Return what is printed."""
    rows = [["in place of ours", "channels elsewhere", "groups connected", "networks"]]
    for name, row in found.items():
        ours, theirs = (f"{share:.0%}" for share in row["connected"])
        word = "the same" if row["same"] else "others"
        rows.append([name, str(row["moved"]), f"{theirs} (ours {ours})",
                     word if row["moved"] else "the same matrix"])  # fmt: skip
    return [aligned(rows)]


def answer(found: Any) -> Answer:
    """Return the row of the table."""
    shufflenet, *igc = found.values()
    equal = sum(row["moved"] == 0 for row in igc)
    same = sum(row["same"] for row in igc) - equal
    word = "the same" if shufflenet["same"] else "other"
    least = min(theirs / ours for ours, theirs in (row["connected"] for row in igc))
    text = (
        f"ShuffleNet's two shuffles: {word} networks. Of {len(igc)} replacements in IGC blocks, "
        f"{equal} are the same matrix, {same} give the same networks, "
        f"{len(igc) - equal - same} give others"
    )
    seen = "for ShuffleNet" if shufflenet["same"] else "no"
    return Answer(
        text, seen, f"another shuffle connects down to {least:.2f} of our pairs of groups"
    )


SCRIPT = Script(
    "Either shuffle does",
    "[ShuffleNet-Series#17](https://github.com/megvii-model/ShuffleNet-Series/issues/17)",
    measure,
    lines,
    answer,
)
