"""MATLAB files put together by hand, valid as those of SVHN are, and hostile in every field."""

from __future__ import annotations

import io
import struct
import zlib
from random import Random

import numpy as np
from scipy.io import savemat

from tests.stress.hostile_mutate import EXTREMES, anywhere

BOMB = 20_000_000  # bytes of zeros, which zlib packs into 20,000


def element(kind: int, contents: bytes) -> bytes:
    """Return an element of a MATLAB file."""
    return struct.pack("<II", kind, len(contents)) + contents + bytes(-len(contents) % 8)


def array(
    name: str,
    values: np.ndarray,
    shape: tuple[int, ...] | None = None,
    of_class: int = 9,
    flags: int = 0,
    kind: int = 2,
    count: int | None = None,
) -> bytes:
    """Return an array of bytes as MATLAB writes it, or with a lie in one of its fields.

    Class 9 is uint8, 6 double; flag 8 is complex; kind 2 is bytes; `count` is how many are claimed.
    """
    content, shape = values.tobytes("F"), shape or values.shape
    head = element(6, struct.pack("<BBHI", of_class, flags, 0, 0))
    head += element(5, struct.pack(f"<{len(shape)}i", *shape))
    head += struct.pack("<HH4s", 1, len(name), name.encode())  # small, within its tag
    tag = struct.pack("<II", kind, len(content) if count is None else count)
    return element(14, head + tag + content + bytes(-len(content) % 8))


def packed(content: bytes, after: int = 0) -> bytes:
    """Return an element packed by zlib, with so many zeros after it in the same stream."""
    machine = zlib.compressobj()
    stream = machine.compress(content)
    for size in (min(1 << 20, after - start) for start in range(0, after, 1 << 20)):
        stream += machine.compress(bytes(size))
    stream += machine.flush()
    return struct.pack("<II", 15, len(stream)) + stream


def file_of(
    *elements: bytes,
    head: bytes = b"MATLAB 5.0 MAT-file, Platform: GLNXA64",
    version: bytes = b"\0\1IM",
) -> bytes:
    """Return a MATLAB file of these elements."""
    return head.ljust(124) + version + b"".join(elements)


def digits(rng: Random, count: int) -> dict[str, np.ndarray]:
    """Return pictures X and labels y as SVHN has them."""
    pixels = np.frombuffer(rng.randbytes(count * 3072), np.uint8)
    labels = [[rng.randrange(1, 11)] for _ in range(count)]
    return {"X": pixels.reshape((32, 32, 3, count)), "y": np.array(labels, np.uint8)}


def valid(rng: Random, count: int) -> bytes:
    """Return a file as MATLAB or SciPy writes it."""
    variables = digits(rng, count)
    if rng.random() < 0.5:
        file = io.BytesIO()
        savemat(file, variables, do_compression=rng.random() < 0.5)
        return file.getvalue()
    shut = rng.choice((packed, bytes))
    X = array("X", variables["X"])
    return file_of(shut(X), shut(array("y", variables["y"], of_class=rng.choice((6, 9)))))


def _changed_array(rng: Random, name: str, values: np.ndarray) -> bytes:
    """Return an array with a lie in one of its fields."""
    way = rng.randrange(9)
    extreme = rng.choice(EXTREMES) % 2**32
    if way == 0:
        return array(name, values, of_class=rng.randrange(20))
    if way == 1:
        return array(name, values, flags=rng.randrange(256))
    if way == 2:
        return array(name, values, kind=rng.randrange(20))
    if way == 3:
        return array(name, values, count=rng.choice((extreme, values.size - 1, values.size + 1)))
    if way == 4:
        sizes = list(values.shape)
        sizes[rng.randrange(len(sizes))] = rng.choice((-1, 0, 1, 2**31 - 1))
        return array(name, values, tuple(sizes))
    if way == 5:
        return array(
            name, values, rng.choice(((1,) * 40, (1,) * 500, (values.size,), (2**31 - 1,) * 2))
        )
    if way == 6:
        return array(rng.choice(("", "Z", "\x1b[", "__", "os")), values)
    if way == 7:
        return array(name, np.zeros(rng.choice((0, 100_000)), np.uint8), values.shape)
    return anywhere(rng, array(name, values))


def spoilt(rng: Random, count: int) -> bytes:
    """Return a file of which arrays, elements, streams or the whole are spoilt."""
    variables = digits(rng, count)
    way = rng.randrange(8)
    if way < 2:
        return anywhere(rng, valid(rng, count))
    if way == 2:  # contents of another kind, as SciPy writes them
        other = rng.choice(("touch owned", {"a": 1}, 1j, [[1.5]], np.array(["a", [1]], object)))
        file = io.BytesIO()
        savemat(file, variables | {rng.choice("Xyz"): other}, do_compression=rng.random() < 0.5)
        return file.getvalue()
    elements = [array(name, values) for name, values in variables.items()]
    at = rng.randrange(2)
    if way < 6:
        name = "Xy"[at]
        elements[at] = _changed_array(rng, name, variables[name])
    elif way == 6:
        elements.insert(rng.randrange(3), rng.choice((elements[at], element(2, b"x"), b"\0" * 9)))
    if rng.random() < 0.6:
        after = rng.choice((0, 0, 0, 0, 0, 0, 0, 1, 8, BOMB))
        elements = [packed(content, after if i == at else 0) for i, content in enumerate(elements)]
        if rng.random() < 0.3:
            elements[at] = rng.choice(
                (packed(elements[at]), element(15, elements[at]), anywhere(rng, elements[at]))
            )
    versions = (b"\0\1IM",) * 8 + (b"\1\0MI", b"\0\2IM", b"\0\0\0\0", b"\0\1MI")
    heads = (b"MATLAB 5.0 MAT-file",) * 8 + (b"\0" * 124, b"MAT\0", b"\x89HDF\r\n\x1a\n")
    return file_of(*elements, head=rng.choice(heads), version=rng.choice(versions))
