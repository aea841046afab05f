"""A proxy that does to an object store's traffic what a bad network and a busy server do.

It hands requests on as they came: their signature covers the Host header, so that stays the one
that the client wrote.
"""

import http.client
import os
import random
import socket
import struct
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

FAULTS = ("error_500", "error_503", "reset", "lost_response", "delay", "truncate")
"""Answered instead of handed on; connection reset before or after it is handed on; late; cut."""

DELAY_SECONDS = 0.3
NO_BODY = (204, 304)
OF_ONE_CONNECTION = {"connection", "keep-alive", "transfer-encoding", "content-length"}


class FaultProxy(ThreadingHTTPServer):
    """Faults drawn by `seed`, each kind with the probability that `rates` gives it.

    Attributes:
        url: Its address.
        done: How often each fault happened; "passed": requests without one.
        rates: May be changed at any time; {}: no faults.
    """

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, upstream: str, rates: dict[str, float], seed: int) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.url = f"http://127.0.0.1:{self.server_address[1]}"
        self.upstream = urlsplit(upstream).netloc
        self.done: Counter[str] = Counter()
        self._random = random.Random(seed)
        self._lock = threading.Lock()
        self._open: set[socket.socket] = set()
        self.rates = rates

    def draw(self) -> str:
        """Return the fault of the next request, or "passed"."""
        rates = dict(self.rates)
        assert set(rates) <= set(FAULTS), rates
        rest = 1 - sum(rates.values())
        with self._lock:
            return self._random.choices([*rates, "passed"], [*rates.values(), rest])[0]

    def count(self, fault: str) -> None:
        with self._lock:
            self.done[fault] += 1

    def process_request(self, request, client_address):
        with self._lock:
            self._open.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request):
        with self._lock:
            self._open.discard(request)
        super().shutdown_request(request)

    def hang_up(self) -> None:
        """End the connections that clients keep open."""
        with self._lock:
            for connection in self._open:
                with suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)

    def handle_error(self, request, client_address):
        """A client that hangs up is no error; anything else is shown, as it always is."""
        if not isinstance(sys.exception(), OSError):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: FaultProxy

    def handle_one(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        fault = self.server.draw()
        self.server.count(fault)
        if fault == "reset":
            return self._reset()
        if fault.startswith("error_"):
            return self._answer(int(fault[-3:]), [], b"<Error><Code>InternalError</Code></Error>")
        if fault == "delay":
            time.sleep(DELAY_SECONDS)
        status, headers, answer = self._hand_on(body)
        if fault == "lost_response":
            return self._reset()
        return self._answer(status, headers, answer, cut=fault == "truncate")

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = handle_one

    def _hand_on(self, body: bytes) -> tuple[int, list[tuple[str, str]], bytes]:
        upstream = http.client.HTTPConnection(self.server.upstream, timeout=60)
        try:
            upstream.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
            for name, value in self.headers.items():
                if name.lower() != "connection":
                    upstream.putheader(name, value)
            upstream.endheaders(body or None)
            answer = upstream.getresponse()
            return answer.status, answer.getheaders(), answer.read()
        finally:
            upstream.close()

    def _answer(
        self, status: int, headers: list[tuple[str, str]], body: bytes, *, cut: bool = False
    ) -> None:
        self.send_response_only(status)
        length = str(len(body))
        for name, value in headers:
            if name.lower() == "content-length" and self.command == "HEAD":
                length = value
            if name.lower() not in OF_ONE_CONNECTION:
                self.send_header(name, value)
        if status not in NO_BODY:
            self.send_header("Content-Length", length)
        self.end_headers()
        if self.command == "HEAD":
            return
        self.wfile.write(body[: len(body) // 2] if cut else body)
        if cut:
            self._reset()

    def _reset(self) -> None:
        """Close so that the other side sees a reset, not an end."""
        self.close_connection = True
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        os.close(self.connection.detach())

    def log_message(self, format, *args):
        """Say nothing: the counts tell."""


@contextmanager
def fault_proxy(
    upstream: str, rates: dict[str, float] | None = None, *, seed: int
) -> Iterator[FaultProxy]:
    """Run a proxy in front of `upstream` (http://host:port) while the context is open."""
    with FaultProxy(upstream, rates or {}, seed) as proxy:
        serving = threading.Thread(target=proxy.serve_forever, kwargs={"poll_interval": 0.05})
        serving.start()
        try:
            yield proxy
        finally:
            proxy.shutdown()
            proxy.hang_up()
            serving.join()
