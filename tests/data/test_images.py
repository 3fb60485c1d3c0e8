"""Image files become the pixels that Pillow's own tools show; damaged ones are refused."""

import io
from random import Random

import numpy as np
import pytest

from igc_ref.data import read_image
from igc_ref.errors import DataError
from tests.stress.hostile_files import anywhere

Image = pytest.importorskip("PIL.Image")
PIXELS = np.random.default_rng(0).integers(0, 256, (20, 24, 3), np.uint8)


def encoded(mode="RGB", kind="PNG", **options):
    file = io.BytesIO()
    Image.fromarray(PIXELS).convert(mode).save(file, kind, **options)
    return file.getvalue()


@pytest.mark.parametrize("mode", ["RGB", "L", "LA", "P", "1", "CMYK"])
def test_every_mode_becomes_three_channels_as_pillow_converts_it(tmp_path, mode):
    content = encoded(mode, "JPEG" if mode == "CMYK" else "PNG")
    (tmp_path / "a.png").write_bytes(content)
    expected = np.array(Image.open(io.BytesIO(content)).convert("RGB"))
    np.testing.assert_array_equal(read_image(tmp_path / "a.png").transpose(1, 2, 0), expected)


def test_transparency_is_dropped_and_the_orientation_of_exif_applied(tmp_path):
    path, exif = tmp_path / "a.png", Image.Exif()
    Image.fromarray(np.pad(PIXELS, ((0, 0), (0, 0), (0, 1)))).save(path)  # with an alpha of 0
    np.testing.assert_array_equal(read_image(path), PIXELS.transpose(2, 0, 1))
    exif[0x0112] = 6  # the first row is shown as the last column
    path.write_bytes(encoded(exif=exif))
    np.testing.assert_array_equal(read_image(path), np.rot90(PIXELS, -1).transpose(2, 0, 1))


def test_a_size_is_covered_and_its_middle_taken(tmp_path):
    wide = np.zeros((10, 40, 3), np.uint8)
    wide[:, 15:25] = 200  # the middle square
    for name, pixels in (("wide", wide), ("high", wide.transpose(1, 0, 2))):
        Image.fromarray(pixels).save(tmp_path / f"{name}.png")
        assert (read_image(tmp_path / f"{name}.png", size=(20, 20))[:, 3:-3, 3:-3] == 200).all()
    assert read_image(tmp_path / "wide.png", size=(7, 3)).shape == (3, 7, 3)


def test_what_is_no_image_of_8_bits_is_refused_in_a_line(tmp_path, monkeypatch):
    def fails(match, content):
        path.write_bytes(content)
        with pytest.raises(DataError, match=rf"a\.png.*{match}"):
            read_image(path)

    path, sixteen = tmp_path / "a.png", io.BytesIO()
    for name in ("a.png", ""):
        with pytest.raises(DataError, match="is no file"):
            read_image(tmp_path / name)
    fails("as a PNG or JPEG: UnidentifiedImageError", encoded(kind="EPS"))
    Image.fromarray(np.full((4, 4), 40_000, np.uint16)).save(sixteen, "PNG")
    fails("it has 16 bits a channel; save it with 8", sixteen.getvalue())
    stored = bytearray(encoded(compress_level=0))
    stored[len(stored) // 2] ^= 1  # a pixel; only the checksum tells
    fails("checksum", stored)
    for limit in (300, 100):  # Pillow warns of the one and refuses the other
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
        fails("DecompressionBomb", encoded())


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_a_changed_or_truncated_file_is_refused_or_is_still_an_image(tmp_path, kind):
    good, path, read = encoded(kind=kind), tmp_path / "a.png", []
    contents = [good, *(good[:size] for size in range(0, len(good) - 20, 50))]
    first = len(contents)
    for content in [*contents, *(anywhere(Random(n), good) for n in range(100))]:
        path.write_bytes(content)
        try:
            read.append(read_image(path))
        except DataError:
            read.append(None)
    assert [image is None for image in read[:first]] == [False, *[True] * (first - 1)]
    accepted = [image for image in read[first:] if image is not None]
    assert 0 < len(accepted) < 80
    if kind == "PNG":  # it has checksums
        assert all(np.array_equal(image, read[0]) for image in accepted)
