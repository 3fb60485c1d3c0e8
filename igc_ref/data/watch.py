"""Connections that are cut when they bring too little.

A time limit of the socket is not enough: one byte every few seconds keeps that content, in the TLS
handshake, in the status line, in headers, between chunks. So a thread looks at what has arrived.
"""

from __future__ import annotations

import http.client
import socket
import threading
import urllib.request
from contextlib import suppress
from functools import partial
from typing import Any

__all__ = ["Watch", "watched_opener"]


class Watch:
    """Cuts the connection that it watches when it brings too little, whatever it is waiting for.

    Parameters
    ----------
    window : float
        Seconds between two looks.
    speed : float
        Bytes a second that must have arrived on average between two looks.
    """

    def __init__(self, window: float, speed: float) -> None:
        self.window, self.speed = window, speed
        self.received = 0  # bytes, counted by who reads
        self.verdict: str | None = None  # why the connection was cut
        self._socket: socket.socket | None = None
        self._lock, self._done = threading.Lock(), threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()
        if self._socket:
            self._socket.close()

    def adopt(self, connection: socket.socket) -> None:
        """Watch this connection from now on."""
        connection.settimeout(2 * self.window)
        with self._lock:
            if self._socket:
                self._socket.close()
            self._socket = connection.dup()  # ours stays valid when TLS wraps or urllib closes it
            self._cut_if_judged()

    def _run(self) -> None:
        seen = 0
        while not self._done.wait(self.window):
            brought, seen = self.received - seen, self.received
            if brought < self.speed * self.window:
                with self._lock:
                    self.verdict = f"too slow: {brought:,} bytes in {self.window:g} s"
                    self._cut_if_judged()
                return

    def _cut_if_judged(self) -> None:
        if self.verdict and self._socket:
            with suppress(OSError):  # it may have ended already
                self._socket.shutdown(socket.SHUT_RDWR)


class _Connection(http.client.HTTPConnection):
    watch: Watch

    def connect(self) -> None:
        super().connect()
        self.watch.adopt(self.sock)


class _SecureConnection(http.client.HTTPSConnection, _Connection):
    """In this order, the watch begins before the TLS handshake."""


def _connection(kind: type[_Connection], watch: Watch, *args: Any, **named: Any) -> _Connection:
    connection = kind(*args, **named)
    connection.watch = watch
    return connection


class _Plain(urllib.request.HTTPHandler):
    def __init__(self, watch: Watch) -> None:
        super().__init__()
        self.factory: Any = partial(_connection, _Connection, watch)

    def http_open(self, req: urllib.request.Request) -> Any:
        return self.do_open(self.factory, req)


class _Secure(urllib.request.HTTPSHandler):
    def __init__(self, watch: Watch) -> None:
        super().__init__()
        self.factory: Any = partial(_connection, _SecureConnection, watch)

    def https_open(self, req: urllib.request.Request) -> Any:
        return self.do_open(self.factory, req)


def watched_opener(watch: Watch) -> urllib.request.OpenerDirector:
    """Return an opener of http and https alone, which follows no redirects by itself."""
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler(),  # those of the environment, as urllib, curl and pip do
        _Plain(watch),
        _Secure(watch),
        urllib.request.UnknownHandler(),
        urllib.request.HTTPDefaultErrorHandler(),
        urllib.request.HTTPErrorProcessor(),
    ):
        opener.add_handler(handler)
    return opener
