"""A user's own sequences: windows of a text, time series in ``.ts`` files, and their refusals."""

from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from igc_ref import data
from igc_ref.data.sequences import BYTES
from igc_ref.errors import DataError, SpecError
from igc_ref.report import silent

TEXT = np.random.default_rng(0).integers(0, 256, 2000, np.uint8).tobytes()


def text(tmp_path, content=TEXT):
    (tmp_path / "a.txt").write_bytes(content)
    return tmp_path / "a.txt"


def windows(dataset):
    """The 65 bytes of each sample, from its bits and its label."""
    bits = dataset.images[:, :8, 0] // 255
    first = np.packbits(bits, axis=1)[:, 0]
    return [bytes([*row, label]) for row, label in zip(first, dataset.labels, strict=True)]


def test_a_text_is_cut_into_windows_of_its_first_nine_tenths_and_its_last(tmp_path):
    path = text(tmp_path)
    train, test = (data.load("text", split, path) for split in ("train", "test"))
    assert (train.images.shape, test.images.shape) == ((1736, 9, 1, 64), (136, 9, 1, 64))
    assert set(np.unique(train.images[:, :8])) == {0, 255}
    assert sorted(windows(train)) == sorted(TEXT[i : i + 65] for i in range(1736))
    assert sorted(windows(test)) == sorted(TEXT[i : i + 65] for i in range(1800, 1936))
    for dataset in (train, test):
        ramp = dataset.images[:, 8, 0].astype(int)
        assert (np.diff(ramp) > 0).all()
        assert (ramp == ramp[0]).all()
        assert len(set(dataset.classes)) == 256
    assert (BYTES[10], BYTES[32], BYTES[65], BYTES[255]) == (r"\n", "space", "A", r"\xff")
    assert all(name.isprintable() for name in BYTES)


def test_a_size_chooses_always_the_same_windows_to_train_on(tmp_path):
    path = text(tmp_path)
    parts = [data.load("text", "train", path, silent, 50) for _ in range(2)]
    assert data.fingerprint(parts[0]) == data.fingerprint(parts[1])
    assert len(set(windows(parts[0]))) == 50
    assert len(data.load("text", "test", path, silent, 50)) == 136
    with pytest.raises(SpecError, match="data_size=1737 is too large; at most 1736"):
        data.load("text", "train", path, silent, 1737)
    long = text(tmp_path, bytes(101_000))
    assert [len(data.load("text", s, long)) for s in ("train", "test")] == [50_000, 10_000]


@pytest.mark.parametrize("size", [0, 1, 64, 640])
def test_a_text_without_a_window_to_test_on_is_refused(tmp_path, size):
    with pytest.raises(DataError, match=rf"a\.txt is too short for data=text: {size} bytes; its"):
        data.load("text", "train", text(tmp_path, bytes(size)))
    assert len(data.load("text", "test", text(tmp_path, bytes(641)))) == 1


@pytest.mark.parametrize(
    ("name", "place", "match"),
    [
        ("text", ".", "is no file"),
        ("text", "none", "none does not exist"),
        ("text", None, "data=text needs data_dir"),
        ("ts", "none", r"none_TRAIN\.ts does not exist"),
        ("ts", ".", r"must hold one NAME_TRAIN\.ts, not none; or give .*/NAME"),
    ],
)
def test_a_place_without_data_is_named(tmp_path, name, place, match):
    with pytest.raises(DataError, match=match):
        data.load(name, "train", place and tmp_path / place)


HEAD = "#a comment\n@problemName Two\n@univariate false\n@classLabel true up down\n\n@data\n"
SERIES = "0,1,2:5,5,5:up\n-1, 4 ,2:5,5,5:down\n"
LATER = "-9,1.5,4e0:6,5,0:down\n"


def ts(tmp_path, train=HEAD + SERIES, test=HEAD + LATER, name="Two"):
    for split, content in (("TRAIN", train), ("TEST", test)):
        content = content.encode() if isinstance(content, str) else content
        (tmp_path / f"{name}_{split}.ts").write_bytes(content)
    return tmp_path


def test_series_are_quantised_between_the_extremes_of_each_channel_in_train(tmp_path):
    folder = ts(tmp_path)
    train, test = (data.load("ts", split, folder) for split in ("train", "test"))
    first = [[[51, 102, 153]], [[0, 0, 0]]]
    assert train.images.tolist() == [first, [[[0, 255, 153]], [[0, 0, 0]]]]
    # 1.5 is half of the way from -1 to 4; a channel that never varied counts units from 5.
    assert test.images.tolist() == [[[[0, 128, 255]], [[255, 0, 0]]]]
    assert (train.labels.tolist(), test.labels.tolist()) == ([0, 1], [1])
    assert test.classes == ("up", "down")
    values = np.array([51, 102, 153, 0, 255, 153])
    assert test.about == train.about
    np.testing.assert_allclose(train.mean, (values.mean(), 0), rtol=1e-12)
    np.testing.assert_allclose(train.std, (values.std(), 1), rtol=1e-12)
    ts(tmp_path, "\ufeff" + HEAD + SERIES, name="Other")  # as Windows saves a text
    assert len(data.load("ts", "train", folder / "Other")) == 2
    assert len(data.load("ts", "train", folder / "Two")) == 2
    with pytest.raises(DataError, match=r"Two_TRAIN\.ts is one file; give its folder"):
        data.load("ts", "train", folder / "Two_TRAIN.ts")
    with pytest.raises(DataError, match=r"not Other_TRAIN\.ts, Two_TRAIN\.ts; or give"):
        data.load("ts", "train", folder)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (("1,2:5", "1,?:5"), "line 7: a value is missing, or no number below 1e"),
        (("1,2:5", "1,NaN:5"), "line 7: a value is missing"),
        (("1,2:5", "1,1e999:5"), "line 7: a value is missing, or no number"),
        (("1,2:5", "1,(2,3):5"), "line 7: .* is not channels of equal length"),
        (("1,2:5", "1:5"), "line 7: '0,1:5,5,5:up' is not channels of equal length and a label"),
        (("0,1,2:5,5,5:up\n", "0,1,2:up\n"), "line 8: .* 2 channels of 3 .*, the first one 1 ch"),
        (("5:down", "5:left"), r"line 8: 'left' is none of the classes \('up', 'down'\)"),
        (("true up down", "false"), "line 4: it must say true, and name every class once"),
        (("true up down", "true up up"), "line 4: it must say true"),
        (("@classLabel", "@targetLabel"), "line 6: no @classLabel true LABEL"),
        (("@data", "@date"), "line 7: '0,1,2:5,5,5:up' is neither @"),
        ((SERIES, ""), "has no series after a line @data"),
        ((SERIES, "up"), "line 7: 'up' is not channels"),
    ],
)
def test_series_that_are_not_as_described_are_refused_with_their_line(tmp_path, change, match):
    folder = ts(tmp_path, (HEAD + SERIES).replace(*change))
    for split in ("train", "test"):
        with pytest.raises(DataError, match=f"Two_TRAIN.ts.*{match}"):
            data.load("ts", split, folder)


def test_a_test_set_of_other_sizes_or_labels_is_refused(tmp_path):
    for series, match in (
        ("1,2:3,4:up", "has series of 2 channels of 2 values, not 2 channels of 3 values"),
        ("1,2,3:4,5,6:left", r"line 7: 'left' is none of the classes"),
    ):
        with pytest.raises(DataError, match=f"Two_TEST.ts.*{match}"):
            data.load("ts", "test", ts(tmp_path, test=HEAD + series))
    with pytest.raises(DataError, match=r"Two_TRAIN\.ts is no text: .* can't decode byte 0xff"):
        data.load("ts", "test", ts(tmp_path, b"\xff\xfe"))


PIECES = ("@data", "@classLabel", " true", " a", " b", "\n", "1", ",", ":", "-", "e", "9" * 400,
          "?", "nan", "#", "\x00", "\u2028", "é", "_", "(", "1,2:a\n", HEAD, SERIES)  # fmt: skip


@given(st.lists(st.sampled_from(PIECES)).map("".join) | st.text(), st.integers(0, 160), st.data())
def test_a_spoilt_file_is_read_or_refused_in_one_line(tmp_path_factory, piece, at, draw):
    folder = tmp_path_factory.mktemp("ts")
    whole = HEAD + SERIES
    content = draw.draw(st.sampled_from([piece, whole[:at] + piece + whole[at + len(piece) :]]))
    ts(folder, content.encode("utf-8", "replace"))
    try:
        found = data.load("ts", draw.draw(st.sampled_from(["train", "test"])), folder)
    except DataError as error:
        refused = str(error)
    else:
        refused = "" if found.images.shape[2] == 1 else "of another height"
    assert refused.isprintable()
    assert not refused or "_TRAIN.ts" in refused or "_TEST.ts" in refused


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "shape", "classes"),
    [("GunPoint", (1, 1, 150), "12"), ("ArrowHead", (1, 1, 251), "012"),
     ("BasicMotions", (6, 1, 100), ["Standing", "Running", "Walking", "Badminton"])],
)  # fmt: skip
def test_the_sets_that_aeon_carries_are_read_value_by_value(name, shape, classes):
    if (spec := find_spec("aeon")) is None:
        pytest.skip("aeon is not installed")
    folder = Path(spec.origin).parent / "datasets/data" / name
    extremes = None
    for split in ("train", "test"):
        found = data.load("ts", split, folder)
        assert found.classes == tuple(classes)
        lines = (folder / f"{name}_{split.upper()}.ts").read_text().split("@data")[1].split()
        assert found.images.shape == (len(lines), *shape)
        series = [[channel.split(",") for channel in line.split(":")[:-1]] for line in lines]
        values = np.array(series, "f8")  # (n, channels, length)
        extremes = extremes or [(c.min(), c.max()) for c in np.moveaxis(values, 1, 0)]
        for channel, (low, high) in enumerate(extremes):
            expected = 255 * (values[:, channel].clip(low, high) - low) / (high - low)
            assert abs(found.images[:, channel, 0] - expected).max() <= 0.5 + 1e-9
        assert [found.classes[n] for n in found.labels] == [line.split(":")[-1] for line in lines]
