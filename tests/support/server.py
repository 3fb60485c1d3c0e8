"""A server on the loopback that serves files well or badly, and remembers what it was asked."""

import threading
import time
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Server(ThreadingHTTPServer):
    """Answers every path through `behave`, a function of the request handler."""

    daemon_threads = True
    block_on_close = False

    def __init__(self, behave):
        super().__init__(("127.0.0.1", 0), Handler)
        self.behave = behave
        self.requests = []  # (path, Range header)
        self.stop = threading.Event()

    @property
    def address(self):
        return f"http://127.0.0.1:{self.server_port}"

    def handle_error(self, request, client_address):
        """A client that hangs up is what many tests want."""


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        self.server.requests.append((self.path, self.headers.get("Range")))
        self.close_connection = True
        with suppress(OSError):
            self.server.behave(self)

    def log_message(self, *_):
        """Keep quiet."""

    def head(self, status=200, length=None, **headers):
        self.send_response(status)
        if length is not None:
            self.send_header("Content-Length", str(length))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Connection", "close")
        self.end_headers()

    def offset(self):
        asked = self.headers.get("Range")
        return int(asked.removeprefix("bytes=").removesuffix("-")) if asked else 0

    def drip(self, content, pause, size=1):
        """Send little by little, until the client has had enough or the test is over."""
        for start in range(0, len(content), size):
            self.wfile.write(content[start : start + size])
            if self.server.stop.wait(pause):
                return


@contextmanager
def serving(behave):
    server = Server(behave)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server
    finally:
        server.stop.set()
        server.shutdown()
        server.server_close()
        thread.join()


def well(content, also=None):
    """Serve `content`, or any file of the dict `also`, with ranges."""

    def behave(request):
        found = (also or {}).get(request.path.rpartition("/")[2], content)
        offset = request.offset()
        if found is None:
            request.head(404, 0)
        elif offset >= len(found) > 0:
            request.head(416, 0, Content_Range=f"bytes */{len(found)}")
        elif offset:
            span = f"bytes {offset}-{len(found) - 1}/{len(found)}"
            request.head(206, len(found) - offset, Content_Range=span)
            request.wfile.write(found[offset:])
        else:
            request.head(200, len(found), Content_Type="application/x-gzip")
            request.wfile.write(found)

    return behave


def stalls(content, after):
    def behave(request):
        request.head(200, len(content))
        request.wfile.write(content[:after])
        request.server.stop.wait(60)

    return behave


def slowly(content, pause=0.02, size=1):
    def behave(request):
        request.head(200, len(content))
        request.drip(content, pause, size)

    return behave


def breaks_off(content, *after):
    """Announce all that is left, send so many bytes, hang up; next time the next number of them."""
    numbers = list(after)

    def behave(request):
        offset = request.offset()
        status = 206 if offset else 200
        span = {"Content_Range": f"bytes {offset}-{len(content) - 1}/{len(content)}"}
        request.head(status, len(content) - offset, **(span if offset else {}))
        number = numbers.pop(0) if numbers else len(content)
        request.wfile.write(content[offset : offset + number])

    return behave


def raw(*pieces, pause=0.0, forever=False):
    """Send these bytes as they are, the last one again and again if it is to go on for ever."""

    def behave(request):
        for piece in pieces:
            request.wfile.write(piece)
        while forever and not request.server.stop.is_set():
            request.wfile.write(pieces[-1])
            time.sleep(pause)

    return behave
