"""Making hostile checkpoints out of a valid one."""

from __future__ import annotations

import io
import json
import pickle
import warnings
import zipfile
from random import Random

import numpy as np

from tests.stress import hostile_corpus as corpus
from tests.stress.hostile_mutate import EXTREMES, Bait, anywhere

HEADERS = (
    "(1000000000,)", "(1000000000000000000,)", "(-1,)", "(True,)", "(1, 2", "(2L,)", "[2]", "()",
    "(99999999, 99999999)", "(0, 1000000000)", "(1,) * 10", "None", "('a',)", "(1.0,)",
    "(1,), 'x': 1",
)  # fmt: skip
DESCRS = (
    "'|O'", "'<U250000000'", "'|V1000000000'", "'<f8'", "'>f4'", "'<M8[ns]'", "[('a', '<f8')]",
    "('<f8', (1000000,))", "'|S0'", "'<c16'", "None", "''", "'os.system'", "[('a', [('b', 'O')])]",
    "'?'", "'\\d'",
)  # fmt: skip


def _change_array(rng: Random, content: bytes) -> bytes:
    """Spoil an array as numpy saves it."""
    head, tail = content[:128], content[128:]
    way = rng.randrange(8)
    if way == 0:
        shape = head[head.index(b"'shape': ") + 9 : head.index(b", }")]
        head = head.replace(shape, rng.choice(HEADERS).encode())
    elif way == 1:
        descr = head[head.index(b"'descr': ") + 9 : head.index(b", 'fortran")]
        head = head.replace(descr, rng.choice(DESCRS).encode())
    elif way == 2:
        head = head.replace(b"False", rng.choice((b"True", b"None", b"2", b"(")))
    elif way == 3:
        text = rng.choice(
            (b"(" * 9000, b"{" * 118, b"[" * 3000, b"1" * 9000, b"-" * 9000, b"'\\d'", b"\xff")
        )
        return b"\x93NUMPY\x01\0" + len(text).to_bytes(2, "little") + text + tail
    elif way == 4:
        sort = rng.choice((b"\x01\0", b"\x02\0", b"\x03\0", b"\x04\0", b"\xff\xff"))
        head = head[:6] + sort + rng.choice((b"", b"\0\0")) + head[8:]
    elif way == 5:
        bait = Bait(exec, "open('owned', 'w')")
        return rng.choice((corpus.npy(np.array([bait])), pickle.dumps(bait), b"", b"PK\3\4"))
    elif way == 6:
        head = head[:8] + rng.choice(EXTREMES).to_bytes(8, "little")[:2] + head[10:]
    else:
        return anywhere(rng, content)
    return head + tail


VALUES = (
    None,
    True,
    -1,
    0,
    10**9,
    10**400,
    1e308,
    "",
    "x" * 300,
    [],
    {},
    [[]],
    {"a": 1},
    "../owned",
    "meta",
)


def _change_meta(rng: Random, content: bytes) -> bytes:
    """Spoil the JSON text that the member ``meta`` of a checkpoint holds."""
    array = np.load(io.BytesIO(content), allow_pickle=False)
    text = str(array.item())
    meta = json.loads(text)
    way = rng.randrange(5)
    if way == 0:
        text = anywhere(rng, text.encode()).decode("latin-1")
    elif way == 1:
        text = rng.choice(
            ("[" * 100_000, '{"a":' * 5000, "NaN", "9" * 5000, '"\\ud800"', "", "null")
        )
    else:
        target = rng.choice([meta, *[v for v in meta.values() if isinstance(v, dict) and v]])
        key = rng.choice(list(target))
        if rng.random() < 0.2:
            del target[key]
        else:
            target[rng.choice((key, key, key, "unknown"))] = rng.choice(VALUES)
        text = json.dumps(meta)
    return corpus.npy(np.array(text))


def zip_members(content: bytes) -> dict[str, bytes]:
    """Return the members of a zip file."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def _overlapping(found: bytes, count: int) -> bytes:
    """List the members of a zip file many times over in its directory, all at the same place."""
    start = int.from_bytes(found[-6:-2], "little")
    directory = found[start:-22]
    entries = int.from_bytes(found[-12:-10], "little") * count
    size = (len(directory) * count).to_bytes(4, "little")
    end = found[-22:-14] + (entries % 65_536).to_bytes(2, "little") * 2 + size + found[-6:]
    return found[:start] + directory * count + end


def checkpointed(rng: Random, valid: bytes) -> bytes:
    """Return a checkpoint of which an array, the JSON text, the members or the zip are spoilt."""
    where = rng.randrange(8)
    if where == 0:
        return anywhere(rng, valid)
    if where == 1:
        return _overlapping(valid, rng.choice((2, 200)))
    members = list(zip_members(valid).items())
    at = rng.randrange(len(members))
    name, content = members[at]
    method = zipfile.ZIP_STORED
    if where < 4:
        members[at] = name, _change_array(rng, content)
    elif where < 6:
        at = next(i for i, (name, _) in enumerate(members) if name == "meta.npy")
        members[at] = "meta.npy", _change_meta(rng, members[at][1])
    elif rng.random() < 0.3:
        method = rng.choice((zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA))
        members.append(("model/bomb.npy", corpus.npy(np.zeros(3_000_000))))
    else:
        new = rng.choice(
            ("../owned.npy", "/owned", "x", "", "meta", "meta.npy", name, "\u00e9\n", "a" * 999)
        )
        members[at:at] = [(new, rng.choice((content, b"", b"x", corpus.npy(np.zeros(3)))))]
        if rng.random() < 0.5:
            del members[rng.randrange(len(members))]
    file = io.BytesIO()
    with warnings.catch_warnings(), zipfile.ZipFile(file, "w", method) as archive:
        warnings.simplefilter("ignore")  # of duplicate names
        for name, content in members:
            archive.writestr(zipfile.ZipInfo(name), content, method)
    return anywhere(rng, file.getvalue()) if rng.random() < 0.2 else file.getvalue()
