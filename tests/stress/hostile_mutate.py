"""Making hostile files out of valid ones: anywhere at random, and where it hurts."""

from __future__ import annotations

import gzip
import pickle
from collections.abc import Callable
from random import Random

import numpy as np

from tests.stress import hostile_corpus as corpus
from tests.stress.hostile_corpus import Member

EXTREMES = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 2**31 - 1, 2**31, 2**32 - 1, 2**62, 2**64 - 1)


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
            value = rng.choice(EXTREMES) % 256**width
            found[at : at + width] = value.to_bytes(width, order)
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


class Bait:
    """Pickles as a call."""

    def __init__(self, function: Callable[..., object], *args: object) -> None:
        self.call = function, args

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return self.call


def baits(protocol: int) -> list[bytes]:
    """Pickles that run something, if they are obeyed."""
    import builtins
    import os
    import subprocess

    calls = (
        (os.system, "touch owned"),
        (builtins.exec, "open('owned', 'w')"),
        (builtins.eval, "__import__('os').system('touch owned')"),
        (subprocess.call, ["touch", "owned"]),
        (open, "owned", "w"),
        (os.remove, "test_batch"),
        (bytearray, 10**9),
        (np.zeros, 10**9),
    )
    return [pickle.dumps({"data": Bait(*call), "labels": [0, 1]}, protocol) for call in calls]


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


def pickled(rng: Random, valid: bytes) -> bytes:
    """Return a pickle: a valid one changed, a bait, or a program put together at random."""
    way = rng.randrange(10)
    if way == 0:
        return rng.choice(baits(rng.randrange(6)))
    if way == 1:
        return anywhere(rng, rng.choice(baits(rng.randrange(6))), valid)
    if way < 5:
        return b"".join(rng.choices(FRAGMENTS, k=rng.randrange(30))) + b"."
    if way < 7:
        at = rng.choice((rng.randrange(200), -rng.randrange(1, 200)))
        return valid[:at] + b"".join(rng.choices(FRAGMENTS, k=rng.choice((1, 3)))) + valid[at:]
    return anywhere(rng, valid, rng.choice(FRAGMENTS))


PATHS = (
    b"../owned", b"/tmp/owned", b"a/../../owned", b"..", b".", b"/", b"", b"./", b"x\n",
    b"\x1b[31m", b"cifar-10-batches-bin/../test_batch.bin", b"test_batch.bin", b"C:\\owned",
    b"\xff\xfe", b"x" * 100, b"./cifar-10-batches-bin/test_batch.bin",
    b"cifar-10-batches-bin//test_batch.bin",
)  # fmt: skip
CLAIMS = (
    b"", b"0", b"1", b"77777777777\0", b"777777777777", b"-1", b"0x10", b"9", b"10000000000\0",
    b" 6002 ", b"\x80" + b"\0" * 10 + b"\x01", b"\xff" * 12, b"\0" * 12, b"\x80" + b"\x7f" * 11,
)  # fmt: skip
PAX = (
    b"19 path=../owned123\n", b"20 size=99999999999\n", b"22 GNU.sparse.major=1\n", b"0 a=b\n",
    b"99999999 a=b\n", b"-1 a=b\n", b"30 mtime=1234567890.123456789\n", b"7 a=bb\n", b"",
    b"19 linkpath=/etc/x\n", b"garbage", b"9 a=b\n\n\n\n", b"\xd9\xa1 a=b\n",
)  # fmt: skip


def _change_member(rng: Random, members: list[Member]) -> None:
    """Spoil a list of members in one way."""
    at = rng.randrange(len(members))
    member = members[at]
    way = rng.randrange(12)
    if way == 0:
        member.name = rng.choice(PATHS)
    elif way == 1:
        member.kind, member.link = bytes([rng.choice(b"123457gxSLKAVMNX\0\xff")]), rng.choice(PATHS)
    elif way == 2:
        member.claim = rng.choice(CLAIMS)
    elif way == 3:
        member.claim = b"%011o\0" % max(0, len(member.content) + rng.choice((-513, -1, 1, 512)))
    elif way == 4:
        members.insert(rng.randrange(len(members) + 1), member)
    elif way == 5 and len(members) > 1:
        del members[at]
    elif way == 6:
        members.insert(
            at, Member(b"pax", rng.choice(PAX) * rng.choice((1, 5000)), rng.choice([b"x", b"g"]))
        )
    elif way == 7:
        members[at:at] = [Member(b"%d" % i) for i in range(rng.choice((2, 70)))]
    elif way == 8:
        members.insert(at, Member(b"bomb", bytes(rng.choice((10_000, 3_000_000)))))
    elif way == 9:
        member.checksum = rng.choice((b"0000000\0", b"garbage!", b" " * 8))
    elif way == 10:
        member.magic = rng.choice((b"ustar  \0", b"\0" * 8, b"ustar\x0000" + b"\0" * 80 + b"../up"))
    else:
        member.content = anywhere(rng, member.content)


def archived(rng: Random, members: list[Member]) -> bytes:
    """Return an archive of which members, tar stream or gzip stream are spoilt."""
    where = rng.randrange(6)
    for _ in range(rng.choice((1, 1, 2)) if where < 4 else 0):
        _change_member(rng, members)
    ends = (
        bytes(1024),
        bytes(1024),
        bytes(512),
        b"",
        b"\1" * 1024,
        bytes(10_240),
        bytes(1024) + b"x",
    )
    content = corpus.tar(members, rng.choice(ends))
    if where == 4:
        content = anywhere(rng, content)
    if where < 5:
        return corpus.zipped(content)
    found = corpus.zipped(content, rng.choice((0, 1, 9)))
    way = rng.randrange(7)
    if way == 0:
        return found + rng.choice((b"\0", b"trailing", found, corpus.zipped(b"")))
    if way == 1:
        return found[: rng.randrange(len(found))]
    if way == 2:
        return corpus.zipped(b"") * rng.choice((1, 200)) + found
    if way == 3:
        return content
    if way == 4:  # a header with a long file name
        return found[:3] + b"\x08" + found[4:10] + b"n" * 100_000 + b"\0" + found[10:]
    if way == 5:
        return gzip.compress(bytes(rng.choice((1, 20)) * 1_000_000))
    return anywhere(rng, found, content)
