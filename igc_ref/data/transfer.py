"""One attempt to bring one file from one address: resumed, bounded in time and in bytes.

A server may be slow, stuck, mistaken or hostile. Whatever it does, an attempt ends with the whole
number of bytes, or with a `TransferError` that says why and whether to come back later.
"""

from __future__ import annotations

import http.client
import os
import re
import stat
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Protocol
from urllib.error import HTTPError, URLError
from urllib.parse import urljoin, urlsplit

from tqdm import tqdm

from igc_ref.data.published import PublishedFile
from igc_ref.data.watch import Watch, watched_opener
from igc_ref.errors import DataError

__all__ = ["Limits", "TransferError", "proxy_of", "transfer"]

CHUNK = 1 << 18
REDIRECTS = 5
LATER = {408, 425, 429, 500, 502, 503, 504}  # statuses after which another try makes sense


class TransferError(Exception):
    """An attempt that failed; `again` tells whether the same address may do better later."""

    def __init__(self, reason: str, *, again: bool) -> None:
        super().__init__(reason)
        self.again = again


@dataclass(frozen=True)
class Limits:
    """How long to be patient, in seconds and in bytes a second.

    Parameters
    ----------
    connect : float
        For a connection to be made.
    window : float
        A connection is cut when it has brought less than `speed` x `window` bytes in so long.
    speeds : tuple of float
        The least speed in the first round of addresses, in the second, ...; who is too slow for
        one round may still serve in the next.
    pause : float
        Between two rounds.
    lock : float
        For another process that fetches the same set.
    """

    connect: float = 15.0
    window: float = 30.0
    speeds: tuple[float, ...] = (100_000.0, 500.0)
    pause: float = 2.0
    lock: float = 7200.0


class _Source(Protocol):
    def read1(self, size: int, /) -> bytes: ...


def transfer(address: str, part: Path, wanted: PublishedFile, limits: Limits, speed: float) -> None:
    """Bring `part` to the size of the file wanted, going on after what it holds already.

    Parameters
    ----------
    address : str
        Of scheme http, https or file.
    part : Path
        Where to write; kept as it is when an attempt fails.
    wanted : PublishedFile
        Its size and how it begins; the checksum is left to the caller.
    limits : Limits
    speed : float
        The least number of bytes a second.

    Raises
    ------
    TransferError
        If this address does not serve, now or ever.
    DataError
        If `part` cannot be written.
    """
    size = wanted.size
    with _opened_for_writing(part) as file, Watch(limits.window, speed) as watch:
        offset = file.seek(0, os.SEEK_END)
        if offset > size:
            offset = file.truncate(0)
        if offset == size:
            return
        try:
            with _source(address, offset, size, limits, watch) as (source, start):
                file.truncate(start)  # 0 if the server does not resume
                _copy(source, file, start, wanted, watch)
        except (DataError, TransferError):
            raise
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise TransferError(watch.verdict or _shown(error), again=True) from error


def _copy(source: _Source, file: BinaryIO, start: int, wanted: PublishedFile, watch: Watch) -> None:
    """Append the bytes from `start` to the end."""
    size, title = wanted.size, Path(file.name).name.removesuffix(".part")
    with tqdm(
        total=size, initial=start, desc=title, unit="B", unit_scale=True, leave=False, disable=None
    ) as bar:
        while start < size:
            block = source.read1(min(CHUNK, size - start))
            if not block:
                reason = watch.verdict or f"it ended after {start:,} of {size:,} bytes"
                raise TransferError(reason, again=True)
            if start == 0 and not block.startswith(wanted.magic[: len(block)]):
                reason = f"it sent something that does not begin like {wanted.name}"
                raise TransferError(reason, again=False)
            _write(file, block)
            start += len(block)
            watch.received += len(block)
            bar.update(len(block))


@contextmanager
def _opened_for_writing(path: Path) -> Iterator[BinaryIO]:
    """Open a plain file for appending, and see that what was written is on the disk."""
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0)
    flags |= getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)  # a pipe must not block us
    try:
        with open(path, "ab", 0, opener=lambda name, _: os.open(name, flags, 0o666)) as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise DataError(f"cannot write {path}: it is no plain file")
            yield file
            os.fsync(file.fileno())
    except OSError as error:
        raise DataError(f"cannot write {path}: {error.strerror or error}") from error


def _write(file: BinaryIO, block: bytes) -> None:
    view = memoryview(block)
    try:
        while view:
            view = view[file.write(view) :]
    except OSError as error:
        raise DataError(f"cannot write {file.name}: {error.strerror or error}") from error


@contextmanager
def _source(
    address: str, offset: int, size: int, limits: Limits, watch: Watch
) -> Iterator[tuple[_Source, int]]:
    """Open an address; yield what to read from and the offset at which it begins."""
    if urlsplit(address).scheme == "file":
        path = Path(urllib.request.url2pathname(urlsplit(address).path))
        if not path.is_file() or path.stat().st_size != size:
            found = f"has {path.stat().st_size:,} bytes" if path.is_file() else "is no file"
            raise TransferError(f"{path} {found}; {size:,} bytes are needed", again=False)
        with path.open("rb") as file:
            file.seek(offset)
            yield file, offset
        return
    with _response(address, offset, limits, watch) as response:
        yield response, _checked(response, offset, size)


def _response(address: str, offset: int, limits: Limits, watch: Watch) -> Any:
    """Ask for a file from `offset` on, following a few redirects, and return the answer."""
    opener = watched_opener(watch)
    for _ in range(REDIRECTS + 1):
        headers = {"User-Agent": "igc-ref", "Accept-Encoding": "identity"}
        if offset:
            headers["Range"] = f"bytes={offset}-"
        request = urllib.request.Request(address, headers=headers)
        try:
            return opener.open(request, timeout=limits.connect)
        except HTTPError as error:
            with error:  # its body is not read: it may have no end
                if error.code == 416 and offset:
                    offset = 0  # the file there is not as long: ask for all of it
                elif error.code in (301, 302, 303, 307, 308):
                    address = _redirected(address, error.headers.get("Location"))
                else:
                    reason = f"HTTP {error.code} {str(error.reason)[:60]!a}"
                    raise TransferError(reason, again=error.code in LATER) from error
    raise TransferError(f"it redirects more than {REDIRECTS} times", again=False)


def _redirected(address: str, location: str | None) -> str:
    target = urljoin(address, location or "")
    old, new = urlsplit(address).scheme, urlsplit(target).scheme
    if not location or new not in ("http", "https") or (old, new) == ("https", "http"):
        raise TransferError(f"it redirects to {str(location)[:100]!a}", again=False)
    return target


def _checked(response: Any, offset: int, size: int) -> int:
    """Return where an answer begins, if it announces what was asked for."""
    kind, length = response.headers.get_content_type(), response.headers.get("Content-Length")
    if kind in ("text/html", "application/xhtml+xml"):
        raise TransferError("it sent a web page", again=False)
    if response.status == 206:
        announced = str(response.headers.get("Content-Range"))
        if not re.fullmatch(rf"bytes {offset}-{size - 1}/({size}|\*)", announced):
            raise TransferError(f"it sent the range {announced[:60]!a}", again=False)
    elif response.status == 200:
        offset = 0
    else:
        raise TransferError(f"HTTP {response.status}", again=False)
    if length is not None and length.strip() != str(size - offset):
        text = f"it announced {length[:30]!a} bytes, not {size - offset:,}"
        raise TransferError(text, again=False)
    return offset


def proxy_of(address: str) -> str | None:
    """Name the proxy, if any, that the environment prescribes for an address."""
    parts = urlsplit(address)
    proxy = urllib.request.getproxies().get(parts.scheme)
    if not proxy or urllib.request.proxy_bypass(parts.netloc):
        return None
    return urlsplit(proxy if "//" in proxy else f"//{proxy}").hostname


def _shown(error: Exception) -> str:
    reason = error.reason if isinstance(error, URLError) else error
    text = getattr(reason, "strerror", None) or str(reason) or type(reason).__name__
    return ascii(str(text).strip()[:150])[1:-1]  # it may quote the server
