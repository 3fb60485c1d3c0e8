"""Arrays of an ``.npz``: NumPy's come back, anything else is refused in little memory."""

import tracemalloc
import zipfile

import numpy as np
import pytest

from igc_ref.data.npz import read_arrays
from tests.stress.hostile_files import overlapping

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
    assert read_arrays(saved(tmp_path / "none.npz")) == {}


def claiming(shape, descr="'<f8'", order="False", size=8):
    head = f"{{'descr': {descr}, 'fortran_order': {order}, 'shape': {shape}, }}".ljust(117) + "\n"
    return b"\x93NUMPY\1\0" + len(head).to_bytes(2, "little") + head.encode() + bytes(size)


ONE = claiming("(1,)")
REFUSED = {
    "a billion rows": (claiming("(1000000000,)"), "claims 8,000,000,000 bytes and has 8"),
    "more than there is": (claiming("(99999999999, 99999999999)"), "claims .* has 8"),
    "no billions": (claiming("(0, 9999999999, 999999999)", size=0), "too (big|large)|maximum"),
    "negative sizes": (claiming("(-1, -1)"), "claims 8 bytes and has 8"),
    "fewer": (claiming("()", size=9), "claims 8 bytes and has 9"),
    "objects": (claiming("(1,)", "'|O'"), "not an array of numbers or text"),
    "records": (claiming("(1,)", "[('a', '<f8')]"), "not an array of numbers"),
    "code": (claiming("(1,)", "'<f8' if 1 else 0"), "ValueError"),
    "Python 2": (claiming("(1L,)"), "Python 2"),
    "a long header": (ONE[:8] + b"\xff\xff" + b"(" * 65_535, "large|long"),
    "big endian": (claiming("(1,)", "'>f8'"), "not an array of numbers"),
    "long text": (claiming("()", "'<U99999999'"), "claims 399,999,996 bytes"),
    "a newer version": (ONE[:6] + b"\3\0\0\0" + ONE[8:], "another version"),
    "a header longer than the file": (ONE[:8] + b"\xff\xff" + ONE[10:], "EOF|expected"),
    "nothing": (b"", "EOF|expected"),
    "a pickle": (b"cos\nsystem\n(S'touch owned'\ntR.", "magic"),
}


def npz(path, *members, method=zipfile.ZIP_STORED):
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, content in members:
            archive.writestr(zipfile.ZipInfo(name), content, method)
    return path


@pytest.mark.filterwarnings("ignore")  # of Python 2: the reader itself must refuse it
@pytest.mark.parametrize(("content", "match"), REFUSED.values(), ids=REFUSED)
def test_what_numpy_does_not_save_is_refused_in_little_memory(tmp_path, content, match):
    path = npz(tmp_path / "a.npz", ("a.npy", content))
    tracemalloc.start()
    with pytest.raises(ValueError, match=match):
        read_arrays(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4_000_000


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_zips_that_are_not_as_numpy_writes_them_are_refused(tmp_path):
    path = tmp_path / "a.npz"

    def fails(match, content=None):
        if content is not None:
            path.write_bytes(content)
        with pytest.raises(ValueError, match=match):
            read_arrays(path)

    npz(path, ("a.npy", ONE), ("a.npy", ONE))
    fails("'a' is no array, or is there twice")
    npz(path, ("a.txt", b"x"))
    fails("'a.txt' is no array")
    npz(path, ("a.npy", ONE + bytes(10**6)), method=zipfile.ZIP_DEFLATED)
    fails("compressed members")
    good = saved(path, **ARRAYS).read_bytes()
    fails("claim more bytes than it has", overlapping(good, 100))
    for size in (0, 1, 21, 22, 500, len(good) // 2, len(good) - 1):
        fails("not a zip file", good[:size])
    spoilt = bytearray(good)
    spoilt[good.index(np.arange(6.0).tobytes()[8:16])] ^= 1
    fails("Bad CRC-32 for file 'transposed.npy'|Bad CRC-32", spoilt)


def test_a_changed_byte_is_refused_or_changes_no_array(tmp_path):
    path = saved(tmp_path / "a.npz", a=np.arange(3.0), b=np.array("text"))
    good, expected, refused = path.read_bytes(), read_arrays(path), 0
    for at in range(len(good)):
        path.write_bytes(good[:at] + bytes([good[at] ^ 1]) + good[at + 1 :])
        try:
            found = read_arrays(path)
        except ValueError:
            refused += 1
        else:
            for name, array in found.items():
                np.testing.assert_array_equal(array, expected.get(name, array))
    assert refused > 0.6 * len(good)  # not: dates, versions and attributes in the zip headers
