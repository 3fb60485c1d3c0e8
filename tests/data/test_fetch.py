"""Downloads: whatever a server does, in the end there is the published file, or a clear error."""

import gc
import hashlib
import logging
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
import warnings
from contextlib import contextmanager, suppress
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pooch
import pytest
from filelock import FileLock

from igc_ref.data import download as fetching
from igc_ref.data.download import cache_folder, fetch
from igc_ref.data.published import PUBLISHED, SVHN, PublishedFile
from igc_ref.errors import DataError
from tests.support.runs import failing

BINARY, PYTHON = random.Random(0).randbytes(300_000), random.Random(1).randbytes(200_000)
NAME, OTHER = "cifar-10-binary.tar.gz", "cifar-10-python.tar.gz"
LOCK = f".{NAME}.lock"


def archives(binary=("http://127.0.0.1:9/",), python=("http://127.0.0.1:9/",)):
    return tuple(
        PublishedFile(name, len(content), hashlib.sha256(content).hexdigest(), bases)
        for name, content, bases in ((NAME, BINARY, binary), (OTHER, PYTHON, python))
    )


def publish(monkeypatch, *bases):
    made = replace(PUBLISHED["cifar10"], archives=archives(*bases))
    monkeypatch.setitem(PUBLISHED, "cifar10", made)


@pytest.fixture(autouse=True)
def _small_archives(monkeypatch):
    publish(monkeypatch)
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    yield
    with warnings.catch_warnings():  # pooch leaves the connection of a failed download open
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()


@pytest.fixture
def point(monkeypatch):
    """Let the addresses be these."""
    return lambda *addresses: monkeypatch.setenv("IGC_REF_DATA_URL", ", ".join(addresses))


@contextmanager
def serving(answer):
    """Yield the address of a loopback server and the list of paths that it was asked for."""
    asked = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            with suppress(OSError):  # the client may hang up
                answer(self)

        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}", asked
        finally:
            server.shutdown()
            thread.join()


def send(request, content=b"", status=200, length=None, **headers):
    request.send_response(status)
    request.send_header("Content-Length", str(len(content) if length is None else length))
    for name, value in headers.items():
        request.send_header(name.replace("_", "-"), value)
    request.end_headers()
    request.wfile.write(content)


def files(**contents):
    """Answer with the file that a path ends in, or with 404."""
    known = {NAME: contents.get("binary"), OTHER: contents.get("python")}

    def answer(request):
        content = known[request.path.rpartition("/")[2]]
        send(request, content or b"", 200 if content else 404)

    return answer


def names(folder):
    return sorted(os.listdir(folder))


def fails(match, folder):
    with pytest.raises(DataError, match=match) as caught:
        fetch("cifar10", folder)
    assert str(caught.value).isprintable()
    assert names(folder) in ([], [LOCK])
    return str(caught.value)


def test_a_file_is_downloaded_once_and_nothing_else_is_left(tmp_path, point, capfd, caplog):
    pooch.get_logger().addHandler(caplog.handler)
    lines, folder = [], tmp_path / "new" / "folder"
    with serving(files(binary=BINARY)) as (address, asked):
        point(address)
        for _ in range(2):
            assert fetch("cifar10", folder, lines.append) == folder / NAME
    assert asked == [f"/{NAME}"]
    assert (folder / NAME).read_bytes() == BINARY
    assert (folder / NAME).stat().st_mode & 0o777 == 0o644  # others may share the cache
    assert names(folder) == [LOCK, NAME]
    assert lines == [f"fetching {address}/{NAME} (0 MB) into {folder}"]
    assert capfd.readouterr() == ("", "")  # a pipe gets no progress bar
    assert not caplog.records  # pooch's own log is silent, while we use it
    assert pooch.get_logger().isEnabledFor(logging.INFO)


def test_the_cache_is_where_the_environment_says(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("IGC_REF_CACHE", "~/mine")
    assert cache_folder() == tmp_path / "mine"
    monkeypatch.delenv("IGC_REF_CACHE")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    assert cache_folder() == pooch.os_cache("igc-ref")
    assert tmp_path in cache_folder().parents


def test_published_mirrors_are_tried_in_order_the_fast_ones_of_both_layouts_first(
    tmp_path, monkeypatch
):
    monkeypatch.delenv("IGC_REF_DATA_URL")
    with serving(files()) as (fast, asked), serving(files(python=PYTHON)) as (slow, asked_slow):
        monkeypatch.setattr(fetching, "SLOW", slow)
        publish(monkeypatch, (f"{slow}/", f"{fast}/a/"), (f"{fast}/b/", f"{slow}/"))
        assert fetch("cifar10", tmp_path) == tmp_path / OTHER
    assert asked == [f"/a/{NAME}", f"/b/{OTHER}"]
    assert asked_slow == [f"/{NAME}", f"/{OTHER}"]


def test_the_override_takes_folders_and_files_of_web_and_disk(tmp_path, point):
    mirror, first = tmp_path / "a mirror", tmp_path / "first"
    mirror.mkdir()
    (mirror / OTHER).write_bytes(PYTHON)
    with serving(files()) as (address, asked):
        point(address, f"{address}/x/{NAME}", f"file://{mirror}".replace(" ", "%20"))
        assert fetch("cifar10", first) == first / OTHER
    assert asked == [f"/{NAME}", f"/x/{NAME}", f"/{OTHER}"]
    assert (first / OTHER).read_bytes() == PYTHON
    (mirror / OTHER).write_bytes(PYTHON[:-1])
    fails("hash", tmp_path / "second")


@pytest.mark.parametrize(
    "address", ["ftp://127.0.0.1", "/data", "file://elsewhere/data", "http://me:secret@host/x"]
)
def test_other_addresses_are_refused_before_anything_is_written(tmp_path, point, address):
    point(address)
    assert "secret" not in fails("IGC_REF_DATA_URL: .* is not an address", tmp_path)
    assert names(tmp_path) == []


def endless(request):
    request.send_response(200)
    request.end_headers()
    for _ in range(1000):
        request.wfile.write(bytes(100_000))


BAD = {  # what a server does: the reason that is given
    "not found": (lambda r: send(r, status=404), "404 .*Not Found"),
    "error": (lambda r: send(r, status=500), "500 "),
    "a web page": (lambda r: send(r, b"<html>Please log in.</html>"), "hash"),
    "another file": (lambda r: send(r, BINARY[:-1] + b"?"), "hash"),
    "cut off": (lambda r: send(r, BINARY[:999], length=len(BINARY)), "999 bytes read"),
    "too much": (endless, "more bytes than were published"),
    "a redirect to the disk": (lambda r: send(r, status=301, Location="file:///etc/x"), "adapters"),
    "a circle": (lambda r: send(r, status=302, Location=r.path), "redirects"),
    "control characters": (
        lambda r: (r.send_response(404, "\x1b[31m"), r.end_headers()),
        r"x1b\[31m",
    ),
    "no web server": (lambda r: r.wfile.write(b"hello\r\n\r\n"), "hello"),
    "silence": (lambda r: time.sleep(3), "timed out"),
}


@pytest.mark.parametrize(("answer", "reason"), BAD.values(), ids=BAD)
def test_a_server_that_fails_is_named_and_the_next_one_serves(
    tmp_path, point, monkeypatch, answer, reason
):
    if reason == "timed out":
        monkeypatch.setattr(fetching, "TIMEOUT", (9.0, 1.0))
    lines = []
    with serving(answer) as (bad, _), serving(files(binary=BINARY)) as (good, _):
        point(f"{bad}/{NAME}")
        fails(f"cannot fetch CIFAR-10 .{bad}/{NAME}: .*{reason}", tmp_path)
        point(f"{bad}/{NAME}", good)
        assert fetch("cifar10", tmp_path, lines.append) == tmp_path / NAME
    assert (tmp_path / NAME).read_bytes() == BINARY
    assert [line.partition(" ")[0] for line in lines] == ["fetching", f"{bad}/{NAME}:", "fetching"]
    assert all(line.isprintable() and len(line) < 500 for line in lines)


def test_the_message_says_what_to_do_without_a_network(tmp_path, point):
    with socket.create_server(("127.0.0.1", 0)) as unused:
        port = unused.getsockname()[1]
    point(f"http://127.0.0.1:{port}")
    message = fails("Connection refused", tmp_path)
    digest = hashlib.sha256(BINARY).hexdigest()
    for part in (
        f"Download {NAME} (300,000 bytes, SHA-256 {digest}) from http://127.0.0.1:9/{NAME}",
        f"`curl -L -C - -O`, which resumes, and put it into {tmp_path}",
        "--data-dir",
        "set IGC_REF_DATA_URL to a mirror",
    ):
        assert part in message
    point("")
    fails("cannot fetch CIFAR-10 .IGC_REF_DATA_URL names no address.", tmp_path)


def test_a_damaged_file_in_the_cache_is_replaced(tmp_path, point):
    (tmp_path / NAME).write_bytes(BINARY[:-1] + b"?")
    with serving(files(binary=BINARY)) as (address, _):
        point(address)
        fetch("cifar10", tmp_path)
    assert (tmp_path / NAME).read_bytes() == BINARY
    assert names(tmp_path) == [LOCK, NAME]


def test_a_full_disk_ends_the_attempts(tmp_path, point, monkeypatch):
    full = failing(OSError(28, "No space left on device"))
    monkeypatch.setattr(fetching._Limited, "write", full)
    with serving(files(binary=BINARY)) as (address, asked):
        point(address, address)
        fails(f"cannot use {tmp_path}: No space left on device", tmp_path)
    assert len(asked) == 1  # another mirror would not help


def test_a_folder_that_cannot_be_made_is_named(tmp_path, point):
    (tmp_path / "file").touch()
    point("http://127.0.0.1:9")
    with pytest.raises(DataError, match=f"cannot use {tmp_path}/file/x: Not a directory"):
        fetch("cifar10", tmp_path / "file" / "x")
    with pytest.raises(DataError, match="name='mnist' is unknown; choose one of cifar10"):
        fetch("mnist", tmp_path)


def test_a_full_cache_serves_even_if_it_cannot_be_written(tmp_path, monkeypatch):
    (tmp_path / NAME).write_bytes(BINARY)
    monkeypatch.setattr("filelock.FileLock.acquire", None)
    assert fetch("cifar10", tmp_path) == tmp_path / NAME


SCRIPT = f"""
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)
sys.path.insert(0, {os.getcwd()!r})
from dataclasses import replace
from igc_ref.data.download import fetch
from igc_ref.data.published import PUBLISHED, PublishedFile
PUBLISHED["cifar10"] = replace(PUBLISHED["cifar10"], archives={archives()!r})
print(fetch("cifar10", sys.argv[1], lambda line: print(line, file=sys.stderr, flush=True)))
"""


def start(folder):
    command = [sys.executable, "-c", SCRIPT, str(folder)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def slowly(request):
    send(request, length=len(BINARY))
    for start in range(0, len(BINARY), 3000):
        request.wfile.write(BINARY[start : start + 3000])
        time.sleep(0.02)


def test_of_two_processes_one_downloads_and_the_other_waits(tmp_path, point):
    with serving(slowly) as (address, asked):
        point(address)
        processes = [start(tmp_path) for _ in range(2)]
        said = [process.communicate(timeout=60) for process in processes]
    assert len(asked) == 1
    assert [out.strip() for out, _ in said] == [str(tmp_path / NAME)] * 2
    assert sum("another process is fetching CIFAR-10; waiting" in err for _, err in said) == 1
    assert names(tmp_path) == [LOCK, NAME]


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_a_process_that_is_killed_leaves_nothing_in_the_way(tmp_path, point, how):
    with serving(slowly) as (address, asked):
        point(address)
        process = start(tmp_path)
        while not asked:
            time.sleep(0.01)
        time.sleep(0.3)
        process.send_signal(how)
        process.communicate(timeout=30)
        assert process.returncode != 0
        assert NAME not in names(tmp_path)
        fetch("cifar10", tmp_path)
    assert (tmp_path / NAME).read_bytes() == BINARY
    assert names(tmp_path) == [LOCK, NAME]


def test_waiting_for_another_process_ends(tmp_path, point, monkeypatch):
    monkeypatch.setattr(fetching, "PATIENCE", 0.2)
    point("http://127.0.0.1:9")
    lines = []
    with (
        FileLock(tmp_path / LOCK),
        pytest.raises(DataError, match=rf"another process has held .*{LOCK} for 0 s"),
    ):
        fetch("cifar10", tmp_path, lines.append)
    assert len(lines) == 1


def test_every_published_file_is_described_and_cifar_begins_with_a_fast_mirror(monkeypatch):
    monkeypatch.undo()
    monkeypatch.delenv("IGC_REF_DATA_URL", raising=False)
    files = [file for published in PUBLISHED.values() for file in published.archives]
    for file in (*files, *(part.file for part in SVHN.values())):
        assert len(file.sha256) == 64
        assert set(file.sha256) <= set("0123456789abcdef")
    for published in PUBLISHED.values():
        addresses = [address for _, address in fetching._offers(published.archives)]
        slow = [
            "cs.toronto.edu/~kriz" in address and "mirror" not in address for address in addresses
        ]
        assert slow == sorted(slow)
        assert not slow[0]
