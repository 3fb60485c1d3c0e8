"""MATLAB files: arrays of bytes pass in every legal form, and nothing else is let through."""

import io
import struct
import tracemalloc
import zlib
from contextlib import suppress
from random import Random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.io import loadmat, savemat

from igc_ref.data.matlab import check_arrays
from igc_ref.errors import DataError
from tests.stress.hostile_matlab import array, digits, element, file_of, packed

GOOD = digits(Random(0), 4)
X, Y = array("X", GOOD["X"]), array("y", GOOD["y"])
SHAPES = {"X": (32, 32, 3, 4), "y": (4, 1)}


def check(content):
    check_arrays(io.BytesIO(content), "a.mat", SHAPES)


def saved(packed=False, **variables):
    file = io.BytesIO()
    savemat(file, variables, do_compression=packed)
    return file.getvalue()


@pytest.mark.parametrize("shut", [packed, bytes], ids=["packed", "plain"])
@pytest.mark.parametrize("order", [1, -1])
@pytest.mark.parametrize("of_class", [6, 9], ids=["double", "uint8"])
def test_arrays_of_bytes_of_any_class_and_order_pass_and_mean_the_same(of_class, order, shut):
    # The published labels are doubles kept as bytes, says scipy.io.whosmat.
    content = file_of(*[shut(X), shut(array("y", GOOD["y"], of_class=of_class))][::order])
    check(content)
    found = loadmat(io.BytesIO(content))
    for name, expected in GOOD.items():
        np.testing.assert_array_equal(found[name], expected)
        assert found[name].dtype == np.uint8


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 8, 9])  # up to 4 bytes stand in a tag
def test_what_scipy_writes_passes(count, packed):
    content = saved(packed, **digits(Random(count), count))
    check_arrays(io.BytesIO(content), "a.mat", {"X": (32, 32, 3, count), "y": (count, 1)})


MANY = GOOD["X"].repeat(2, axis=3)
NUMBERS = "X holds something other than real numbers"
FORMAT = "is no MATLAB 5 file of little-endian numbers$"
REFUSED = {
    "nothing": (b"", FORMAT),
    "a page": (b"<html>Please log in.</html>" * 9, FORMAT),
    "MATLAB 4": (bytes(4) + file_of(X, Y)[4:], FORMAT),
    "MATLAB 7.3, which is HDF5": (file_of(X, Y, version=b"\0\2IM"), FORMAT),
    "big-endian": (file_of(X, Y, version=b"\1\0MI"), FORMAT),
    "empty": (file_of(), "lacks the array X and y$"),
    "no labels": (file_of(packed(X)), "lacks the array y$"),
    "no pictures": (file_of(Y), "lacks the array X$"),
    "pictures twice": (file_of(X, X, Y), "has the array X twice$"),
    "a third array": (file_of(X, Y, array("z", GOOD["y"])), "an array called 'z'; expected are X "),
    "a function workspace": (file_of(X, array("", GOOD["y"]), Y), "an array called ''"),
    "a control character": (file_of(array("\x1b[2", GOOD["y"])), r"called '\\x1b\[2'"),
    "other pictures": (file_of(array("X", MANY), Y), r"X has shape \(32, 32, 3, 8\)"),
    "rows of labels": (file_of(X, array("y", GOOD["y"].T)), r"y has shape \(1, 4\); expected"),
    "40 dimensions": (file_of(array("X", GOOD["X"], (1,) * 40)), r"X has shape \(1, 1, 1, 1, 1, 1"),
    "99 dimensions": (file_of(array("X", GOOD["X"], (1,) * 99)), "begin with flags, shape"),
    "a negative size": (file_of(array("X", GOOD["X"], (32, 32, 3, -4))), r"shape \(32, 32, 3, -4"),
    "complex": (file_of(array("X", GOOD["X"], flags=8)), NUMBERS),
    "text": (saved(X="touch owned"), NUMBERS),
    "a struct": (saved(X={"a": 1}), NUMBERS),
    "cells": (saved(X=np.array(["a", [1]], object)), NUMBERS),
    "an object": (file_of(array("X", GOOD["X"], of_class=3)), NUMBERS),
    "a function": (file_of(array("X", GOOD["X"], of_class=16)), NUMBERS),
    "opaque": (file_of(array("X", GOOD["X"], of_class=17)), NUMBERS),
    "doubles": (saved(X=GOOD["X"] / 2), "values of X are of type 9, not bytes .2.;"),
    "more than there is": (
        file_of(array("X", GOOD["X"], count=2**32 - 1)), "claims 4,294,967,295 values in 12,288 b"
    ),
    "fewer": (file_of(array("X", GOOD["X"], count=3)), "X claims 3 values in 12,288 bytes"),
    "more than fits": (
        file_of(array("X", GOOD["X"][:-1], (32, 32, 3, 4), count=12_288)), "288 values in 11,904 b"
    ),
    "no array": (file_of(element(2, bytes(80))), "element of type 2, which is no array"),
    "packed twice": (file_of(packed(packed(X))), "element of type 15, which is no array"),
    "not packed by zlib": (file_of(element(15, bytes(80))), "is damaged: unknown compression"),
    "packed nothing": (file_of(packed(b"")), "an array ends before its values"),
    "a bomb": (file_of(packed(X, 50_000_000)), "an array unpacks to more than 12,544 bytes"),
    "a small bomb": (file_of(packed(X, 8)), "an array claims 12,344 bytes, 12,352 are there"),
    "half": (file_of(packed(X[:-900])), "an array claims 12,344 bytes, 11,444 are there"),
    "a wrong checksum": (file_of(packed(X)[:-1] + b"?"), "is damaged: incorrect data check"),
    "a stream cut off": (file_of(element(15, zlib.compress(X)[:-9])), "a packed array is cut off"),
    "a huge element": (file_of(struct.pack("<II", 14, 2**32 - 1)), "claims 4,294,967,295 bytes, 0"),
    "half a tag": (file_of(X, b"1234"), "the file is cut off"),
    "no flags": (file_of(element(14, element(5, bytes(8)) * 9)), "not begin with flags, shape and"),
}  # fmt: skip


@pytest.mark.parametrize(("content", "match"), REFUSED.values(), ids=REFUSED)
def test_what_does_not_belong_there_is_refused_in_little_memory(content, match):
    tracemalloc.start()
    with pytest.raises(DataError, match=f"^a.mat.*{match}") as caught:
        check(content)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 400_000
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("shut", [packed, bytes], ids=["packed", "plain"])
def test_a_file_cut_off_anywhere_is_refused(shut):
    content = file_of(shut(Y), shut(X))
    for size in (*range(400), *range(400, len(content), 97), len(content) - 1):
        with pytest.raises(DataError):
            check(content[:size])


@settings(max_examples=300)
@given(st.data())
def test_what_passes_scipy_reads_as_two_arrays_of_these_shapes(data):
    shut = data.draw(st.sampled_from([packed, bytes]))
    content = bytearray(file_of(shut(Y), shut(X)))
    for at in data.draw(st.lists(st.integers(120, 399), min_size=1, max_size=3)):
        content[at] = data.draw(st.integers(0, 255))
    with suppress(DataError):
        check(content)
        found = loadmat(io.BytesIO(content), variable_names=("X", "y"))
        assert {name: found[name].shape for name in SHAPES} == SHAPES
        assert {found[name].dtype for name in SHAPES} == {np.dtype(np.uint8)}
