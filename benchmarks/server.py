"""A chat-completions server that answers every call after the same time, and costs next to nothing itself.

    python benchmarks/server.py --latency 0.05

It prints its port on the first line and serves until it is stopped.  Raw asyncio protocol, no framework: what a client
cannot reach on it is the client's doing.  Pipelined requests are not supported; keep-alive is.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

MODEL = "fixed-latency"
_LIST = json.dumps(
    {"object": "list", "data": [{"id": MODEL, "object": "model", "max_model_len": 32768}]}
).encode()
_REPLY = json.dumps(
    {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 0,
        "model": MODEL,
        "choices": [
            {
                "index": 0,
                "message": {
                    "role": "assistant",
                    "content": "A headline of a few words: nothing changes",
                },
                "finish_reason": "stop",
                "logprobs": None,
            }
        ],
        "usage": {"prompt_tokens": 60, "completion_tokens": 9, "total_tokens": 69},
    }
).encode()


def _framed(body: bytes) -> bytes:
    return b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s" % (
        len(body),
        body,
    )


class FixedLatency(asyncio.Protocol):
    """One connection: a GET gets the model list at once, a POST the reply after `latency` seconds."""

    def __init__(self, latency: float) -> None:
        self.latency = latency
        self.buffer = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        end = self.buffer.find(b"\r\n\r\n")
        if end < 0:
            return
        if self.buffer.startswith(b"GET"):
            self.buffer = b""
            self.transport.write(_framed(_LIST))
            return
        head = self.buffer[:end].lower()
        at = head.index(b"content-length:") + 15
        if len(self.buffer) - end - 4 < int(head[at:].split(b"\r\n", 1)[0]):
            return
        self.buffer = b""
        asyncio.get_running_loop().call_later(self.latency, self.answer)

    def answer(self) -> None:
        """Send the reply, unless the client has left."""
        if not self.transport.is_closing():
            self.transport.write(_FRAMED)


_FRAMED = _framed(_REPLY)


async def serve(latency: float) -> None:
    """Serve on a free loopback port until cancelled."""
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: FixedLatency(latency), "127.0.0.1", 0, backlog=2048)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


@contextlib.contextmanager
def running(latency: float) -> Iterator[str]:
    """The server in a process of its own; yields its base URL."""
    command = [sys.executable, str(Path(__file__).resolve()), "--latency", str(latency)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield f"http://127.0.0.1:{int(process.stdout.readline())}/v1"
        finally:
            process.terminate()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--latency", type=float, default=0.05, help="seconds from a request to its reply"
    )
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(serve(parser.parse_args().latency))
