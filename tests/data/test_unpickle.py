"""The restricted unpickler: what CIFAR files hold comes out, and nothing a file says is obeyed."""

import contextlib
import os
import pickle
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from igc_ref.data import unpickle
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
        b"names": [b"a", "b\u00e9\u4e00\n", b"\xff\x00'\"\\", "", "x" * 300, b"y" * 300],
        "nested": {"tuples": [(), (1,), (1, 2), (1, 2, 3), (1, 2, 3, 4)], "empty": [{}, []]},
    }
    assert load_pickle(pickle.dumps(value, protocol)) == value


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("writeable", [True, False])
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_arrays_come_back_read_only_whatever_the_protocol(protocol, writeable, order):
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
    assert load_pickle(b"(dS'a\\xff'\nU\x02b\xfesT\x01\x00\x00\x00cS'd'\ns.") == {
        b"a\xff": b"b\xfe",
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


@pytest.mark.parametrize(
    "program",
    [
        b"c__builtin__\neval\n(V1\ntR.",
        b"cbuiltins\neval\n(V1\ntR.",
        b"\x80\x04\x8c\x08builtins\x8c\x04eval\x93\x8c\x011\x85R.",
        b"cnumpy\nload\n.",
        b"cnumpy.core.multiarray\nfromfile\n.",
        b"c_codecs\nlookup\n.",
        b"cigc_ref.data.unpickle\n_Array\n.",
        b"cnumpy\nndarray.__init__\n.",
    ],
)
def test_a_name_outside_the_list_is_refused(program):
    with pytest.raises(DataError, match="allowed are"):
        load_pickle(program)


@pytest.mark.parametrize(
    "program",
    [
        b"cnumpy\nndarray\n(L1000000000000L\n\x85tR.",
        EMPTY.replace(b"K\x00\x85", b"L1000000000000L\n\x85") + b".",
        b"cnumpy\ndtype\nU\x02u2K\x00K\x01\x87R.",
        b"cnumpy\ndtype\nU\x01OK\x00K\x01\x87R.",
        b"c_codecs\nencode\n(Vabc\nVrot13\ntR.",
        b"c_codecs\nencode\n(Vabc\nVzlib\ntR.",
        b"c_codecs\nencode\n(Vabc\ntR.",
        b"c_codecs\nencode\n(U\x03abcVlatin1\ntR.",
        b"c_codecs\nencode\nVab\nR.",  # arguments that are not a tuple
        b"]K\x01R.",
        b"cnumpy.core.numeric\n_frombuffer\n(U\x02ab" + DTYPE + b"K\x02\x85VK\ntR.",
    ],
)
def test_a_call_of_another_form_is_refused(program):
    with pytest.raises(DataError, match="the pickle calls"):
        load_pickle(program)


@pytest.mark.parametrize(
    "program",
    [
        array_pickle(raw=b"\x00" * 5),
        array_pickle(raw=b"\x00" * 7),
        array_pickle(shape=b"J\xff\xff\xff\xffJ\xfa\xff\xff\xff\x86"),  # (-1, -6)
        array_pickle(shape=b"]"),
        array_pickle(shape=b"K\x06"),
        array_pickle(shape=b"U\x01\x06\x85"),
        array_pickle(shape=b"(K\x06" + b"K\x01" * 40 + b"t"),
        array_pickle(shape=b"L" + b"9" * 4000 + b"L\n\x85"),
        array_pickle(version=b"K\x02"),
        array_pickle(order=b"K\x02"),
        array_pickle(dtype=b"U\x02u1"),
        array_pickle(dtype=DTYPE.replace(b"U\x01|", b"U\x01>")),
        EMPTY + b"}b.",
        EMPTY + b"}K\x01\x86b.",
        EMPTY + b".",
        b"}U\x01a" + EMPTY + b"s.",
    ],
)
def test_an_array_whose_state_does_not_fit_is_refused(program):
    np.testing.assert_array_equal(load_pickle(array_pickle()), np.zeros((2, 3)))
    with pytest.raises(DataError, match="array"):
        load_pickle(program)


@pytest.mark.parametrize(
    "target", [b"cnumpy\ndtype\n", b"c_codecs\nencode\n", b"}", b"]", b"K\x01"]
)
@pytest.mark.parametrize("state", [b"}U\x05valueK\x01s", b"N}V__doc__\nK\x01s\x86"])
def test_no_state_can_be_set_on_anything_else(target, state):
    with pytest.raises(DataError, match="sets a state"):
        load_pickle(target + state + b"b.")


@pytest.mark.parametrize(
    ("name", "program"),
    {
        "PERSID": b"Pid\n.",
        "BINPERSID": b"U\x02idQ.",
        "EXT1": b"\x82\x01.",
        "EXT2": b"\x83\x01\x00.",
        "EXT4": b"\x84\x01\x00\x00\x00.",
        "INST": b"(ios\nsystem\n.",
        "OBJ": b"(cnumpy\nndarray\no.",
        "NEWOBJ": b"cnumpy\nndarray\n)\x81.",
        "NEWOBJ_EX": b"cnumpy\nndarray\n)}\x92.",
        "EMPTY_SET": b"\x8f.",
        "FROZENSET": b"(\x91.",
        "NEXT_BUFFER": b"\x97.",
        "LONG4": b"\x8b\xff\xff\xff\x7f",
        "BINBYTES8": b"\x8e" + b"\xff" * 7 + b"\x7f",
        "DUP": b"]2.",
    }.items(),
)
def test_an_opcode_that_no_cifar_file_needs_is_refused(name, program):
    with pytest.raises(DataError, match=rf"opcode {name},"):
        load_pickle(program)


@pytest.mark.parametrize(
    "program",
    [
        b"}r\xff\xff\xff\x7f.",  # LONG_BINPUT at 2**31 - 1, whose memo would take 16 GiB
        b"}p" + b"9" * 4000 + b"\n.",
        b"\x96"
        + (2**62).to_bytes(8, "little"),  # BYTEARRAY8, BINBYTES, BINSTRING, BINUNICODE, FRAME
        b"\x96" + b"\xff" * 8,
        b"B\xff\xff\xff\xff",
        b"T\xff\xff\xff\x7f",
        b"X\xff\xff\xff\xff",
        b"\x95" + (2**62).to_bytes(8, "little") + b"].",
        b"V"
        + b"z" * 10_000
        + b"\np0\nVlatin1\np1\nc_codecs\nencode\np2\n"
        + b"g2\n(g0\ng1\ntR" * 1000
        + b".",
    ],
)
def test_memory_stays_with_the_size_of_the_file(program):
    tracemalloc.start()
    try:
        loads_or_refuses(program)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 4 * len(program) + 200_000


def test_the_number_of_opcodes_is_limited():
    assert load_pickle(b"N" * (unpickle.MAX_OPCODES - 1) + b".") is None
    with pytest.raises(DataError, match="more than 1,000,000 opcodes"):
        load_pickle(b"N" * unpickle.MAX_OPCODES + b".")


def test_deep_nesting_neither_recurses_nor_crashes():
    depth = 200_000
    load_pickle(b"]" * depth + b"a" * (depth - 1) + b".")
    with pytest.raises(DataError, match="text for keys"):  # whose hash would overflow the C stack
        load_pickle(b"})" + b"\x85" * depth + b"K\x01s.")


@pytest.mark.parametrize(
    "program",
    [b"", b".", b"\x80\x63.", b"}", b"a.", b"s.", b"t.", b"h\x07.", b"KK", b"\xfe", b"Iabc\n.",
     b"Sabc\n.", b"}(U\x01au.", b"(K\x01K\x02d.", b"K\x01K\x02K\x03s.", b"X\x01\x00\x00\x00\xff.",
     b"K\x01\x93."],
)  # fmt: skip
def test_a_damaged_pickle_is_refused(program):
    with pytest.raises(DataError):
        load_pickle(program)


VALID = [
    pickle.dumps({b"batch_label": b"1 of 5", "labels": [3, 300, 70_000], b"data": PIXELS}, protocol)
    for protocol in PROTOCOLS
] + [array_pickle()]
FRAGMENTS = [
    *b"( ) } ] . N R b a e s u t d l \x85 \x86 \x87 \x88 \x93 \x94 \x96".split(b" "),
    *(b"h\x00", b"q\x00", b"K\x00", b"K\x01", b"U\x01a", b"Vlatin1\n", b"S'\\z'\n"),
    *(b"c_codecs\nencode\n", b"cnumpy\nndarray\n", b"cnumpy\ndtype\n", DTYPE, EMPTY),
    *(b"cnumpy.core.numeric\n_frombuffer\n", array_pickle()[:-1], b"\x95\x03" + b"\x00" * 7),
]


def loads_or_refuses(program):
    with contextlib.suppress(DataError):
        load_pickle(program)


@settings(max_examples=200)
@given(st.data())
def test_a_mutated_pickle_loads_or_raises_a_data_error(data):
    program = bytearray(data.draw(st.sampled_from(VALID)))
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, max(0, len(program) - 1)))
        match data.draw(st.sampled_from(["flip", "truncate", "splice"])):
            case "flip":
                program[at : at + 1] = data.draw(st.binary(max_size=2))
            case "truncate":
                del program[at:]
            case "splice":
                other = data.draw(st.sampled_from(VALID))
                start = data.draw(st.integers(0, len(other)))
                program[at:at] = other[start : start + data.draw(st.integers(0, 40))]
    loads_or_refuses(bytes(program))


@settings(max_examples=300)
@given(st.lists(st.sampled_from(FRAGMENTS), max_size=30))
def test_any_program_of_opcodes_loads_or_raises_a_data_error(fragments):
    loads_or_refuses(b"".join(fragments) + b".")
