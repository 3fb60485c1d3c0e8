"""Fetching the published files into the cache folder: mirrors in order, checked by SHA-256.

pooch downloads. A file gets the name that the readers look for only once its checksum is right, so
the cache never holds half a file. A second process that wants the same file waits for the first.
"""

from __future__ import annotations

import errno
import os
import shutil
import sys
from pathlib import Path
from typing import BinaryIO
from urllib.parse import urlsplit
from urllib.request import url2pathname

from igc_ref.data.published import PUBLISHED, SLOW, SVHN, SVHN_PARTS, PublishedFile
from igc_ref.errors import DataError, choice, one_line, user_path
from igc_ref.files import locked
from igc_ref.report import Report, progress_bar, silent

URL, CACHE = "IGC_REF_DATA_URL", "IGC_REF_CACHE"  # environment variables
PATIENCE = 7200.0  # seconds to wait for another process that fetches the same file
TIMEOUT = (15.0, 60.0)  # seconds to connect, and between two pieces that arrive


def fetch(
    name: str, folder: str | Path | None = None, report: Report = silent, split: str = "train"
) -> Path:
    """Return where a published data set lies, checked; download it if it is not there yet.

    Parameters
    ----------
    name : {"cifar10", "cifar100", "svhn", "svhn_extra"}
        Which set.
    folder : path, optional
        Where to keep it; by default the `cache_folder`.
    report : callable
        Receives lines of text: what is downloaded from where, and which mirror failed.
    split : {"train", "test"}
        For SVHN, the split whose files are wanted. An archive of CIFAR holds both splits.

    Returns
    -------
    Path
        For CIFAR an archive, of the binary or of the python layout; for SVHN the folder of the
        ``.mat`` files. Sizes and SHA-256 are those published.

    Raises
    ------
    DataError
        If no mirror serves, the folder cannot be written, or another process fetches for too
        long. The message says what to download by hand, and where to put it.

    Examples
    --------
    >>> fetch("cifar10")  # doctest: +SKIP
    PosixPath('/home/me/.cache/igc-ref/cifar-10-binary.tar.gz')
    """
    choice("name", name, (*PUBLISHED, *SVHN_PARTS), DataError)
    choice("split", split, ("train", "test"), DataError)
    place = cache_folder() if folder is None else user_path("folder", folder)
    try:
        if name in PUBLISHED:
            return _ensure(PUBLISHED[name].title, PUBLISHED[name].archives, place, report)
        for part in SVHN_PARTS[name][split]:
            _ensure("SVHN", (SVHN[part].file,), place, report)
    except OSError as error:
        reason = error.strerror or one_line(error)
        raise DataError(f"cannot use {error.filename or place}: {reason}") from error
    return place


def cache_folder() -> Path:
    """Return ``$IGC_REF_CACHE``, or ``igc-ref`` in the user's cache folder.

    Examples
    --------
    >>> cache_folder().is_absolute()
    True
    """
    import pooch  # type: ignore[import-untyped]  # here: slow to import, and rarely needed

    try:
        return Path(os.environ.get(CACHE) or pooch.os_cache("igc-ref")).expanduser().absolute()
    except RuntimeError as error:
        raise DataError(f"there is no home folder for a cache; set {CACHE}") from error


def _ensure(title: str, files: tuple[PublishedFile, ...], place: Path, report: Report) -> Path:
    """Return the path of one of these forms of a set; download one if there is none."""
    if found := _present(files, place):
        return found
    offers = _offers(files)
    place.mkdir(parents=True, exist_ok=True)
    lock = place / f".{files[0].name}.lock"
    for patience in (0.0, PATIENCE):
        try:
            with locked(lock, patience, report):
                return _present(files, place) or _download(title, files, offers, place, report)
        except TimeoutError:
            if not patience:
                report(f"another process is fetching {title}; waiting for it ({lock})")
    raise DataError(f"another process has held {lock} for {PATIENCE:,.0f} s")


def _present(files: tuple[PublishedFile, ...], place: Path) -> Path | None:
    """Return the first of these files that is there with the published size and checksum."""
    paths = [(file, place / file.name) for file in files]
    return next((p for file, p in paths if p.is_file() and not file.problem(p)), None)


def _offers(files: tuple[PublishedFile, ...]) -> list[tuple[PublishedFile, str]]:
    """List files and addresses in the order to try them: as the environment says, or fast first."""
    if (given := os.environ.get(URL)) is None:
        published = [(file, base + file.name) for file in files for base in file.bases]
        return sorted(published, key=lambda offer: offer[1].startswith(SLOW))
    offers = []
    entries = [entry.strip() for entry in given.split(",") if entry.strip()]
    for file in files:
        for entry in entries:
            _check_address(entry)
            if not entry.endswith((".tar.gz", ".mat")):
                offers.append((file, f"{entry.rstrip('/')}/{file.name}"))
            elif entry.rpartition("/")[2] == file.name:
                offers.append((file, entry))
    return offers


def _check_address(address: str) -> None:
    parts = urlsplit(address)
    local = parts.scheme == "file" and parts.netloc in ("", "localhost")
    if (parts.scheme not in ("http", "https") and not local) or "@" in parts.netloc:
        without = address.rpartition("@")[2][:100]  # no password in a message
        raise DataError(
            f"{URL}: {without!a} is not an address of http://, https:// or file:/// without a user"
        )


def _download(
    title: str,
    files: tuple[PublishedFile, ...],
    offers: list[tuple[PublishedFile, str]],
    place: Path,
    report: Report,
) -> Path:
    """Try the addresses in turn; return the path of the first file that is right."""
    failures = []
    for file, address in offers:
        report(f"fetching {address} ({file.size / 1e6:,.0f} MB) into {place}")
        try:
            return _retrieve(file, address, place)
        except (OSError, ValueError) as error:  # an error of requests is an OSError
            if isinstance(error, OSError) and error.errno == errno.ENOSPC:
                raise  # another mirror would not help
            failures.append(f"{address}: {_reason(error)}")
            report(failures[-1])
    file = files[0]
    raise DataError(
        f"cannot fetch {title} ({'; '.join(failures) or f'{URL} names no address'}). "
        f"Download {file.name} ({file.size:,} bytes, SHA-256 {file.sha256}) from "
        f"{' or '.join(base + file.name for base in file.bases)}, for instance with "
        f"`curl -L -C - -O`, which resumes, and put it into {place}, or into any folder and name "
        f"that with --data-dir; or set {URL} to a mirror that this machine reaches"
    )


def _retrieve(file: PublishedFile, address: str, place: Path) -> Path:
    """Download a file from one address; give it its name once its checksum is right."""
    import pooch

    def download(url: str, output: str, _: object) -> None:
        if url.startswith("file:"):
            shutil.copyfile(url2pathname(urlsplit(url).path), output)
            return
        headers = {"User-Agent": "igc-ref", "Accept-Encoding": "identity"}
        http = pooch.HTTPDownloader(chunk_size=1 << 18, timeout=TIMEOUT, headers=headers)
        with (
            open(output, "wb") as stream,
            progress_bar().wrapattr(
                _Limited(stream, file.size), "write", file.size,
                desc=file.name, leave=False, disable=None if sys.stderr else True,
            ) as shown,
        ):  # fmt: skip
            http(url, shown, None)

    logger, incoming = pooch.get_logger(), place / f".{file.name}.incoming"
    disabled = logger.disabled
    try:
        logger.disabled = True  # `report` has said it
        pooch.retrieve(address, f"sha256:{file.sha256}", file.name, incoming, downloader=download)
        (incoming / file.name).chmod(0o644)  # pooch's are readable by their owner alone
        return (incoming / file.name).replace(place / file.name)
    finally:
        logger.disabled = disabled
        shutil.rmtree(incoming, ignore_errors=True)  # with what a killed process left there


class _Limited:
    """A file that refuses more bytes than were published."""

    def __init__(self, stream: BinaryIO, size: int) -> None:
        self.stream, self.left, self.flush = stream, size, stream.flush

    def write(self, data: bytes) -> int:
        self.left -= len(data)
        if self.left < 0:
            raise ValueError("it sent more bytes than were published")
        return self.stream.write(data)


def _reason(error: Exception) -> str:
    """Return why an address failed; for a connection, without the layers around the reason."""
    inner = getattr(error.args[0], "reason", error) if error.args else type(error).__name__
    return one_line(inner, 300)
