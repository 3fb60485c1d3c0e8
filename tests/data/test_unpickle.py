"""The restricted unpickler: what CIFAR files hold comes out, and no file is obeyed."""

import copyreg
import os
import pickle

import numpy as np
import pytest

from igc_ref.data.unpickle import load_pickle
from igc_ref.errors import DataError

PROTOCOLS = range(6)
PIXELS = np.random.default_rng(0).integers(0, 256, (4, 12), np.uint8)
DTYPE = (
    b"cnumpy\ndtype\nU\x02u1K\x00K\x01\x87R(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
)
EMPTY = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R"


class Calls:
    """Pickles as a call of any function with any arguments."""

    def __init__(self, function, *args):
        self.call = function, args

    def __reduce__(self):
        return self.call


def array_pickle(
    shape=b"K\x02K\x03\x86", raw=b"\x00" * 6, *, version=b"K\x01", order=b"\x89", dtype=DTYPE
):
    """An array as Python 2 wrote it, of these pieces."""
    return EMPTY + b"(" + version + shape + dtype + order + b"U" + bytes([len(raw)]) + raw + b"tb."


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_numbers_text_and_containers_come_back_as_they_were(protocol):
    value = {
        "labels": [0, 1, 255, 256, 65_535, 65_536, -1, 2**31, -(2**70), True, False, None],
        b"names": [b"a", "é一\n", b"\xff\x00'\"\\", "", "x" * 300, b"y" * 300],
        "nested": {"tuples": [(), (1,), (1, 2), (1, 2, 3), (1, 2, 3, 4)], "empty": [{}, []]},
    }
    assert load_pickle(pickle.dumps(value, protocol)) == value


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("writeable", [True, False])
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_arrays_come_back_read_only_for_every_protocol(protocol, writeable, order):
    pixels = np.array(PIXELS, order=order)
    pixels.flags.writeable = writeable
    data = pickle.dumps({b"data": pixels, "again": pixels}, protocol)
    for older in (data, data.replace(b"numpy._core", b"numpy.core")) if protocol < 4 else (data,):
        value = load_pickle(older)
        for array in (value[b"data"], value["again"], load_pickle(pickle.dumps(pixels, protocol))):
            assert array.dtype == np.uint8
            np.testing.assert_array_equal(array, PIXELS)
            assert not array.flags.writeable


def test_text_of_python_2_stays_bytes():
    assert load_pickle(b"(dU\x02a\xffT\x01\x00\x00\x00bsS'c'\nU\x01ds.") == {
        b"a\xff": b"b",
        b"c": b"d",
    }


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_pickle_that_calls_os_system_runs_nothing(tmp_path, protocol):
    marker, control = tmp_path / "marker", tmp_path / "control"
    assert pickle.loads(pickle.dumps(Calls(os.system, f"touch '{control}'"), protocol)) == 0  # noqa: S301
    assert control.exists()  # so the same pickle would have left the marker
    with pytest.raises(DataError, match=r"names '\w+.system'; allowed are .*numpy\.dtype"):
        load_pickle(pickle.dumps(Calls(os.system, f"touch '{marker}'"), protocol))
    assert not marker.exists()


def refused(program, match):
    with pytest.raises(DataError, match=match) as caught:
        load_pickle(program)
    assert str(caught.value).isprintable()


@pytest.mark.parametrize(
    "program",
    [
        b"c__builtin__\neval\n(V1\ntR.",
        b"(ios\nsystem\n.",  # INST
        b"\x80\x04\x8c\x08builtins\x8c\x04eval\x93\x8c\x011\x85R.",
        b"cnumpy\nload\n.",
        b"c_codecs\nlookup\n.",
        b"cigc_ref.data.unpickle\n_Array\n.",
        b"cnumpy\nndarray.__init__\n.",
    ],
)
def test_a_name_outside_the_list_is_refused(program):
    refused(program, "allowed are")


@pytest.mark.parametrize(
    "program",
    [
        b"cnumpy\nndarray\n(L1000000000000L\n\x85tR.",
        EMPTY.replace(b"K\x00\x85", b"L1000000000000L\n\x85") + b".",
        b"cnumpy\ndtype\nU\x02u2K\x00K\x01\x87R.",
        b"cnumpy\ndtype\nU\x01OK\x00K\x01\x87R.",
        b"c_codecs\nencode\n(Vabc\nVzlib\ntR.",
        b"c_codecs\nencode\n(U\x03abcVlatin1\ntR.",
        b"(cnumpy\nndarray\no.",  # OBJ
        b"cnumpy.core.numeric\n_frombuffer\n(U\x02ab" + DTYPE + b"K\x02\x85VK\ntR.",
    ],
)
def test_a_call_of_another_form_is_refused(program):
    refused(program, "the pickle calls")


@pytest.mark.parametrize(
    "program",
    [
        array_pickle(raw=b"\x00" * 5),
        array_pickle(raw=b"\x00" * 7),
        array_pickle(shape=b"J\xff\xff\xff\xffJ\xfa\xff\xff\xff\x86"),  # (-1, -6)
        array_pickle(shape=b"]"),
        array_pickle(shape=b"U\x01\x06\x85"),
        array_pickle(version=b"K\x02"),
        array_pickle(order=b"K\x02"),
        array_pickle(dtype=b"U\x02u1"),
        EMPTY + b"}b.",
        EMPTY + b".",
        b"}U\x01a" + EMPTY + b"s.",
    ],
)
def test_an_array_whose_state_does_not_fit_is_refused(program):
    np.testing.assert_array_equal(load_pickle(array_pickle()), np.zeros((2, 3)))
    refused(program, "array|damaged")


@pytest.mark.parametrize("target", [b"cnumpy\nndarray\n", b"c_codecs\nencode\n", DTYPE, EMPTY])
@pytest.mark.parametrize("state", [b"}U\x05valueK\x01s", b"N}V__doc__\nK\x01s\x86"])
def test_no_state_can_be_set_on_a_stand_in(target, state):
    refused(target + state + b"b.", "sets (a|the) state")


def test_the_registry_of_extensions_is_not_asked(monkeypatch):
    copyreg.add_extension("os", "system", 0x70)
    try:
        pickle.loads(b"\x82\x70.")  # noqa: S301 # from now on the function is in pickle's own cache
        refused(b"\x82\x70Vtrue\n\x85R.", "opcode EXT1")
    finally:
        copyreg.remove_extension("os", "system", 0x70)


@pytest.mark.parametrize(
    "program",
    [
        b"}r\xff\xff\xff\x7f.",  # LONG_BINPUT at 2**31 - 1, for which the memo would take 32 GiB
        b"}p" + b"9" * 4000 + b"\n.",
        b"\x96" + (2**62).to_bytes(8, "little"),  # BYTEARRAY8
        b"B\xff\xff\xff\xff",
        b"\x95" + (2**62).to_bytes(8, "little") + b"].",
        *(
            b"",
            b".",
            b"\x80\x63.",
            b"}",
            b"a.",
            b"s.",
            b"t.",
            b"h\x07.",
            b"KK",
            b"\xfe",
            b"Iabc\n.",
        ),
        *(b"}(U\x01au.", b"X\x01\x00\x00\x00\xff.", b"K\x01\x93.", b"U\x02idQ.", b"]\x85K\x01R."),
        b"cnumpy\nndarray\n)\x81.",  # NEWOBJ of something that is not a class
        b"}]K\x01s.",  # a list for a key
    ],
)
def test_a_damaged_pickle_is_refused_without_memory_for_its_claims(program):
    refused(program, "pickle")
