"""Bits per byte of a run on a text, beside gzip, xz and a model of three bytes.

    python -m benchmarks.text FILE --stdlib      makes FILE: 2 MB of Python's own sources
    igc-ref train --data text --data-dir FILE --dims 1 --out RUN
    python -m benchmarks.text FILE RUN

All predict the last tenth of the file after the rest. The compressors get all of it, as what it
adds to the rest when packed; gzip looks back 32 kB only. The run and the model of three bytes, with
Witten-Bell smoothing, predict the same 10,000 bytes of it. The model counts all of the rest; the
run has seen its training windows only.
"""

from __future__ import annotations

import argparse
import lzma
import math
import sysconfig
import zlib
from collections import Counter
from pathlib import Path

import numpy as np

from igc_ref.data import Dataset
from igc_ref.errors import DataError, IGCError
from igc_ref.report import aligned
from igc_ref.training import folder as runs
from igc_ref.training.evaluation import evaluate

SIZE = 2_000_000  # bytes of the standard library


class WittenBell:
    """Predicts a byte after the bytes before it (Witten and Bell, 1991).

    With n the times that the context came, and t the different bytes that came after it,
    p(b | context) = (count(b) + t p(b | shorter context)) / (n + t); below all is 1/256.
    """

    def __init__(self, text: bytes, order: int = 2) -> None:
        self.order = order
        self.counts: list[Counter[bytes]] = []  # of context and byte, by the context's length
        self.seen: list[Counter[bytes]] = []  # of contexts
        self.kinds: list[Counter[bytes]] = []  # different bytes after a context
        for k in range(order + 1):
            grams = Counter(text[i : i + k + 1] for i in range(len(text) - k))
            self.counts.append(grams)
            self.kinds.append(Counter(gram[:-1] for gram in grams))
            seen: Counter[bytes] = Counter()
            for gram, count in grams.items():
                seen[gram[:-1]] += count
            self.seen.append(seen)

    def probability(self, context: bytes, byte: int) -> float:
        """Return p(byte | the last bytes of the context)."""
        p = 1 / 256
        for k in range(self.order + 1):
            last = context[len(context) - k :]
            t = self.kinds[k][last]
            if t:
                p = (self.counts[k][last + bytes([byte])] + t * p) / (self.seen[k][last] + t)
        return p

    def bits_per_byte(self, windows: Dataset) -> float:
        """Return the mean of -log2 p of the bytes after the windows of `igc_ref.data`."""
        first = np.packbits(windows.images[:, :8, 0] // 255, axis=1)[:, 0]  # (n, 64)
        contexts = [bytes(row) for row in first[:, -max(1, self.order) :]]
        pairs = zip(contexts, windows.labels.tolist(), strict=True)
        return -math.fsum(math.log2(self.probability(*pair)) for pair in pairs) / len(windows)


def gzip_9(data: bytes) -> int:
    """Return the size in bytes of what gzip -9 makes of it."""
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    return len(packer.compress(data) + packer.flush())


def xz(data: bytes) -> int:
    """Return the size in bytes of what xz -9e makes of it."""
    return len(lzma.compress(data, preset=9 | lzma.PRESET_EXTREME))


def main() -> None:
    """Make the file, or print the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("file", type=Path, help="the text")
    parser.add_argument("run", type=Path, nargs="?", help="folder of a run on it")
    text = "make the file: the first 2 MB of the modules of Python's standard library"
    parser.add_argument("--stdlib", action="store_true", help=text)
    args = parser.parse_args()
    if args.stdlib:
        modules = sorted(Path(sysconfig.get_paths()["stdlib"]).glob("*.py"))
        args.file.write_bytes(b"".join(module.read_bytes() for module in modules)[:SIZE])
    if args.run is None:
        return
    try:
        model, saved = runs.load_run(args.run)
        if saved.config.data != "text":
            raise DataError(f"{args.run} was trained on {saved.config.data}, not on a text")
        windows = runs.load_test_set(saved, str(args.file.absolute()), print)
        loss = evaluate(model, windows).loss
    except IGCError as error:
        parser.error(str(error))
    content = args.file.read_bytes()
    head = content[: len(content) * 9 // 10]
    tail = len(content) - len(head)
    rows = [
        ["predicted by", "bits per byte"],
        [str(model.architecture), f"{loss / math.log(2):.3f}"],
    ]
    for name, size in (("gzip -9", gzip_9), ("xz -9e", xz)):
        rows.append([name, f"{8 * (size(content) - size(head)) / tail:.3f}"])
    rows.append(["the two bytes before", f"{WittenBell(head).bits_per_byte(windows):.3f}"])
    print(aligned(rows))


if __name__ == "__main__":
    main()
