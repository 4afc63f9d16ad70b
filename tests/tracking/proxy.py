"""A proxy in front of a real server that can refuse, hang, or lose the answer to what was done."""

from __future__ import annotations

import contextlib
import socket
import threading
from types import TracebackType
from typing import Literal

Mode = Literal["pass", "refuse", "hang", "lose_answer"]


class Proxy:
    """`mode` may be changed at any time; a connection that is open goes on, but may lose its answers."""

    def __init__(self, target_port: int, mode: Mode = "pass") -> None:
        self.mode = mode
        self.connections = 0
        self._target = ("127.0.0.1", target_port)
        self._closed = threading.Event()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._threads = [threading.Thread(target=self._listen)]
        self._threads[0].start()

    @property
    def uri(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> Proxy:
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self._closed.set()
        with contextlib.suppress(OSError):
            socket.create_connection(("127.0.0.1", self.port)).close()  # wakes the listener
        for thread in self._threads:
            thread.join()
        self._listener.close()

    def _listen(self) -> None:
        while True:
            client, _ = self._listener.accept()
            if self._closed.is_set():
                client.close()
                return
            self.connections += 1
            thread = threading.Thread(target=self._serve, args=(client, self.mode))
            self._threads.append(thread)
            thread.start()

    def _serve(self, client: socket.socket, mode: Mode) -> None:
        with client:
            if mode == "hang":
                self._closed.wait(60)
            if mode in ("refuse", "hang"):
                return
            with socket.create_connection(self._target) as server:
                answers = threading.Thread(target=self._pump, args=(server, client, True))
                answers.start()
                self._pump(client, server, False)
                answers.join()

    def _pump(self, source: socket.socket, sink: socket.socket, answers: bool) -> None:
        """Hand on what comes; an answer to be lost is waited for, and the line is broken instead."""
        source.settimeout(0.2)
        while not self._closed.is_set():
            try:
                data = source.recv(65536)
            except TimeoutError:
                continue
            except OSError:
                break
            if not data or (answers and self.mode == "lose_answer"):
                break
            try:
                sink.sendall(data)
            except OSError:
                break
        for end in (source, sink):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
