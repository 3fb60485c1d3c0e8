"""Downloads: whatever a server does, in the end there is the published file, or a clear error."""

import hashlib
import os
import random
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import time
import tracemalloc
from dataclasses import replace
from pathlib import Path

import pytest

from igc_ref import data
from igc_ref.data import download, transfer
from igc_ref.data.download import cache_folder, fetch
from igc_ref.data.published import PUBLISHED, PublishedFile
from igc_ref.data.transfer import Limits
from igc_ref.errors import DataError
from tests.support.server import breaks_off, raw, serving, slowly, stalls, well

BINARY = b"\x1f\x8b" + random.Random(0).randbytes(300_000)
PYTHON = b"\x1f\x8b" + random.Random(1).randbytes(200_000)
NAME, OTHER = "cifar-10-binary.tar.gz", "cifar-10-python.tar.gz"
FAST = Limits(connect=2.0, window=0.3, speeds=(100_000.0, 10.0), pause=0.01, lock=20.0)


def archives(bases=("http://127.0.0.1:9/",)):
    return tuple(
        PublishedFile(name, len(content), hashlib.sha256(content).hexdigest(), bases)
        for name, content in ((NAME, BINARY), (OTHER, PYTHON))
    )


@pytest.fixture(autouse=True)
def _small_archives(monkeypatch):
    monkeypatch.setitem(PUBLISHED, "cifar10", replace(PUBLISHED["cifar10"], archives=archives()))
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def point(monkeypatch):
    """Let the addresses be these; a server's is its own."""

    def set_to(*addresses):
        texts = [getattr(a, "address", a) for a in addresses]
        monkeypatch.setenv("IGC_REF_DATA_URL", ", ".join(texts))

    return set_to


class Lines(list):
    def __call__(self, line):
        assert line.isprintable()
        self.append(line)

    @property
    def text(self):
        return "\n".join(self)


def names(folder):
    return sorted(os.listdir(folder))


def fetched(folder, lines=None, limits=FAST):
    """Fetch; whatever the way, nothing but the right file is left."""
    path = fetch("cifar10", folder, lines if lines is not None else Lines(), limits)
    assert path.read_bytes() == {NAME: BINARY, OTHER: PYTHON}[path.name]
    return path


def fails(match, folder, lines=None, limits=FAST):
    with pytest.raises(DataError, match=match) as caught:
        fetch("cifar10", folder, lines if lines is not None else Lines(), limits)
    assert str(caught.value).isprintable()
    assert not any((folder / name).exists() for name in (NAME, OTHER))
    assert "cifar10.lock" not in names(folder)
    return str(caught.value)


def test_the_archive_is_fetched_once_and_leaves_nothing_else(tmp_path, point):
    lines, folder = Lines(), tmp_path / "new" / "folder"
    with serving(well(BINARY)) as server:
        point(server)
        assert fetched(folder, lines) == folder / NAME
        assert fetched(folder) == folder / NAME
        assert server.requests == [(f"/{NAME}", None)]
    assert names(folder) == [NAME]
    assert lines == [f"fetching {server.address}/{NAME} (0 MB) into {folder}"]


def test_load_fetches_what_is_not_there_into_the_cache(tmp_path, point, monkeypatch):
    monkeypatch.setenv("IGC_REF_CACHE", str(tmp_path / "cache"))
    lines = Lines()
    with serving(well(BINARY)) as server:
        point(server)
        with pytest.raises(DataError, match=f"{tmp_path}/cache/{NAME} is damaged or no gzip"):
            data.load("cifar10", "test", report=lines)  # it holds noise
    assert "fetching http" in lines.text
    assert names(tmp_path / "cache") == [NAME]


def test_the_cache_is_where_the_environment_says(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("IGC_REF_CACHE", "~/mine")
    assert cache_folder() == tmp_path / "mine"
    monkeypatch.delenv("IGC_REF_CACHE")
    for base, expected in (
        ("/x", "/x"),
        ("relative", tmp_path / ".cache"),
        ("", tmp_path / ".cache"),
    ):
        monkeypatch.setenv("XDG_CACHE_HOME", base)
        assert cache_folder() == Path(expected) / "igc-ref"


def test_mirrors_are_tried_in_order_and_the_binary_layout_first(tmp_path, point):
    lines = Lines()
    with serving(well(None)) as absent, serving(well(None, {OTHER: PYTHON})) as python:
        point(absent, python)
        assert fetched(tmp_path, lines) == tmp_path / OTHER
        assert [path for path, _ in absent.requests] == [f"/{NAME}", f"/{OTHER}"]
        assert [path for path, _ in python.requests] == [f"/{NAME}", f"/{OTHER}"]
    assert lines.text.count("HTTP 404") == 3
    assert names(tmp_path) == [OTHER]


def test_without_an_override_the_published_addresses_are_used(tmp_path, monkeypatch):
    monkeypatch.delenv("IGC_REF_DATA_URL")
    with serving(well(BINARY)) as server:
        made = replace(PUBLISHED["cifar10"], archives=archives((f"{server.address}/kriz/",)))
        monkeypatch.setitem(PUBLISHED, "cifar10", made)
        fetched(tmp_path)
        assert server.requests == [(f"/kriz/{NAME}", None)]


def test_an_address_may_name_the_file_itself(tmp_path, point):
    with serving(well(PYTHON)) as server:
        point(f"{server.address}/some/{OTHER}")
        assert fetched(tmp_path) == tmp_path / OTHER
        assert server.requests == [(f"/some/{OTHER}", None)]


def test_a_file_address_is_copied_and_resumed(tmp_path, point):
    mirror, folder = tmp_path / "a mirror", tmp_path / "here"
    mirror.mkdir()
    folder.mkdir()
    (mirror / NAME).write_bytes(BINARY)
    (folder / f"{NAME}.part").write_bytes(BINARY[:1000])
    point(f"file://{str(mirror).replace(' ', '%20')}")
    assert fetched(folder) == folder / NAME
    (folder / NAME).unlink()
    (mirror / NAME).write_bytes(BINARY[:-1])
    assert "has 300,001 bytes; 300,002 bytes are needed" in fails("cannot fetch", folder)
    (mirror / NAME).unlink()
    os.mkfifo(mirror / NAME)
    fails(f"{NAME} is no file", folder)


@pytest.mark.parametrize(
    "address",
    ["ftp://127.0.0.1", "127.0.0.1", "/data", "file://elsewhere/data", "http://me:secret@host/x",
     "data:text/plain,x", "javascript:x"],
)  # fmt: skip
def test_other_addresses_are_refused_before_anything_is_written(tmp_path, point, address):
    point(address)
    assert "secret" not in fails("IGC_REF_DATA_URL: .* is ", tmp_path)
    assert names(tmp_path) == []


PAGE = b"<html>Please log in.</html>"
WRONG = BINARY[:-1] + b"?"
LOST = {  # what a server does: the reason that is given, and whether it is asked again
    "not found": (lambda r: r.head(404, 0), "HTTP 404 'Not Found'", False),
    "gone": (lambda r: r.head(410, 0), "HTTP 410", False),
    "error": (lambda r: r.head(500, 0), "HTTP 500", True),
    "too many": (lambda r: r.head(429, 0), "HTTP 429", True),
    "a page": (
        lambda r: (r.head(200, len(PAGE), Content_Type="text/html"), r.wfile.write(PAGE)),
        "it sent a web page", False,
    ),
    "a page in disguise": (
        lambda r: (r.head(200), r.wfile.write(PAGE)), "something that does not begin like", False
    ),
    "an empty answer": (lambda r: r.head(200, 0), "announced '0' bytes", False),
    "nothing": (lambda r: r.head(200), "ended after 0 of 300,002", True),
    "no content": (lambda r: r.head(204), "HTTP 204", False),
    "a length too small": (lambda r: r.head(200, 10), "announced '10' bytes, not 300,002", False),
    "a length too large": (lambda r: r.head(200, 10**12), "announced '1000000000000'", False),
    "a length in words": (lambda r: r.head(200, "all"), "announced 'all'", False),
    "a negative length": (lambda r: r.head(200, -1), "announced '-1'", False),
    "a part unasked": (
        lambda r: r.head(206, len(BINARY), Content_Range="bytes 5-300001/300002"),
        "sent the range 'bytes 5-300001/300002'", False,
    ),
    "a circle": (lambda r: r.head(302, 0, Location=r.path), "redirects more than 5", False),
    "nowhere": (lambda r: r.head(302, 0), "redirects to 'None'", False),
    "a local file": (
        lambda r: r.head(301, 0, Location="file:///etc/passwd"), "redirects to 'file:///etc", False
    ),
    "ftp": (lambda r: r.head(307, 0, Location="ftp://x/y"), "redirects to 'ftp://x/y'", False),
    "choices": (lambda r: r.head(300, 0), "HTTP 300", False),
    "no status": (raw(b"hello\r\n\r\n"), "hello", True),
    "a hung up phone": (raw(), "without response", True),
    "endless headers": (raw(b"HTTP/1.1 200 OK\r\n", b"X: y\r\n" * 999), "than 100 headers", True),
    "an endless line": (raw(b"HTTP/1.1 200 OK\r\n", b"X" * 99_999), "header line", True),
    "bad chunks": (
        raw(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n\x1f\x8b"), "", True
    ),
    "control characters": (
        raw(b"HTTP/1.1 404 \x1b[31mred\r\n\r\n"), r"HTTP 404 '\\x1b\[31m", False
    ),
    "cut off": (
        lambda r: (r.head(200, len(BINARY)), r.wfile.write(BINARY[:999])), "of 300,002 bytes", True
    ),
    "silence": (stalls(BINARY, 0), "too slow: 0 bytes in 0.3 s", True),
    "a stall": (stalls(BINARY, 999), "too slow: ", True),
    "drops": (slowly(BINARY, 0.2), "too slow: ", True),
    "headers in drops": (
        lambda r: r.drip(b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 999, 0.02), "too slow: 0", True
    ),
    "continue for ever": (
        raw(b"HTTP/1.1 100 Continue\r\n\r\n", forever=True, pause=0.01), "too slow: 0", True
    ),
    "a redirect without end": (
        raw(b"HTTP/1.1 302 Found\r\nLocation: /x\r\n\r\n", b"x" * 65_536, forever=True),
        "redirects more than 5", False,
    ),
    "a wrong file": (well(WRONG), "not what was published .its SHA-256 is .*; deleted", False),
}  # fmt: skip


@pytest.mark.parametrize(("behave", "reason", "again"), LOST.values(), ids=LOST)
def test_a_server_that_fails_is_named_and_the_next_one_serves(
    tmp_path, point, behave, reason, again
):
    lines = Lines()
    with serving(behave) as bad, serving(well(BINARY)) as good:
        point(f"{bad.address}/{NAME}")
        start = time.monotonic()
        message = fails(f"{bad.address}/{NAME}: .*{reason}", tmp_path, lines)
        assert time.monotonic() - start < 10
        assert lines.text.count("fetching") == (2 if again else 1)
        assert f"Fetch {NAME} (300,002 bytes" in message
        point(f"{bad.address}/{NAME}", good)
        assert fetched(tmp_path, lines) == tmp_path / NAME
    assert names(tmp_path) == [NAME]
    assert f"fetching {good.address}" in lines[-1]


def test_the_offline_message_says_what_to_do(tmp_path, point):
    with socket.create_server(("127.0.0.1", 0)) as unused:
        port = unused.getsockname()[1]
    point(f"http://127.0.0.1:{port}")
    message = fails("Connection refused", tmp_path)
    digest = hashlib.sha256(BINARY).hexdigest()
    assert (
        f"Fetch {NAME} (300,002 bytes, SHA-256 {digest}) from http://127.0.0.1:9/{NAME}" in message
    )
    assert f"put it into {tmp_path}, or into any folder and name that with --data-dir" in message
    assert "set IGC_REF_DATA_URL to a mirror" in message
    point("")
    fails("cannot fetch CIFAR-10 .IGC_REF_DATA_URL names no address.", tmp_path)


def test_a_name_that_does_not_resolve(tmp_path, point):
    point("http://does-not-exist.invalid")
    fails("does-not-exist.invalid/.*: .*[Nn]ame", tmp_path)


def test_a_broken_connection_is_gone_on_with(tmp_path, point):
    lines = Lines()
    with serving(breaks_off(BINARY, 120_000, 100_000, 90_000)) as server:
        point(*[f"{server.address}/{NAME}"] * 2)
        fetched(tmp_path, lines)
        ranges = [asked for _, asked in server.requests]
    assert ranges == [None, "bytes=120000-", "bytes=220000-"]
    assert "it ended after 120,000 of 300,002 bytes" in lines.text


@pytest.mark.parametrize("had", [1, 1000, 300_001, 300_002, 400_000])
def test_a_part_from_last_time_is_gone_on_with(tmp_path, point, had):
    (tmp_path / f"{NAME}.part").write_bytes((BINARY * 2)[:had])
    with serving(well(BINARY)) as server:
        point(server)
        fetched(tmp_path)
        asked = {300_002: [], 400_000: [None]}.get(had, [f"bytes={had}-"])
        assert [r for _, r in server.requests] == asked
    assert names(tmp_path) == [NAME]


def test_a_server_that_ignores_ranges_sends_all_of_it(tmp_path, point):
    (tmp_path / f"{NAME}.part").write_bytes(BINARY[:5000])
    with serving(lambda r: (r.head(200, len(BINARY)), r.wfile.write(BINARY))) as server:
        point(server)
        fetched(tmp_path)
        assert [r for _, r in server.requests] == ["bytes=5000-"]


def test_a_server_that_cannot_satisfy_the_range_is_asked_for_all_of_it(tmp_path, point):
    (tmp_path / f"{NAME}.part").write_bytes(BINARY[:5000])
    serve = well(BINARY)
    with serving(lambda r: r.head(416, 0) if r.offset() else serve(r)) as server:
        point(server)
        fetched(tmp_path)
        assert [r for _, r in server.requests] == ["bytes=5000-", None]


@pytest.mark.parametrize(
    "span",
    ["bytes 0-300001/300002", "bytes 5000-6000/300002", "bytes 5000-300001/300003", "x", None],
)
def test_a_range_that_was_not_asked_for_is_refused_and_the_part_kept(tmp_path, point, span):
    part = tmp_path / f"{NAME}.part"
    part.write_bytes(BINARY[:5000])
    headers = {"Content_Range": span} if span else {}
    with serving(lambda r: r.head(206, len(BINARY) - 5000, **headers)) as server:
        point(f"{server.address}/{NAME}")
        fails("it sent the range", tmp_path)
    assert part.read_bytes() == BINARY[:5000]


def test_a_damaged_part_is_found_out_deleted_and_fetched_anew(tmp_path, point):
    lines = Lines()
    (tmp_path / f"{NAME}.part").write_bytes(b"\x1f\x8b" + bytes(999))
    with serving(well(BINARY)) as server:
        point(f"{server.address}/{NAME}")
        fetched(tmp_path, lines)
        assert [r for _, r in server.requests] == ["bytes=1001-", None]
    assert "not what was published" in lines.text


def test_a_damaged_archive_in_the_cache_is_set_aside(tmp_path, point):
    lines = Lines()
    (tmp_path / NAME).write_bytes(WRONG)
    with serving(well(BINARY)) as server:
        point(server)
        fetched(tmp_path, lines)
    assert names(tmp_path) == [NAME, f"{NAME}.damaged"]
    assert f"it is now {NAME}.damaged" in lines[0]
    assert (tmp_path / f"{NAME}.damaged").read_bytes() == WRONG


def test_a_redirect_is_followed_with_the_range(tmp_path, point):
    (tmp_path / f"{NAME}.part").write_bytes(BINARY[:77])
    serve = well(BINARY)

    def behave(request):
        if request.path.startswith("/real"):
            serve(request)
        else:
            request.head(302, 0, Location="/real")

    with serving(behave) as server:
        point(server)
        fetched(tmp_path)
        assert server.requests == [(f"/{NAME}", "bytes=77-"), ("/real", "bytes=77-")]


def test_a_redirect_never_leaves_https():
    for target in ("http://a/b", "//a/b"):
        address = "https://x/y"
        if target.startswith("//"):
            assert transfer._redirected(address, target) == "https://a/b"
        else:
            with pytest.raises(transfer.TransferError, match="redirects to 'http://a/b'"):
                transfer._redirected(address, target)


def test_a_tls_handshake_in_drops_is_cut(tmp_path, point):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        stop = threading.Event()

        def serve():
            for _ in range(2):
                connection, _ = listener.accept()
                with connection:
                    connection.sendall(b"\x16\x03\x03\x40\x00")
                    while not stop.wait(0.02):
                        try:
                            connection.sendall(b"\x02")
                        except OSError:
                            break

        thread = threading.Thread(target=serve)
        thread.start()
        point(f"https://127.0.0.1:{listener.getsockname()[1]}/{NAME}")
        start = time.monotonic()
        fails("too slow: 0 bytes in 0.3 s", tmp_path)
        assert time.monotonic() - start < 5
        stop.set()
        thread.join()


def test_no_connection_in_time(tmp_path, point):
    with socket.create_server(("127.0.0.1", 0), backlog=1) as listener:
        address = listener.getsockname()
        waiting = [socket.socket() for _ in range(8)]
        for one in waiting:  # fill the queue, so that the next attempt gets no answer
            one.setblocking(False)
            one.connect_ex(address)
        point(f"http://127.0.0.1:{address[1]}/{NAME}")
        fails("timed out|too slow", tmp_path, limits=replace(FAST, connect=0.2, speeds=(1.0,)))
        for one in waiting:
            one.close()


def test_a_slow_server_serves_in_the_second_round(tmp_path, point):
    lines = Lines()

    def behave(request):
        offset = request.offset()
        span = {"Content_Range": f"bytes {offset}-300001/300002"} if offset else {}
        request.head(206 if offset else 200, len(BINARY) - offset, **span)
        request.drip(BINARY[offset:], 0.02, 5000)

    with serving(behave) as server:
        point(f"{server.address}/{NAME}")
        fetched(tmp_path, lines, replace(FAST, speeds=(1e6, 1000.0)))
        first, second = server.requests
        assert first == (f"/{NAME}", None)
        assert second[1].startswith("bytes=")
    assert "too slow: " in lines.text


def test_a_proxy_of_the_environment_is_used_and_named(tmp_path, point, monkeypatch):
    lines = Lines()
    with serving(well(BINARY)) as proxy:
        monkeypatch.setenv("http_proxy", proxy.address.replace("//", "//me:secret@"))
        monkeypatch.delenv("no_proxy", raising=False)
        point("http://mirror.invalid/data")
        fetched(tmp_path, lines)
        assert proxy.requests == [(f"http://mirror.invalid/data/{NAME}", None)]
    assert "through the proxy 127.0.0.1" in lines[0]
    assert "secret" not in lines.text


def test_memory_does_not_grow_with_what_is_sent(tmp_path, point):
    chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    piece = b"%x\r\n%s\r\n" % (100_000, b"\x1f\x8b" * 50_000)
    with serving(raw(chunked, piece, forever=True)) as server:
        point(f"{server.address}/{NAME}")
        tracemalloc.start()
        fails("not what was published", tmp_path)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak < 4_000_000
    assert names(tmp_path) == []


def test_a_full_disk_is_an_error_of_its_own_and_keeps_the_part(tmp_path, point, monkeypatch):
    def full(file, block):
        file.write(block[:5000])
        with open("/dev/full", "wb", buffering=0) as disk:
            try:
                disk.write(block)
            except OSError as error:
                raise DataError(f"cannot write {file.name}: {error.strerror}") from error

    with serving(well(BINARY)) as server:
        point(server, server)
        with monkeypatch.context() as patched:
            patched.setattr(transfer, "_write", full)
            fails(f"cannot write {tmp_path}/{NAME}.part: No space left", tmp_path)
        assert len(server.requests) == 1  # another mirror would not help
        assert (tmp_path / f"{NAME}.part").stat().st_size == 5000
        fetched(tmp_path)


def test_a_write_that_fails_names_the_file(tmp_path):
    with (
        open("/dev/full", "wb", buffering=0) as disk,
        pytest.raises(DataError, match="cannot write /dev/full: No space left on device"),
    ):
        transfer._write(disk, b"x")


@pytest.mark.parametrize("trap", ["symlink", "fifo", "folder"])
def test_a_part_that_is_no_plain_file_is_not_written_to(tmp_path, point, trap):
    part, precious = tmp_path / f"{NAME}.part", tmp_path / "precious"
    precious.write_text("mine")
    if trap == "symlink":
        part.symlink_to(precious)
    elif trap == "fifo":
        os.mkfifo(part)
    else:
        part.mkdir()
    with serving(well(BINARY)) as server:
        point(server)
        fails(f"cannot write {part}: ", tmp_path)
        assert server.requests == []
    assert precious.read_text() == "mine"


def test_a_folder_that_cannot_be_made_is_named(tmp_path, point):
    (tmp_path / "file").touch()
    point("http://127.0.0.1:9")
    with pytest.raises(DataError, match=f"cannot use {tmp_path}/file/x"):
        fetch("cifar10", tmp_path / "file" / "x", limits=FAST)
    with pytest.raises(DataError, match="name='mnist' is unknown; choose one of cifar10"):
        fetch("mnist", tmp_path)


SCRIPT = """
import sys
from dataclasses import replace
from igc_ref.data.download import fetch
from igc_ref.data.published import PUBLISHED, PublishedFile
from igc_ref.data.transfer import Limits
folder, name, size, digest = sys.argv[1:]
archive = PublishedFile(name, int(size), digest, ("http://127.0.0.1:9/",))
PUBLISHED["cifar10"] = replace(PUBLISHED["cifar10"], archives=(archive, archive))
limits = Limits(connect=5, window=2.0, speeds=(10.0,), lock=20)
print(fetch("cifar10", folder, lambda line: print(line, file=sys.stderr, flush=True), limits))
"""


def start(folder):
    # Whoever is started in the background of a shell would ignore Ctrl-C.
    script = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
    command = [sys.executable, "-c", script + textwrap.dedent(SCRIPT), str(folder), NAME]
    command += [str(len(BINARY)), hashlib.sha256(BINARY).hexdigest()]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_two_processes_fetch_it_once(tmp_path, point):
    with serving(slowly(BINARY, 0.02, 3000)) as server:
        point(server)
        first, second = start(tmp_path), start(tmp_path)
        said = [process.communicate(timeout=60) for process in (first, second)]
        assert len(server.requests) == 1
    assert [first.returncode, second.returncode] == [0, 0]
    assert [out.strip() for out, _ in said] == [str(tmp_path / NAME)] * 2
    assert (tmp_path / NAME).read_bytes() == BINARY
    assert names(tmp_path) == [NAME]
    assert sum("another process is fetching the same set; waiting" in err for _, err in said) == 1


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
def test_who_is_killed_in_the_middle_goes_on_the_next_time(tmp_path, point, how):
    with serving(slowly(BINARY, 0.02, 1000)) as server:
        point(server)
        process = start(tmp_path)
        part = tmp_path / f"{NAME}.part"
        deadline = time.monotonic() + 30
        while not (part.exists() and part.stat().st_size > 5000):
            assert time.monotonic() < deadline
            time.sleep(0.01)
        process.send_signal(how)
        process.communicate(timeout=30)
        assert process.returncode != 0
        had = part.stat().st_size
        assert 5000 < had < len(BINARY)
        assert not (tmp_path / NAME).exists()
        server.behave = well(BINARY)
        fetched(tmp_path)  # the lock of a dead process holds nobody up
        assert server.requests[-1] == (f"/{NAME}", f"bytes={had}-")
    assert names(tmp_path) == [NAME]


def test_waiting_for_a_lock_ends(tmp_path, point):
    fcntl = pytest.importorskip("fcntl")
    lines = Lines()
    point("http://127.0.0.1:9")
    with open(tmp_path / "cifar10.lock", "w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(DataError, match=r"another process has held .*cifar10.lock for 0 s"):
            fetch("cifar10", tmp_path, lines, replace(FAST, lock=0.3))
        assert len(lines) == 1
        (tmp_path / NAME).write_bytes(BINARY)
        fetched(tmp_path)  # what is there needs no lock


def test_a_lock_that_its_holder_removed_is_not_taken_for_the_new_one(tmp_path):
    path = tmp_path / "x.lock"
    file = os.open(path, os.O_RDWR | os.O_CREAT)
    assert download._take(file, path)
    path.unlink()
    assert download._take(file, path) is False
    path.touch()
    assert download._take(file, path) is False
    os.close(file)


@pytest.mark.parametrize("lack", ["module", "file system"])
def test_without_locks_every_process_has_a_part_of_its_own(tmp_path, point, monkeypatch, lack):
    if lack == "module":
        monkeypatch.setattr(download, "fcntl", None)
    else:

        def refuse(*_):
            raise OSError(37, "No locks available")

        monkeypatch.setattr(download.fcntl, "flock", refuse)
    seen, lines = [], Lines()
    serve = well(BINARY)
    with serving(lambda r: (seen.append(names(tmp_path)), serve(r))) as server:
        point(server)
        fetched(tmp_path, lines)
        assert f"{NAME}.{os.getpid()}.part" in seen[0]
        assert names(tmp_path) == [NAME]
        (tmp_path / NAME).unlink()
        server.behave = breaks_off(BINARY, 10, 10, 10, 10)
        fails("ended after 20 of", tmp_path)
    assert names(tmp_path) == []


def test_a_read_only_cache_that_is_full_serves(tmp_path, point, monkeypatch):
    (tmp_path / NAME).write_bytes(BINARY)

    def refuse(*_, **__):
        raise PermissionError(13, "Permission denied", str(tmp_path))

    monkeypatch.setattr(os, "open", refuse)
    monkeypatch.setattr(Path, "mkdir", refuse)
    fetched(tmp_path)


def test_the_published_archives_are_described_completely():
    for name in ("cifar10", "cifar100"):
        binary, python = PUBLISHED[name].archives
        assert binary.name.endswith("-binary.tar.gz") or name == "cifar10"
        for archive in (binary, python):
            assert len(archive.sha256) == 64
            assert set(archive.sha256) <= set("0123456789abcdef")
            assert archive.bases
