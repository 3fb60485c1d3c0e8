"""Archives are read without extracting them; what is damaged or too large is refused."""

import gzip
import io
import os
import tarfile

import numpy as np
import pytest

from igc_ref.data import load
from igc_ref.data.cifar import load_cifar
from igc_ref.errors import DataError
from tests.data.cifar_files import FILES, as_python_2, batch_of, draw, write_binary, write_python

FOLDER = "cifar-10-batches-bin"
FILE = f"{FOLDER}/test_batch.bin"
NAME = "cifar-10-binary.tar.gz"
pytestmark = pytest.mark.usefixtures("few_records")


@pytest.fixture
def batch(tmp_path):
    return (write_binary(tmp_path / "written", "cifar10", "test") / "test_batch.bin").read_bytes()


def member(name, content=b"", kind=tarfile.REGTYPE, **fields):
    info = tarfile.TarInfo(name)
    info.size, info.type = len(content), kind
    for field, value in fields.items():
        setattr(info, field, value)
    return info, content


def tar(*members, form=tarfile.GNU_FORMAT):
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=form) as archive:
        for info, content in members:
            archive.addfile(info, io.BytesIO(content))
    return file.getvalue()


@pytest.mark.parametrize(("name", "split"), FILES)
@pytest.mark.parametrize("write", [write_binary, write_python])
@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_an_archive_reads_as_the_folder_it_was_made_from(tmp_path, name, split, write, form):
    folder, packed = write(tmp_path / "out", name, split), tmp_path / "packed"
    packed.mkdir()
    (folder / "readme.html").write_text("hello")
    if write is write_binary:
        file, count = {"cifar10": ("batches.meta", 10), "cifar100": ("fine_label_names", 100)}[name]
        (folder / f"{file}.txt").write_text("\n".join(f"kind {i}" for i in range(count)))
    kind = "binary" if write is write_binary else "python"
    path = packed / f"{name[:5]}-{name[5:]}-{kind}.tar.gz"
    with tarfile.open(path, "w:gz", format=form) as archive:
        archive.add(folder, folder.name)
    expected = load_cifar(folder, name, split)
    for place in (packed, path, str(path)):
        found = load(name, split, place)
        np.testing.assert_array_equal(found.images, expected.images)
        np.testing.assert_array_equal(found.labels, expected.labels)
        assert found.classes == expected.classes
        assert found.classes[0] == "kind 0" or write is write_python
    assert os.listdir(packed) == [path.name]  # nothing was extracted


def test_an_extracted_folder_goes_first_and_the_binary_archive_before_the_other(tmp_path, batch):
    def first():
        return int(load_cifar(tmp_path, "cifar10", "test").labels[0])

    def binary(label):
        return bytes([label]) + batch[1:]

    images, labels = draw("cifar10", "test")["test_batch"]
    labels[0] = 1
    content = as_python_2(batch_of("cifar10", images, labels))
    python = tar(member("cifar-10-batches-py/test_batch", content))
    (tmp_path / "cifar-10-python.tar.gz").write_bytes(gzip.compress(python))
    assert first() == 1
    (tmp_path / NAME).write_bytes(gzip.compress(tar(member(FILE, binary(2)))))
    assert first() == 2
    (tmp_path / "test_batch.bin").write_bytes(binary(3))
    assert first() == 3


def fails(match, path, content, split="test"):
    """The archive is refused by its name in one line, and nothing is left behind."""
    path.write_bytes(content)
    before = sorted(os.listdir(path.parent))
    with pytest.raises(DataError, match=match) as caught:
        load_cifar(path.parent, "cifar10", split)
    assert str(path) in str(caught.value)
    assert str(caught.value).isprintable()
    assert sorted(os.listdir(path.parent)) == before


ODD = {
    "paths that lead elsewhere": [member("../owned", b"x"), member("/tmp/owned", b"x")],
    "links": [
        member("x", kind=tarfile.SYMTYPE, linkname="/etc/passwd"),
        member(FILE, kind=tarfile.SYMTYPE, linkname="/etc/passwd"),
        member(FILE, kind=tarfile.LNKTYPE, linkname="/etc/passwd"),
    ],
    "devices": [member(FILE, kind=kind) for kind in (tarfile.CHRTYPE, tarfile.FIFOTYPE)],
    "other files": [member(f"elsewhere/{FILE}", b"x"), member("test_batch.bin", b"x")],
}


@pytest.mark.parametrize("odd", ODD.values(), ids=ODD)
def test_members_that_are_not_the_wanted_files_have_nothing_to_act_on(tmp_path, batch, odd):
    path = tmp_path / NAME
    path.write_bytes(gzip.compress(tar(*odd, member(f"./{FILE}", batch))))
    assert load_cifar(path, "cifar10", "test").images.tobytes()[:9] == batch[1:10]
    fails(f"lacks {FILE}; fetch or unpack", path, gzip.compress(tar(*odd)))
    assert not any((place / "owned").exists() for place in (tmp_path.parent, tmp_path))


def test_a_wanted_member_must_be_there_once_with_its_size_and_labels(tmp_path, batch):
    path, good = tmp_path / NAME, member(FILE, batch)
    fails(f"two members {FILE}", path, gzip.compress(tar(good, good)))
    lacking = f"lacks {FOLDER}/data_batch_1.bin, .*, {FOLDER}/data_batch_5.bin;"
    fails(lacking, path, gzip.compress(tar(good)), "train")
    for content, match in (
        (b"x", "has 1 bytes; 2 records"),
        (batch + b"x", "has 6,147 bytes; at most 6,146"),
        (b"\x0a" + batch[1:], "record 0 has label 10; allowed are 0 to 9"),
    ):
        fails(f"{FILE}:? {match}", path, gzip.compress(tar(member(FILE, content))))


def test_damaged_archives_are_refused(tmp_path, batch):
    path, content = tmp_path / NAME, tar(member(FILE, batch))
    good = gzip.compress(content)
    for length in (0, 1, 10, 18, len(good) // 2, len(good) - 9, len(good) - 1):
        fails("is damaged or no .tar.gz", path, good[:length])
    fails("Not a gzipped file", path, content)
    fails("CRC check failed", path, good[:-8] + b"wild" + good[-4:])
    fails("Incorrect length", path, good[:-4] + b"wild")
    fails("Not a gzipped file", path, good + b"trailing")
    fails("is damaged or no .tar.gz", path, gzip.compress(b"<html>" * 200))
    fails("unexpected end of data", path, gzip.compress(content[:3000]))
    for size, match in ((2**20, "unexpected end of data"), (2**80, "it unpacks to more than")):
        for kind in (tarfile.REGTYPE, tarfile.GNUTYPE_SPARSE):
            claim, _ = member("x", kind=kind, size=size)
            content = claim.tobuf(tarfile.GNU_FORMAT) + bytes(1024)
            fails(match, path, gzip.compress(content))


def test_an_archive_that_unpacks_to_more_than_the_published_one_is_refused(tmp_path, batch):
    path, bomb, good = tmp_path / NAME, member("zeros", bytes(2_000_000)), member(FILE, batch)
    for content in (tar(bomb, good), tar(good, bomb), tar(good) + bytes(2_000_000)):
        fails("it unpacks to more than 1,100,817 bytes", path, gzip.compress(content))


def test_a_device_in_place_of_the_archive_is_not_opened(tmp_path):
    (tmp_path / NAME).symlink_to("/dev/zero")
    os.mkfifo(tmp_path / "cifar-10-python.tar.gz")
    with pytest.raises(DataError, match="no CIFAR-10 in"):
        load_cifar(tmp_path, "cifar10", "test")
