"""Fetching the published files: from several addresses, checked, and never half a file.

Bytes arrive in ``NAME.part``, which is kept when a connection breaks and gone on with the next
time. Only a file of the published size and checksum gets the name that readers look for. A lock
keeps a second process from writing the same file: it waits, and uses what the first one fetched.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from urllib.parse import urlsplit

from igc_ref.data.published import PUBLISHED, SVHN, SVHN_PARTS, PublishedFile
from igc_ref.data.transfer import Limits, TransferError, proxy_of, transfer
from igc_ref.errors import DataError
from igc_ref.report import Report, silent

fcntl: ModuleType | None
try:
    import fcntl
except ImportError:  # not a Unix
    fcntl = None

__all__ = ["CACHE", "URL", "cache_folder", "fetch"]

URL, CACHE = "IGC_REF_DATA_URL", "IGC_REF_CACHE"  # environment variables
LOOK = 0.2  # seconds between two looks at a lock


@dataclass(frozen=True)
class _Wanted:
    """A file to have, in one of several forms of which the first is the best."""

    title: str  # of the set
    lock: str
    files: tuple[PublishedFile, ...]


@dataclass(frozen=True)
class _Offer:
    file: PublishedFile
    address: str


def fetch(
    name: str,
    folder: str | Path | None = None,
    report: Report = silent,
    limits: Limits | None = None,
    split: str = "train",
) -> Path:
    """Return where a published set lies, checked; fetch it if it is not there yet.

    Parameters
    ----------
    name : {"cifar10", "cifar100", "svhn", "svhn_extra"}
        Which set.
    folder : path, optional
        Where to keep it; by default the `cache_folder`.
    report : callable
        Receives lines of text: what is fetched from where, and what went wrong on the way.
    limits : Limits, optional
        How long to be patient.
    split : {"train", "test"}
        Of SVHN, the split whose files are wanted. An archive of CIFAR holds both.

    Returns
    -------
    Path
        Of CIFAR the binary layout's ``.tar.gz``, or the python layout's if no address had the
        former; of SVHN the folder of the ``.mat`` files. Sizes and SHA-256 are those published.

    Raises
    ------
    DataError
        If no address serves, the folder cannot be written, or another process holds the lock for
        too long. The message says what to fetch by hand, and where to put it.
    """
    limits = limits or Limits()
    place = Path(folder) if folder is not None else cache_folder()
    wanted = _wanted(name, split)
    try:
        paths = [_ensure(one, place, report, limits) for one in wanted]
    except OSError as error:
        raise DataError(f"cannot use {error.filename or place}: {error.strerror}") from error
    return place if name in SVHN_PARTS else paths[0]


def _wanted(name: str, split: str) -> list[_Wanted]:
    """List the files that a split is made of."""
    if name in PUBLISHED:
        return [_Wanted(PUBLISHED[name].title, f"{name}.lock", PUBLISHED[name].archives)]
    if name in SVHN_PARTS:
        parts = SVHN_PARTS[name][split]
        return [_Wanted("SVHN", "svhn.lock", (SVHN[part].file,)) for part in parts]
    known = (*PUBLISHED, *SVHN_PARTS)
    raise DataError(f"name={name!r} is unknown; choose one of {', '.join(known)}")


def _ensure(wanted: _Wanted, place: Path, report: Report, limits: Limits) -> Path:
    """Return the path of a file that is there and right; fetch it if there is none."""
    for file in wanted.files:
        if not _problem(place / file.name, file):
            return place / file.name
    offers = _offers(wanted)
    place.mkdir(parents=True, exist_ok=True)
    with _locked(place / wanted.lock, report, limits.lock) as alone:
        return _present(place, wanted, report) or _fetch(
            wanted, offers, place, "" if alone else f".{os.getpid()}", report, limits
        )


def cache_folder() -> Path:
    """Return ``$IGC_REF_CACHE``, or ``igc-ref`` in the user's cache folder (XDG).

    Examples
    --------
    >>> cache_folder().is_absolute()
    True
    """
    if own := os.environ.get(CACHE):
        return Path(own).expanduser().absolute()
    base = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache")
    if not base.is_absolute():  # the specification: a relative one is to be ignored
        base = Path("~/.cache")
    try:
        return base.expanduser() / "igc-ref"
    except RuntimeError as error:
        raise DataError(f"there is no home folder for a cache; set {CACHE}") from error


def _offers(wanted: _Wanted) -> list[_Offer]:
    """List forms and addresses in the order to try them, the best form first."""
    given = os.environ.get(URL)
    entries = None if given is None else [e.strip() for e in given.split(",") if e.strip()]
    offers = []
    for file in wanted.files:
        for entry in file.bases if entries is None else entries:
            _check_address(entry)
            if not entry.endswith((".tar.gz", ".mat")):
                offers.append(_Offer(file, f"{entry.rstrip('/')}/{file.name}"))
            elif entry.rpartition("/")[2] == file.name:
                offers.append(_Offer(file, entry))
    return offers


def _check_address(address: str) -> None:
    parts = urlsplit(address)
    if parts.scheme not in ("http", "https", "file") or "@" in parts.netloc:
        without = address.rpartition("@")[2][:100]  # no password in a message
        raise DataError(
            f"{URL}: {without!a} is not an address of http://, https:// or file:// without a user"
        )
    if parts.scheme == "file" and parts.netloc not in ("", "localhost"):
        raise DataError(f"{URL}: {address[:100]!a} is on another machine; write file:///folder")


def _problem(path: Path, published: PublishedFile) -> str | None:
    """Say in what a file is not the one published, or nothing."""
    if not path.is_file():
        return "it is not there"
    if (size := path.stat().st_size) != published.size:
        return f"it has {size:,} bytes, not {published.size:,}"
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if digest != published.sha256:
        return f"its SHA-256 is {digest}, not {published.sha256}"
    return None


def _present(place: Path, wanted: _Wanted, report: Report) -> Path | None:
    """Return a file that has come meanwhile; set aside one that is damaged."""
    for file in wanted.files:
        path = place / file.name
        problem = _problem(path, file)
        if problem is None:
            return path
        if path.is_file():
            aside = path.with_name(path.name + ".damaged")
            os.replace(path, aside)
            report(f"{path} is not what was published ({problem}); it is now {aside.name}")
    return None


def _fetch(
    wanted: _Wanted,
    offers: list[_Offer],
    place: Path,
    mark: str,
    report: Report,
    limits: Limits,
) -> Path:
    """Try the addresses in turn, in the next round those that may do better."""
    failures: dict[str, str] = {}
    remaining = offers
    for number, speed in enumerate(limits.speeds):
        if number and remaining:
            time.sleep(limits.pause)
        candidates, remaining = remaining, []
        for offer in candidates:
            try:
                path = _attempt(offer, place, mark, report, limits, speed)
            except TransferError as error:
                report(f"{offer.address}: {error}")
                failures[offer.address] = str(error)
                if error.again:
                    remaining.append(offer)
            else:
                _remove_parts(wanted, place, mark)  # those of the other form
                return path
    if mark:  # nobody would go on with them
        _remove_parts(wanted, place, mark)
    raise DataError(_advice(wanted, failures, place))


def _remove_parts(wanted: _Wanted, place: Path, mark: str) -> None:
    for file in wanted.files:
        (place / f"{file.name}{mark}.part").unlink(missing_ok=True)


def _attempt(
    offer: _Offer, place: Path, mark: str, report: Report, limits: Limits, speed: float
) -> Path:
    """Fetch from one address; give the file its name once it is right and on the disk."""
    file, path = offer.file, place / offer.file.name
    part = place / f"{file.name}{mark}.part"
    had = part.stat().st_size if part.is_file() else 0
    proxy = proxy_of(offer.address)
    report(
        f"fetching {offer.address} ({file.size / 1e6:,.0f} MB"
        + (f", {had / 1e6:,.0f} of them here" if had else "")
        + (f", through the proxy {proxy}" if proxy else "")
        + f") into {place}"
    )
    transfer(offer.address, part, file, limits, speed)
    if problem := _problem(part, file):
        part.unlink()
        reason = f"what it sent is not what was published ({problem}); deleted"
        raise TransferError(reason, again=had > 0)  # an earlier source may be the guilty one
    os.replace(part, path)
    return path


def _advice(wanted: _Wanted, failures: dict[str, str], place: Path) -> str:
    file = wanted.files[0]
    tried = "; ".join(f"{address}: {reason}" for address, reason in failures.items())
    return (
        f"cannot fetch {wanted.title} ({tried or f'{URL} names no address'}). "
        f"Fetch {file.name} ({file.size:,} bytes, SHA-256 {file.sha256}) from "
        f"{' or '.join(base + file.name for base in file.bases)} on a machine that can, "
        f"and put it into {place}, or into any folder and name that with --data-dir; or set "
        f"{URL} to a mirror that this machine reaches"
    )


@contextmanager
def _locked(path: Path, report: Report, patience: float) -> Iterator[bool]:
    """Hold the lock of a set; yield False where this system or file system has no locks."""
    deadline = time.monotonic() + patience
    told = False
    while True:
        file = os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0), 0o666)
        try:
            taken = _take(file, path)
            if taken is not False:
                try:
                    yield taken is True
                finally:
                    path.unlink(missing_ok=True)
                return
        finally:
            os.close(file)
        if not told:
            report(f"another process is fetching the same set; waiting for it ({path})")
            told = True
        if time.monotonic() > deadline:
            raise DataError(f"another process has held {path} for {patience:,.0f} s; gave up")
        time.sleep(LOOK)


def _take(file: int, path: Path) -> bool | None:
    """Take the lock: True; False if another process has it; None where there are no locks."""
    if fcntl is None:
        return None
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # some network file systems
        return None
    # Whoever had it before us has removed the file, and a third may hold a new one of that name.
    return path.exists() and os.path.samestat(os.fstat(file), path.stat())
