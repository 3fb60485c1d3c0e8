"""Archives are read without unpacking them; whatever a data set has not is a reason to refuse."""

import gzip
import io
import os
import tarfile
import tracemalloc
import zlib
from dataclasses import replace
from random import Random

import numpy as np
import pytest

from igc_ref.data import archive, load
from igc_ref.data.archive import in_archive
from igc_ref.data.cifar import load_cifar
from igc_ref.data.published import PUBLISHED
from igc_ref.errors import DataError
from tests.stress import hostile_corpus as corpus
from tests.stress.hostile_corpus import Member, tar, zipped

FOLDER = "cifar-10-batches-bin"
FILE = f"{FOLDER}/test_batch.bin".encode()
NAME = "cifar-10-binary.tar.gz"


@pytest.fixture(autouse=True)
def _few_records(monkeypatch):
    for name, published in PUBLISHED.items():
        monkeypatch.setitem(PUBLISHED, name, replace(published, records=corpus.RECORDS))


@pytest.fixture
def batch():
    return corpus.binary_file(Random(0), "cifar10", "test")


def same(one, other):
    np.testing.assert_array_equal(one.images, other.images)
    np.testing.assert_array_equal(one.labels, other.labels)
    assert (one.name, one.classes) == (other.name, other.classes)


@pytest.mark.parametrize("name", PUBLISHED)
@pytest.mark.parametrize("split", ["train", "test"])
@pytest.mark.parametrize("suffix", [".bin", ""], ids=["binary", "python"])
@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_an_archive_reads_as_the_folder_it_was_made_from(tmp_path, name, split, suffix, form):
    published = PUBLISHED[name]
    inner = published.binary if suffix else published.python
    folder, packed = tmp_path / inner, tmp_path / "packed"
    folder.mkdir()
    packed.mkdir()
    for other in ("train", "test"):
        for file, content in corpus.files(Random(1), name, other, suffix).items():
            (folder / file).write_bytes(content)
    (folder / "readme.html").write_text("hello")
    path = packed / published.archives[0 if suffix else 1].name
    with tarfile.open(path, "w:gz", format=form) as made:
        made.add(folder, inner)
    expected = load_cifar(folder, name, split)
    for place in (packed, path, str(path)):
        same(load(name, split, place), expected)
    assert sorted(os.listdir(packed)) == [path.name]


def test_what_lies_unpacked_goes_first_and_the_binary_archive_before_the_other(tmp_path, batch):
    content = corpus.python_file(Random(2), "cifar10", "test", 2)
    python = tar([Member(b"cifar-10-batches-py/test_batch", content)])
    (tmp_path / "cifar-10-python.tar.gz").write_bytes(zipped(python))
    from_python = load_cifar(tmp_path, "cifar10", "test")
    (tmp_path / NAME).write_bytes(zipped(tar([Member(FILE, batch)])))
    from_binary = load_cifar(tmp_path, "cifar10", "test")
    (tmp_path / "test_batch.bin").write_bytes(corpus.binary_file(Random(3), "cifar10", "test"))
    from_folder = load_cifar(tmp_path, "cifar10", "test")
    pictures = [d.images.tobytes() for d in (from_python, from_binary, from_folder)]
    assert len(set(pictures)) == 3
    assert pictures[1][:9] == batch[1:10]


def fails(match, path, content, split="test"):
    """The archive is refused, with its name and nothing left behind."""
    path.write_bytes(content)
    before = sorted(os.listdir(path.parent))
    with pytest.raises(DataError, match=match) as caught:
        load_cifar(path.parent, "cifar10", split)
    assert str(path) in str(caught.value)
    assert str(caught.value).isprintable()
    assert sorted(os.listdir(path.parent)) == before


PAX = b"30 mtime=1234567890.123456789\n"
MEMBERS = {
    "a path upwards": (Member(b"../owned"), "'../owned' leads out of the archive"),
    "a path up and down": (Member(b"a/../../owned"), "leads out"),
    "a path up within": (Member(FOLDER.encode() + b"/../x"), "leads out"),
    "an absolute path": (Member(b"/tmp/owned"), "'/tmp/owned' leads out"),
    "no name": (Member(b""), "leads out"),
    "a control character": (Member(b"\x1b[31mred"), r"'\\x1b\[31mred' is not plain text"),
    "a name in bytes": (Member(b"\xff\xfe"), "is not plain text"),
    "a long name": (Member(FILE, magic=b"ustar\x0000" + bytes(80) + b"../up"), "leads out"),
    "a symbolic link": (Member(FILE, kind=b"2", link=b"/etc/passwd"), "is a symbolic link"),
    "a hard link": (Member(FILE, kind=b"1", link=b"/etc/passwd"), "is a hard link"),
    "a character device": (Member(FILE, kind=b"3"), "is a character device"),
    "a block device": (Member(FILE, kind=b"4"), "is a block device"),
    "a pipe": (Member(FILE, kind=b"6"), "is a pipe"),
    "a sparse file": (Member(FILE, kind=b"S"), "is a sparse file"),
    "a GNU long name": (Member(b"././@LongLink", b"x" * 200, b"L"), "is a GNU long name"),
    "an unknown kind": (Member(FILE, kind=b"Z"), "is of kind 'Z'"),
    "a folder with contents": (Member(b"d/", b"x", b"5"), "folder 'd/' claims 1 bytes"),
    "PAX: a path": (Member(b"p", b"13 path=../x\n", b"x"), "extended header with 'path'"),
    "PAX: a size": (Member(b"p", b"19 size=9999999999\n", b"x"), "extended header with 'size'"),
    "PAX: sparse": (Member(b"p", b"22 GNU.sparse.major=1\n", b"g"), "with 'GNU.sparse.major'"),
    "PAX: a link": (Member(b"p", b"17 linkpath=/etc\n", b"x"), "with 'linkpath'"),
    "PAX: damaged": (Member(b"p", b"99 mtime=1\n", b"x"), "damaged extended header"),
    "PAX: nothing": (Member(b"p", b"0 mtime=1\n", b"x"), "damaged extended header"),
    "PAX: large": (Member(b"p", PAX * 3000, b"x"), "extended header of 90,000 bytes"),
    "PAX: a bomb": (Member(b"p", b"", b"x", claim=b"77777777777\0"), "header of 8,589,934,591"),
    "too small": (Member(FILE, b"x"), f"{FOLDER}/test_batch.bin has 1 bytes; 2 records"),
    "a claim of gigabytes": (Member(FILE, b"x", claim=b"77777777777\0"), "has 8,589,934,591 bytes"),
    "gigabytes passed over": (Member(b"x", b"x", claim=b"77777777777\0"), "middle of a member"),
    "a size in base 256": (Member(b"x", claim=b"\x80" + bytes(11)), "'x' has no sensible size"),
    "a negative size": (Member(b"x", claim=b"-1"), "'x' has no sensible size"),
    "no size": (Member(b"x", claim=b""), "'x' has no sensible size"),
    "a wrong checksum": (Member(b"x", checksum=b"0000000\0"), "header's checksum is wrong"),
}


@pytest.mark.parametrize(("member", "match"), MEMBERS.values(), ids=MEMBERS)
@pytest.mark.parametrize("first", [True, False], ids=["first", "last"])
def test_a_member_that_no_data_set_has_is_refused(tmp_path, batch, member, match, first):
    good = Member(FILE, batch)
    if member.name == FILE and member.kind == b"0":
        members = [member]
    else:
        members = [member, good] if first else [good, member]
    fails(match, tmp_path / NAME, zipped(tar(members)))


def test_extended_headers_that_say_nothing_of_note_are_passed_over(tmp_path, batch):
    headers = [Member(b"p", PAX, b"x"), Member(b"g", b"14 uname=alex\n" * 3, b"g")]
    (tmp_path / NAME).write_bytes(zipped(tar([*headers, Member(b"./" + FILE, batch)])))
    assert load_cifar(tmp_path, "cifar10", "test").images.tobytes()[:9] == batch[1:10]


def test_members_that_are_there_twice_or_too_many_are_refused(tmp_path, batch):
    good = Member(FILE, batch)
    fails("two members 'cifar-10-batches-bin/test", tmp_path / NAME, zipped(tar([good, good])))
    members = [Member(b"%d" % i) for i in range(64)]
    fails("more than 64 members", tmp_path / NAME, zipped(tar([good, *members])))


def test_a_missing_member_is_named(tmp_path, batch):
    content = zipped(tar([Member(FILE, batch)]))
    fails(
        "lacks data_batch_1.bin, .*, data_batch_5.bin; fetch it", tmp_path / NAME, content, "train"
    )


def test_a_label_out_of_range_is_named_with_archive_and_member(tmp_path, batch):
    content = zipped(tar([Member(FILE, b"\x0a" + batch[1:])]))
    fails(f"{NAME}: {FILE.decode()}: record 0 has label 10", tmp_path / NAME, content)


def test_streams_that_are_cut_off_damaged_or_longer_than_they_should_be(tmp_path, batch):
    path, content = tmp_path / NAME, tar([Member(FILE, batch)])
    good = zipped(content)
    fails("is empty or cut off", path, b"")
    for length in (1, 10, 18, len(good) // 2, len(good) - 9, len(good) - 1):
        fails("is empty or cut off", path, good[:length])
    fails("no gzip file: incorrect header check", path, content)
    fails("damaged or no gzip file: incorrect data check", path, good[:-8] + b"wild" + good[-4:])
    fails("damaged or no gzip file: incorrect length", path, good[:-4] + b"wild")
    for more in (b"\0", good, zipped(b""), b"x" * 100_000):
        fails("further bytes after the end of its gzip stream", path, good + more)
    fails("further bytes after the end of its tar", path, zipped(content + bytes(9999) + b"x"))
    fails("ends in the middle of a member", path, zipped(content[:-1024]))
    fails("ends in the middle of a member", path, zipped(b""))
    fails("a header's checksum is wrong", path, zipped(b"<html>" * 200))


def bomb(size):
    """A gzip stream of so many zeros, a thousandth as long."""
    machine = zlib.compressobj(9, wbits=31)
    parts = [machine.compress(bytes(1_000_000)) for _ in range(size // 1_000_000)]
    return b"".join([*parts, machine.flush()])


def test_a_bomb_is_refused_in_bounded_memory(tmp_path, monkeypatch):
    monkeypatch.undo()  # the published counts: 184 MB unpacked
    head = Member(b"zeros", claim=b"77777777777\0").bytes()
    machine = zlib.compressobj(9, wbits=31)
    content = machine.compress(head) + b"".join(
        machine.compress(bytes(1_000_000)) for _ in range(400)
    )
    (tmp_path / NAME).write_bytes(content + machine.flush())
    tracemalloc.start()
    with pytest.raises(DataError, match="unpacks to more than 185,428,576 bytes"):
        list(
            in_archive(tmp_path / NAME, FOLDER, ("x",), PUBLISHED["cifar10"].archive_limit(".bin"))
        )
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1_000_000


def test_a_bomb_is_refused_wherever_it_is(tmp_path, batch):
    path, limit = tmp_path / NAME, r"unpacks to more than 1,100,817 "
    fails(limit, path, zipped(tar([Member(b"zeros", bytes(2_000_000)), Member(FILE, batch)])))
    fails(limit, path, zipped(tar([Member(FILE, batch)]) + bytes(2_000_000)))
    fails("checksum|further bytes|unpacks", path, bomb(2_000_000))
    fails("has 1,200,000 bytes; it may unpack to 1,100,817", path, os.urandom(1_200_000))


def test_a_gzip_header_of_any_length_is_passed_over_quickly(tmp_path, batch):
    good = gzip.compress(tar([Member(FILE, batch)]), mtime=0)
    named = good[:3] + b"\x08" + good[4:10] + b"n" * 900_000 + b"\0" + good[10:]
    (tmp_path / NAME).write_bytes(named)
    assert len(load_cifar(tmp_path, "cifar10", "test")) == 2


@pytest.mark.parametrize("chunk", [1, 7, 512, 100_000])
def test_chunks_do_not_matter(tmp_path, monkeypatch, batch, chunk):
    (tmp_path / NAME).write_bytes(zipped(tar([Member(FILE, batch)]), 9))
    expected = load_cifar(tmp_path, "cifar10", "test")
    monkeypatch.setattr(archive, "CHUNK", chunk)
    same(load_cifar(tmp_path, "cifar10", "test"), expected)


def test_class_names_come_from_the_archive(tmp_path, batch):
    names = [f"kind {i}" for i in range(10)]
    text = Member(f"{FOLDER}/batches.meta.txt".encode(), "\n".join(names).encode())
    for members in ([text, Member(FILE, batch)], [Member(FILE, batch), text]):
        (tmp_path / NAME).write_bytes(zipped(tar(members)))
        assert load_cifar(tmp_path, "cifar10", "test").classes == tuple(names)
    text.content = b"\xff" * 70_000
    (tmp_path / NAME).write_bytes(zipped(tar([text, Member(FILE, batch)])))
    assert load_cifar(tmp_path, "cifar10", "test").classes[0] == "airplane"


def test_a_reader_that_stops_early_leaves_no_file_open(tmp_path, batch):
    (tmp_path / NAME).write_bytes(zipped(tar([Member(FILE, batch)])))
    entries = in_archive(tmp_path / NAME, FOLDER, ("test_batch.bin",), 10**6)
    entry = next(entries)
    assert entry.stream.read(5) == batch[:5]
    assert entry.stream.read(10**9) == batch[5:]
    assert entry.stream.read(1) == b""
    entries.close()  # warnings are errors, and an open file is one


def test_a_device_in_place_of_the_archive_is_not_opened(tmp_path):
    (tmp_path / NAME).symlink_to("/dev/zero")
    with pytest.raises(DataError, match="no CIFAR-10 in"):
        load_cifar(tmp_path, "cifar10", "test")
    os.mkfifo(tmp_path / "cifar-10-python.tar.gz")
    with pytest.raises(DataError, match="no CIFAR-10 in"):
        load_cifar(tmp_path, "cifar10", "test")


def test_the_writer_of_these_tests_writes_what_tarfile_reads(batch):
    made = tarfile.open(fileobj=io.BytesIO(tar([Member(FILE, batch)])))  # noqa: SIM115
    with made:
        assert made.extractfile(FILE.decode()).read() == batch
