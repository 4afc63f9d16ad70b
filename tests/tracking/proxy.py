"""A proxy in front of a real server that refuses, hangs, fails, loses answers, or takes its time."""

from __future__ import annotations

import contextlib
import http.client
import socket
import threading
import time
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Literal

Mode = Literal["pass", "refuse", "hang", "error", "lose_answer", "late", "slow"]
"""`refuse`: nobody listens; `hang`: no answer, and nothing is done; `error`: 500, and nothing is done;
`lose_answer`: the request is done, and the line breaks instead of an answer; `late`: the same, but it is
done only `LATE_S` later; `slow`: the request is done, and takes `SLOW_S` longer."""
SLOW_S = 2.0
LATE_S = 3.0
_BETWEEN_TWO = {"connection", "keep-alive", "transfer-encoding", "content-length"}  # headers of one line only


class Proxy:
    """`mode` holds for the requests whose path contains `only`; it may be changed at any time."""

    def __init__(self, target_port: int, mode: Mode = "pass", only: str = "") -> None:
        self.only = only
        self.requests: list[str] = []
        self.changed = threading.Condition()
        self.target_port = target_port  # may be changed too
        self._place = socket.socket()  # keeps the port while nobody listens
        self._place.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        self._place.bind(("127.0.0.1", 0))
        self._listener: _Listener | None = None
        self._mode: Mode = mode
        self.mode = mode

    @property
    def port(self) -> int:
        return int(self._place.getsockname()[1])

    @property
    def uri(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def mode(self) -> Mode:
        return self._mode

    @mode.setter
    def mode(self, mode: Mode) -> None:
        with self.changed:
            self._mode = mode
            self.changed.notify_all()
        if mode == "refuse":
            self._stop()
        elif self._listener is None:
            self._listener = _Listener(self)

    def count(self, path: str) -> int:
        """How many requests came so far whose path contains this."""
        return sum(path in request for request in self.requests)

    def hand_on(
        self, method: str, path: str, headers: Message, body: bytes
    ) -> tuple[int, list[tuple[str, str]], bytes]:
        """The real server's answer: status, headers, content."""
        server = http.client.HTTPConnection("127.0.0.1", self.target_port, timeout=60)
        with contextlib.closing(server):
            server.request(method, path, body, dict(headers.items()))
            answer = server.getresponse()
            return answer.status, answer.getheaders(), answer.read()

    def __enter__(self) -> Proxy:
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self.mode = "refuse"
        self._place.close()

    def _stop(self) -> None:
        if self._listener is not None:
            self._listener.stop()
            self._listener = None


class _Listener(ThreadingHTTPServer):
    allow_reuse_port = True

    def __init__(self, proxy: Proxy) -> None:
        self.proxy = proxy
        self._lines: set[socket.socket] = set()
        super().__init__(("127.0.0.1", proxy.port), _Handler)
        self._thread = threading.Thread(target=self.serve_forever, args=(0.02,))
        self._thread.start()

    def stop(self) -> None:
        """Listen no more, and break the lines that are open."""
        self.shutdown()
        self._thread.join()
        self.server_close()
        for line in list(self._lines):
            with contextlib.suppress(OSError):
                line.shutdown(socket.SHUT_RDWR)

    def process_request(self, request: Any, client_address: Any) -> None:
        self._lines.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        self._lines.discard(request)
        super().shutdown_request(request)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Listener

    def handle(self) -> None:
        with contextlib.suppress(ConnectionError):  # the client has gone, or its line was broken
            super().handle()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Say nothing."""

    def _serve(self) -> None:
        proxy = self.server.proxy
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        proxy.requests.append(self.path)
        mode = proxy.mode if proxy.only in self.path else "pass"
        if mode == "error":
            self._answer(500, [("Content-Type", "text/plain")], b"Internal Server Error")
            return
        answered = mode not in ("hang", "lose_answer", "late")
        self.close_connection |= not answered
        if mode == "late":
            time.sleep(LATE_S)
        elif mode in ("hang", "slow"):
            with proxy.changed:
                proxy.changed.wait_for(lambda: proxy.mode != mode, SLOW_S if mode == "slow" else 60.0)
        if mode != "hang":
            answer = proxy.hand_on(self.command, self.path, self.headers, body)
            if answered:
                self._answer(*answer)

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = _serve  # noqa: N815

    def _answer(self, status: int, headers: list[tuple[str, str]], content: bytes) -> None:
        self.send_response(status)
        for name, value in headers:
            if name.lower() not in _BETWEEN_TWO:
                self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)
