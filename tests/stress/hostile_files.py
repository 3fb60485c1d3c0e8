"""Small valid files of every kind that the readers accept, and hostile ones made out of them."""

from __future__ import annotations

import builtins
import gzip
import io
import json
import os
import pickle
import subprocess
import tarfile
import warnings
import zipfile
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from unittest import mock

import numpy as np

from igc_ref import TrainConfig, data, train
from igc_ref.data.published import PIXELS, PUBLISHED

RECORDS = {"train": 3, "test": 2}  # images in each file
EXTREMES = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 2**31 - 1, 2**31, 2**32 - 1, 2**62, 2**64 - 1)


def shrink() -> None:
    """Make the readers expect these few images instead of the published tens of thousands."""
    for name, published in PUBLISHED.items():
        PUBLISHED[name] = replace(published, records=RECORDS)


def anywhere(rng: Random, content: bytes, other: bytes = b"") -> bytes:
    """Change a file at one to four places, more often near its ends than in its middle."""
    found = bytearray(content)
    for _ in range(rng.choice((1, 1, 2, 4))):
        near = min(len(found), rng.choice((64, 400, 1 << 20)))
        at = rng.randrange(near + 1)
        at = rng.choice((at, len(found) - at))
        size = rng.choice((1, 1, 2, 4, 8, 30, 500))
        operation = rng.randrange(9)
        if operation == 0 and at < len(found):
            found[at] ^= 1 << rng.randrange(8)
        elif operation == 1:
            found[at : at + 1] = bytes([rng.choice((0, 1, 9, 10, 46, 127, 128, 255))])
        elif operation == 2:
            width, order = rng.choice((1, 2, 4, 8)), rng.choice(("little", "big"))
            found[at : at + width] = (rng.choice(EXTREMES) % 256**width).to_bytes(width, order)
        elif operation == 3:
            found[at:at] = rng.randbytes(size)
        elif operation == 4:
            del found[at : at + size]
        elif operation == 5:
            found[at:at] = found[at : at + size] * rng.choice((1, 2, 50))
        elif operation == 6:
            del found[at:]
        elif operation == 7:
            start = rng.randrange(len(other) + 1)
            found[at:at] = other[start : start + size]
        else:
            found += rng.choice((b"\0", b"\0" * 10_240, rng.randbytes(size), bytes(found)))
    return bytes(found)


# -- CIFAR: files, pickles, archives ---------------------------------------------------------------


def cifar_files(rng: Random, name: str, split: str, suffix: str) -> dict[str, bytes]:
    """Return all files of one split in one layout, and its class names."""
    published, count = PUBLISHED[name], RECORDS[split]
    found = {}
    for file in published.files(split, suffix):
        if suffix:
            heads = [bytes(rng.randrange(n) for _, n in published.labels) for _ in range(count)]
            found[file] = b"".join(head + rng.randbytes(PIXELS) for head in heads)
        else:
            found[file] = batch(rng, name, count)
    names = list(published.classes)
    text, pickled, key = published.names
    if suffix:
        return found | {text: "\n".join(names).encode()}
    return found | {pickled: pickle.dumps({key: names}, 2)}


def batch(rng: Random, name: str, count: int) -> bytes:
    """Return one file of the python layout, as some version of Python writes it."""
    published = PUBLISHED[name]
    pixels = np.frombuffer(rng.randbytes(count * PIXELS), np.uint8).reshape(count, PIXELS)
    labels = [rng.randrange(published.labels[-1][1]) for _ in range(count)]
    found = {b"batch_label": b"batch 1", published.label_key.encode(): labels, b"data": pixels}
    if rng.random() < 0.3:
        return pickle.dumps({key.decode(): value for key, value in found.items()}, rng.randrange(6))
    return pickle.dumps(found, rng.randrange(6))


class Bait:
    """Pickles as a call."""

    def __init__(self, function: Callable[..., object], *args: object) -> None:
        self.call = function, args

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return self.call


def bait(rng: Random) -> bytes:
    """Return a pickle that runs something, if it is obeyed."""
    call = rng.choice((
        (os.system, "touch owned"),
        (builtins.exec, "open('owned', 'w')"),
        (builtins.eval, "__import__('os').system('touch owned')"),
        (subprocess.call, ["touch", "owned"]),
        (open, "owned", "w"),
        (os.remove, "test_batch"),
        (bytearray, 10**9),
        (np.zeros, 10**9),
    ))  # fmt: skip
    return pickle.dumps({"data": Bait(*call), "labels": [0, 1]}, rng.randrange(6))


FRAGMENTS = (
    *b"( ) } ] . N R b a e s u t d l o i 2 0 1 \x85 \x86 \x87 \x88 \x93 \x94 \x81 \x92".split(b" "),
    *(b"h\0", b"q\0", b"j\xff\xff\xff\x7f", b"r\xff\xff\xff\x7f", b"K\0", b"K\x01", b"U\x01a"),
    *(b"Vlatin1\n", b"S'\\z'\n", b"cos\nsystem\n", b"cbuiltins\neval\n", b"c_codecs\nencode\n"),
    *(b"cnumpy\nndarray\n", b"cnumpy\ndtype\n", b"cnumpy.core.multiarray\n_reconstruct\n"),
    *(b"cnumpy.core.numeric\n_frombuffer\n", b"X\x05\0\0\0touch", b"\x8c\x02os\x8c\x06system"),
    *(b"B\xff\xff\xff\xff", b"\x8e" + b"\xff" * 8, b"\x96" + b"\xff" * 7 + b"\x7f"),
    *(b"J\xff\xff\xff\xff", b"\x8a\xff" + b"\xff" * 255, b"I" + b"9" * 5000 + b"\n"),
    *(b"\x95\x03" + b"\0" * 7, b"\x82\x01", b"Pid\n", b"p" + b"9" * 40 + b"\n"),
    *(b"]" * 3000, b"(" * 3000, b"\x85" * 3000, b"N" * 3000),
)  # fmt: skip


def spoilt_pickle(rng: Random, valid: bytes) -> bytes:
    """Return a valid pickle changed, a bait, or a program put together at random."""
    way = rng.randrange(10)
    if way < 2:
        return anywhere(rng, bait(rng), valid) if way else bait(rng)
    if way < 5:
        return b"".join(rng.choices(FRAGMENTS, k=rng.randrange(30))) + b"."
    if way < 7:
        at = rng.choice((rng.randrange(200), -rng.randrange(1, 200)))
        return valid[:at] + b"".join(rng.choices(FRAGMENTS, k=rng.choice((1, 3)))) + valid[at:]
    return anywhere(rng, valid, rng.choice(FRAGMENTS))


def member(
    name: bytes, content: bytes = b"", kind: bytes = b"0", link: bytes = b"", claim: bytes = b""
) -> bytes:
    """Return a member of a tar archive; `claim` is its field of size, if that is to be a lie."""
    head = bytearray(tarfile.TarInfo("x").tobuf(tarfile.USTAR_FORMAT))
    head[:100] = name[:100].ljust(100, b"\0")
    head[124:136] = claim or b"%011o\0" % len(content)
    head[148:257] = b" " * 8 + kind + link[:100].ljust(100, b"\0")
    head[148:156] = b"%06o\0 " % sum(head)
    return bytes(head) + content + bytes(-len(content) % 512)


PATHS = (
    b"../owned", b"/tmp/owned", b"a/../../owned", b"..", b"/", b"", b"./", b"x\n", b"\x1b[31m",
    b"cifar-10-batches-bin/../test_batch.bin", b"test_batch.bin", b"\xff\xfe", b"x" * 100,
    b"./cifar-10-batches-bin/test_batch.bin", b"cifar-10-batches-bin//test_batch.bin",
)  # fmt: skip
CLAIMS = (
    b"%011o\0" % 6000, b"77777777777\0", b"777777777777", b"-1".ljust(12), b"0x10".ljust(12),
    b" 6002 ".ljust(12), b"\x80" + b"\0" * 10 + b"\x01", b"\xff" * 12, b"\x80" + b"\x7f" * 11,
)  # fmt: skip
PAX = (
    b"19 path=../owned123\n", b"20 size=99999999999\n", b"22 GNU.sparse.major=1\n", b"0 a=b\n",
    b"99999999 a=b\n", b"-1 a=b\n", b"30 mtime=1234567890.123456789\n", b"7 a=bb\n", b"",
    b"19 linkpath=/etc/x\n", b"garbage", b"9 a=b\n\n\n\n", b"\xd9\xa1 a=b\n",
)  # fmt: skip


def archive(rng: Random, name: str, split: str, suffix: str, spoil: bool) -> bytes:
    """Return an archive of one split, of which members, tar or gzip stream may be spoilt."""
    published = PUBLISHED[name]
    folder = (published.binary if suffix else published.python).encode() + b"/"
    files = [(folder + k.encode(), v) for k, v in cifar_files(rng, name, split, suffix).items()]
    rng.shuffle(files)
    members = [member(folder, kind=b"5"), *(member(*file) for file in files)]
    members.append(member(folder + b"readme.html", b"<html>"))
    where = rng.randrange(6) if spoil else -1
    for _ in range(rng.choice((1, 1, 2)) if 0 <= where < 4 else 0):
        _spoil_member(rng, members, *rng.choice(files))
    ends = (bytes(1024), bytes(1024), bytes(512), b"", b"\1" * 1024, bytes(1024) + b"x")
    tar = b"".join(members) + (rng.choice(ends) if spoil else bytes(1024))
    tar = anywhere(rng, tar) if where == 4 else tar
    found = gzip.compress(tar, rng.choice((0, 1, 9)), mtime=0)
    if where < 5:
        return found
    return rng.choice((
        lambda: found + rng.choice((b"\0", b"trailing", found, gzip.compress(b""))),
        lambda: found[: rng.randrange(len(found))],
        lambda: gzip.compress(b"") * rng.choice((1, 200)) + found,
        lambda: tar,
        lambda: found[:3] + b"\x08" + found[4:10] + b"n" * 100_000 + b"\0" + found[10:],
        lambda: gzip.compress(bytes(rng.choice((1, 20)) * 1_000_000)),
        lambda: anywhere(rng, found, tar),
    ))()  # fmt: skip


def _spoil_member(rng: Random, members: list[bytes], name: bytes, content: bytes) -> None:
    """Replace, repeat, remove or add members."""
    at = rng.randrange(len(members))
    kinds, old = b"123457gxSLKAVMNX\0\xff", members[at]
    members[at : at + 1] = rng.choice((
        lambda: [member(rng.choice(PATHS), content)],
        lambda: [member(name, content, bytes([rng.choice(kinds)]), rng.choice(PATHS))],
        lambda: [member(name, content, claim=rng.choice(CLAIMS))],
        lambda: [rng.choice(members), old],
        lambda: [],
        lambda: [member(b"pax", rng.choice(PAX) * rng.choice((1, 5000)),
                        rng.choice((b"x", b"g", b"L", b"K"))), old],
        lambda: [*(member(b"%d" % i) for i in range(rng.choice((2, 70)))), old],
        lambda: [member(b"bomb", bytes(rng.choice((10_000, 3_000_000)))), old],
        lambda: [member(name, anywhere(rng, content))],
    ))()  # fmt: skip


# -- checkpoints -----------------------------------------------------------------------------------


@cache
def checkpoint() -> bytes:
    """Return the checkpoint of a real, tiny run."""
    sizes, draw = {"train": 4, "test": 2}, data.shapes
    settings = {"depth": 5, "L": 1, "M": 2, "epochs": 1, "batch_size": 2, "backend": "numpy"}
    with TemporaryDirectory() as folder:
        run = Path(folder) / "run"
        with mock.patch.object(data, "shapes", lambda split, _: draw(split, size=sizes[split])):
            train(TrainConfig(out=str(run), **settings))
        return max(run.rglob("*.npz")).read_bytes()


def npy(array: np.ndarray) -> bytes:
    """Return an array as numpy saves it."""
    file = io.BytesIO()
    np.save(file, array, allow_pickle=True)
    return file.getvalue()


SHAPES = (
    "(1000000000,)", "(1000000000000000000,)", "(-1,)", "(True,)", "(1, 2", "(2L,)", "[2]", "()",
    "(99999999, 99999999)", "(0, 1000000000)", "(1,) * 10", "None", "('a',)", "(1.0,)",
    "(1,), 'x': 1",
)  # fmt: skip
DESCRS = (
    "'|O'", "'<U250000000'", "'|V1000000000'", "'<f8'", "'>f4'", "'<M8[ns]'", "[('a', '<f8')]",
    "('<f8', (1000000,))", "'|S0'", "'<c16'", "None", "''", "'os.system'", "[('a', [('b', 'O')])]",
    "'?'", "'\\d'",
)  # fmt: skip
HEADS = (b"(" * 9000, b"{" * 118, b"[" * 3000, b"1" * 9000, b"-" * 9000, b"'\\d'", b"\xff")


def _spoilt_array(rng: Random, content: bytes) -> bytes:
    """Spoil an array as numpy saves it."""
    head, tail = content[:128], content[128:]
    versions = (b"\x01\0", b"\x02\0", b"\x03\0", b"\x04\0", b"\xff\xff")
    bad = Bait(exec, "open('owned', 'w')")

    def field(start: bytes, end: bytes, values: tuple[str, ...]) -> bytes:
        value = head[head.index(start) + len(start) : head.index(end)]
        return head.replace(value, rng.choice(values).encode()) + tail

    def another_head(text: bytes) -> bytes:
        return b"\x93NUMPY\x01\0" + len(text).to_bytes(2, "little") + text + tail

    return rng.choice((
        lambda: field(b"'shape': ", b", }", SHAPES),
        lambda: field(b"'descr': ", b", 'fortran", DESCRS),
        lambda: head.replace(b"False", rng.choice((b"True", b"None", b"2", b"("))) + tail,
        lambda: another_head(rng.choice(HEADS)),
        lambda: head[:6] + rng.choice(versions) + rng.choice((b"", b"\0\0")) + head[8:] + tail,
        lambda: rng.choice((npy(np.array([bad])), pickle.dumps(bad), b"", b"PK\3\4")),
        lambda: head[:8] + rng.choice(EXTREMES).to_bytes(8, "little")[:2] + head[10:] + tail,
        lambda: anywhere(rng, content),
    ))()  # fmt: skip


VALUES = (
    None, True, -1, 0, 10**9, 10**400, 1e308, "", "x" * 300, [], {}, [[]], {"a": 1}, "../owned",
)  # fmt: skip
TEXTS = ("[" * 100_000, '{"a":' * 5000, "NaN", "9" * 5000, '"\\ud800"', "", "null")


def _spoilt_meta(rng: Random, content: bytes) -> bytes:
    """Spoil the JSON text that the member ``meta`` of a checkpoint holds."""
    text = str(np.load(io.BytesIO(content), allow_pickle=False).item())
    meta = json.loads(text)
    way = rng.randrange(5)
    if way == 0:
        text = anywhere(rng, text.encode()).decode("latin-1")
    elif way == 1:
        text = rng.choice(TEXTS)
    else:
        target = rng.choice([meta, *[v for v in meta.values() if isinstance(v, dict) and v]])
        key = rng.choice(list(target))
        if rng.random() < 0.2:
            del target[key]
        else:
            target[rng.choice((key, key, key, "unknown"))] = rng.choice(VALUES)
        text = json.dumps(meta)
    return npy(np.array(text))


def overlapping(found: bytes, count: int) -> bytes:
    """List the members of a zip file `count` times in its directory, all at the same place."""
    start = int.from_bytes(found[-6:-2], "little")
    directory = found[start:-22]
    entries = int.from_bytes(found[-12:-10], "little") * count
    size = (len(directory) * count).to_bytes(4, "little")
    end = found[-22:-14] + (entries % 65_536).to_bytes(2, "little") * 2 + size + found[-6:]
    return found[:start] + directory * count + end


def spoilt_checkpoint(rng: Random, valid: bytes) -> bytes:
    """Return a checkpoint of which an array, the JSON text, the members or the zip are spoilt."""
    where = rng.randrange(8)
    if where < 2:
        return overlapping(valid, rng.choice((2, 200))) if where else anywhere(rng, valid)
    with zipfile.ZipFile(io.BytesIO(valid)) as opened:
        members = [(name, opened.read(name)) for name in opened.namelist()]
    at = rng.randrange(len(members))
    name, content = members[at]
    method = zipfile.ZIP_STORED
    if where < 4:
        members[at] = name, _spoilt_array(rng, content)
    elif where < 6:
        at = next(i for i, (name, _) in enumerate(members) if name == "meta.npy")
        members[at] = "meta.npy", _spoilt_meta(rng, members[at][1])
    elif rng.random() < 0.3:
        method = rng.choice((zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA))
        members.append(("model/bomb.npy", npy(np.zeros(300_000))))
    else:
        new = rng.choice(("../owned.npy", "/owned", "x", "", "meta.npy", name, "é\n", "a" * 999))
        members[at:at] = [(new, rng.choice((content, b"", b"x", npy(np.zeros(3)))))]
        if rng.random() < 0.5:
            del members[rng.randrange(len(members))]
    file = io.BytesIO()
    with warnings.catch_warnings(), zipfile.ZipFile(file, "w", method) as written:
        warnings.simplefilter("ignore")  # of duplicate names
        for name, content in members:
            written.writestr(zipfile.ZipInfo(name), content, method)
    return anywhere(rng, file.getvalue()) if rng.random() < 0.2 else file.getvalue()
