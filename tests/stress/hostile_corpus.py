"""Small valid files of every kind that the readers accept, and the means to build invalid ones."""

from __future__ import annotations

import gzip
import io
import pickle
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from unittest import mock

import numpy as np

from igc_ref import TrainConfig, data, train
from igc_ref.data.published import PIXELS, PUBLISHED, SVHN

RECORDS = {"train": 3, "test": 2, "extra": 5}  # pictures in each file
NAMES = tuple(PUBLISHED)


def shrink() -> None:
    """Make the readers expect these few pictures instead of the published tens of thousands."""
    for name, published in PUBLISHED.items():
        PUBLISHED[name] = replace(published, records=RECORDS)
    for part, digits in SVHN.items():
        SVHN[part] = replace(digits, count=RECORDS[part])


@dataclass
class Member:
    """A member of a tar archive as it will be written, right or wrong."""

    name: bytes
    content: bytes = b""
    kind: bytes = b"0"
    claim: bytes | None = None  # the size field, if it is to be a lie
    link: bytes = b""
    checksum: bytes | None = None
    magic: bytes = b"ustar\x0000"

    def bytes(self) -> bytes:
        """Return header, contents and padding."""
        size = self.claim if self.claim is not None else b"%011o\0" % len(self.content)
        head = bytearray(
            self.name[:100].ljust(100, b"\0")
            + b"0000644\0" * 3
            + size[:12].ljust(12, b"\0")
            + b"%011o\0" % 0
            + b" " * 8
            + self.kind
            + self.link[:100].ljust(100, b"\0")
            + self.magic
        ).ljust(512, b"\0")
        head[148:156] = self.checksum if self.checksum is not None else b"%06o\0 " % sum(head)
        return bytes(head) + self.content + bytes(-len(self.content) % 512)


def tar(members: list[Member], end: bytes = bytes(1024)) -> bytes:
    """Return a tar archive of these members."""
    return b"".join(member.bytes() for member in members) + end


def zipped(content: bytes, level: int = 1) -> bytes:
    """Return the gzip file of these contents; the same bytes every time."""
    return gzip.compress(content, level, mtime=0)


def binary_file(rng: Random, name: str, split: str) -> bytes:
    """Return one file of the binary layout."""
    published, count = PUBLISHED[name], RECORDS[split]
    heads = [bytes(rng.randrange(n) for _, n in published.labels) for _ in range(count)]
    return b"".join(head + rng.randbytes(PIXELS) for head in heads)


def python_file(rng: Random, name: str, split: str, protocol: int) -> bytes:
    """Return one file of the python layout, as some version of Python writes it."""
    published, count = PUBLISHED[name], RECORDS[split]
    pixels = np.frombuffer(rng.randbytes(count * PIXELS), np.uint8).reshape(count, PIXELS)
    labels = [rng.randrange(published.labels[-1][1]) for _ in range(count)]
    batch = {b"batch_label": b"batch 1", published.label_key.encode(): labels, b"data": pixels}
    if rng.random() < 0.3:
        return pickle.dumps({key.decode(): value for key, value in batch.items()}, protocol)
    return pickle.dumps(batch, protocol)


def files(rng: Random, name: str, split: str, suffix: str) -> dict[str, bytes]:
    """Return all files of one split in one layout, and its class names."""
    published = PUBLISHED[name]
    names = list(published.classes)
    found = {}
    for file in published.files(split, suffix):
        protocol = rng.randrange(6)
        found[file] = (
            binary_file(rng, name, split) if suffix else python_file(rng, name, split, protocol)
        )
    if suffix:
        found[published.names[0]] = "\n".join(names).encode()
    else:
        found[published.names[1]] = pickle.dumps({published.names[2]: names}, 2)
    return found


def members(rng: Random, name: str, split: str, suffix: str) -> list[Member]:
    """Return the members of an archive that holds one split in one layout."""
    published = PUBLISHED[name]
    folder = (published.binary if suffix else published.python).encode() + b"/"
    contents = files(rng, name, split, suffix)
    found = [Member(folder + file.encode(), content) for file, content in contents.items()]
    rng.shuffle(found)
    return [Member(folder, kind=b"5"), *found, Member(folder + b"readme.html", b"<html>")]


@cache
def checkpoint() -> bytes:
    """Return the checkpoint of a real, tiny run."""
    sizes, draw = {"train": 4, "test": 2}, data.shapes
    settings = {"depth": 5, "L": 1, "M": 2, "epochs": 1, "batch_size": 2, "backend": "numpy"}
    with TemporaryDirectory() as folder:
        run = Path(folder) / "run"
        with mock.patch.object(data, "shapes", lambda split: draw(split, size=sizes[split])):
            train(TrainConfig(out=str(run), **settings))
        return max(run.rglob("*.npz")).read_bytes()


def npy(array: np.ndarray) -> bytes:
    """Return an array as numpy saves it."""
    file = io.BytesIO()
    np.save(file, array, allow_pickle=True)
    return file.getvalue()
