"""Hostile files in short: some 1,500 mutated ones, and guards that notice when a reader misbehaves.

The long run is ``python -m tests.stress.hostile``.
"""

import io
import tracemalloc
import zipfile

import numpy as np
import pytest

from igc_ref.training import checkpoint
from igc_ref.training.npz import read_arrays
from tests.stress import hostile, hostile_checkpoints, hostile_corpus
from tests.stress.hostile_worker import PLANTS

KINDS = hostile.KINDS
if not hasattr(checkpoint, "read_arrays"):  # checkpoints are read by numpy.load
    KINDS = tuple(kind for kind in KINDS if kind != "checkpoint")


def test_mutated_files_are_accepted_or_refused_and_nothing_else():
    tallies = hostile.run(1500, seed=0, kinds=KINDS)
    assert not [problem for tally in tallies for problem in tally.problems]
    assert sum(tally.cases for tally in tallies) == 1500
    for tally in tallies:
        assert tally.accepted > 5  # mutants that only differ in pixels, or nowhere that matters
        assert tally.refused > 50
    print(hostile.table(tallies))


NOTICED = {
    "exec": "exec ",
    "system": "os.system ",
    "swallowed": "exec ",
    "write": "open ",
    "read": "open ",
    "memory": "took 16,777,",
    "addresses": "asked for all memory",
    "slow": "took more than 5 s",
    "exception": "uncaught ZeroDivisionError",
    "crash": "the process died: Fatal Python error: Aborted",
}


@pytest.mark.parametrize("plant", PLANTS)
def test_a_reader_that_misbehaves_is_noticed(plant):
    (tally,) = hostile.run(25, seed=0, kinds=("python pickle",), plant=plant)
    (problem,) = [p for p in tally.problems if NOTICED[plant] in p]
    assert "case 19: " in problem
    assert tally.cases == 25
    assert tally.accepted + tally.refused == 24


ARRAYS = {
    "weights": np.arange(24, dtype="f4").reshape(2, 3, 4),
    "transposed": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
    "scalar": np.array(3),
    "empty": np.zeros((0, 5)),
    "flags": np.array([True, False]),
    "text": np.array('{"a": "é"}'),
    "texts": np.array(["a", "bcd"]),
    "complex": np.array([1j, 2], "c8"),
    "half": np.ones(3, "f2"),
    "bytes": np.arange(256, dtype="u1"),
}


def saved(path, **arrays):
    np.savez(path, allow_pickle=True, **arrays)
    return path


def test_arrays_come_back_as_numpy_saved_them(tmp_path):
    found = read_arrays(saved(tmp_path / "a.npz", **ARRAYS))
    assert list(found) == list(ARRAYS)
    for name, array in ARRAYS.items():
        np.testing.assert_array_equal(found[name], array)
        assert (found[name].dtype, found[name].shape) == (array.dtype, array.shape)
        assert found[name].flags.writeable
        assert found[name].flags.aligned
    assert read_arrays(saved(tmp_path / "none.npz")) == {}


def npz(path, members, method=zipfile.ZIP_STORED):
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, content in members:
            archive.writestr(zipfile.ZipInfo(name), content, method)
    return path


def claiming(shape, descr="'<f8'", order="False", size=8):
    head = f"{{'descr': {descr}, 'fortran_order': {order}, 'shape': {shape}, }}".ljust(117) + "\n"
    return b"\x93NUMPY\1\0" + len(head).to_bytes(2, "little") + head.encode() + bytes(size)


ONE = claiming("(1,)")
REFUSED = {
    "a billion rows": ([("a.npy", claiming("(1000000000,)"))], "claims 8,000,000,000 bytes"),
    "more than there is": ([("a.npy", claiming("(99999999999, 99999999999)"))], "impossible"),
    "no billions": ([("a.npy", claiming("(0, 9999999999, 999999999)", size=0))], "impossible"),
    "fewer": ([("a.npy", claiming("()", size=9))], "claims 8 bytes and has 9"),
    "objects": ([("a.npy", claiming("(1,)", "'|O'"))], "not an array of numbers or text"),
    "records": ([("a.npy", claiming("(1,)", "[('a', '<f8')]"))], "not an array of numbers"),
    "code": ([("a.npy", claiming("(1,)", "'<f8' if 1 else 0"))], "not an array of numbers"),
    "Python 2": ([("a.npy", claiming("(1L,)"))], "not an array of numbers"),
    "big endian": ([("a.npy", claiming("(1,)", "'>f8'"))], "not an array of numbers"),
    "long text": ([("a.npy", claiming("()", "'<U99999999'"))], "claims 399,999,996 bytes"),
    "longer text": ([("a.npy", claiming("()", "'<U999999999'"))], "not an array of numbers"),
    "a newer version": ([("a.npy", ONE[:6] + b"\3\0\0\0" + ONE[8:])], "is no array"),
    "a header longer than the file": ([("a.npy", ONE[:8] + b"\xff\xff" + ONE[10:])], "is no array"),
    "nothing": ([("a.npy", b"")], "is no array"),
    "a pickle": ([("a.npy", b"cos\nsystem\n(S'touch owned'\ntR.")], "is no array"),
    "another file": ([("a.txt", b"x")], "'a.txt' is no array"),
    "a control character": ([("\x1b.npy", ONE)], r"member '.x1b.npy' is no array"),
}  # fmt: skip


@pytest.mark.parametrize(("members", "match"), REFUSED.values(), ids=REFUSED)
def test_what_numpy_does_not_save_is_refused_in_little_memory(tmp_path, members, match):
    path = npz(tmp_path / "a.npz", members)
    tracemalloc.start()
    with pytest.raises(ValueError, match=match) as caught:
        read_arrays(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4_000_000
    assert str(caught.value).isprintable()


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_zips_that_are_not_as_numpy_writes_them_are_refused(tmp_path):
    path = tmp_path / "a.npz"

    def fails(match):
        with pytest.raises(ValueError, match=match):
            read_arrays(path)

    npz(path, [("a.npy", ONE), ("a.npy", ONE)])
    fails("'a.npy' is there twice")
    npz(path, [("a.npy", ONE + bytes(10**6))], zipfile.ZIP_DEFLATED)
    fails("compressed members")
    good = saved(path, **ARRAYS).read_bytes()
    path.write_bytes(hostile_checkpoints._overlapping(good, 100))
    fails("zip directory|twice")
    for size in (0, 1, 21, 22, 500, len(good) // 2, len(good) - 1):
        path.write_bytes(good[:size])
        fails("cut off|directory")
    for before, after in ((b"", b"x"), (b"x", b""), (good, b"")):
        path.write_bytes(before + good + after)
        fails("cut off|directory|overlap|room")
    start = good.index(b"PK\1\2")
    gap = bytearray(good[:start] + b"gap" + good[start:])
    gap[-6:-2] = (start + 3).to_bytes(4, "little")
    path.write_bytes(gap)
    fails("bytes that belong to no member")
    spoilt = bytearray(good)
    spoilt[good.index(np.arange(6.0).tobytes()[8:16])] ^= 1
    path.write_bytes(spoilt)
    fails("checksum of 'transposed.npy' is wrong|checksum of")


def test_every_byte_of_a_file_of_arrays_counts_or_does_no_harm(tmp_path):
    path = saved(tmp_path / "a.npz", a=np.arange(3.0), b=np.array("text"))
    good = path.read_bytes()
    expected = read_arrays(path)
    refused = 0
    for at in range(len(good)):
        for flip in (1, 128):
            path.write_bytes(good[:at] + bytes([good[at] ^ flip]) + good[at + 1 :])
            try:
                found = read_arrays(path)
            except ValueError:
                refused += 1
            else:
                for name, array in found.items():
                    np.testing.assert_array_equal(array, expected[name])
    assert refused > 1.5 * len(good)  # not: dates, versions and attributes in the zip headers


def test_the_corpus_holds_what_the_readers_accept():
    found = np.load(io.BytesIO(hostile_corpus.checkpoint()), allow_pickle=False)
    assert "meta" in found.files
    assert any(name.startswith("model/") for name in found.files)
