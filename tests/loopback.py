"""Servers on loopback: JSON by a handler, and the files of a folder."""

from __future__ import annotations

import functools
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, TypeVar

Server = TypeVar("Server", bound=ThreadingHTTPServer)


class JsonHandler(BaseHTTPRequestHandler):
    """Handler of JSON requests, whose connections stay open."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *_: Any) -> None:
        """Keep the output of tests free of requests."""

    def read_json(self) -> Any:
        """The body of the request."""
        return json.loads(self.rfile.read(int(self.headers["Content-Length"])))

    def send_json(self, value: Any, status: int = 200) -> None:
        data = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def send_models(self, *names: str) -> None:
        """The models of an OpenAI-compatible server."""
        self.send_json({"object": "list", "data": [{"id": n, "object": "model"} for n in names]})

    def send_answer(self, text: str, input_tokens: int = 9) -> None:
        """A chat completion."""
        choice = {
            "index": 0,
            "message": {"role": "assistant", "content": text},
            "finish_reason": "stop",
        }
        usage = {
            "prompt_tokens": input_tokens,
            "completion_tokens": 5,
            "total_tokens": input_tokens + 5,
        }
        self.send_json({"choices": [choice], "usage": usage})


class LoopbackServer(ThreadingHTTPServer):
    """A server at a free port.

    Attributes:
        requested: the paths of requests, if its handler notes them.
    """

    daemon_threads = True
    request_queue_size = 256

    def __init__(self, handler: Callable[..., BaseHTTPRequestHandler]) -> None:
        super().__init__(("127.0.0.1", 0), handler)
        self.requested: list[str] = []

    def handle_error(self, *_: Any) -> None:
        """A killed client closes its connections; that is no news."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


@contextmanager
def serving(server: Server) -> Iterator[Server]:
    """Run a server until the end of the block."""
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _FileHandler(SimpleHTTPRequestHandler):
    server: LoopbackServer

    def log_message(self, *_: object) -> None:
        self.server.requested.append(self.path)


def folder_server(folder: Path) -> LoopbackServer:
    """A server of the files in a folder."""
    return LoopbackServer(functools.partial(_FileHandler, directory=str(folder)))
