"""A chat-completions server that answers every call after the same time, at next to no cost.

    python benchmarks/server.py --latency 0.05

It prints its port on the first line and serves until it is stopped.  It is a raw asyncio protocol
without a framework, so that a throughput below the ceiling is due to the client.  Pipelined
requests are not supported; keep-alive is.
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
    {
        "object": "list",
        "data": [
            {
                "id": MODEL,
                "object": "model",
                "max_model_len": 32768,
            }
        ],
    }
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
        "usage": {
            "prompt_tokens": 60,
            "completion_tokens": 9,
            "total_tokens": 69,
        },
    }
).encode()


def _frame(body: bytes) -> bytes:
    head = (
        f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


# Framed once: the server's own work must not be measured.
_FRAMED_LIST = _frame(_LIST)
_FRAMED_REPLY = _frame(_REPLY)


class FixedLatency(asyncio.Protocol):
    """One connection: GET gets the model list at once, POST the reply after `latency` seconds."""

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
            self.transport.write(_FRAMED_LIST)
            return
        head = self.buffer[:end].lower()
        _, _, rest = head.partition(b"content-length:")
        length, _, _ = rest.partition(b"\r\n")
        body_start = end + len(b"\r\n\r\n")
        if len(self.buffer) - body_start < int(length):
            return
        self.buffer = b""
        asyncio.get_running_loop().call_later(self.latency, self.answer)

    def answer(self) -> None:
        """Send the reply, unless the client has left."""
        if not self.transport.is_closing():
            self.transport.write(_FRAMED_REPLY)


async def serve(latency: float) -> None:
    """Serve on a free loopback port until cancelled."""
    loop = asyncio.get_running_loop()
    # All clients of a benchmark connect at once, so the backlog has to hold them.
    server = await loop.create_server(
        lambda: FixedLatency(latency),
        "127.0.0.1",
        0,
        backlog=2048,
    )
    _, port = server.sockets[0].getsockname()
    print(port, flush=True)
    await server.serve_forever()


@contextlib.contextmanager
def running(latency: float) -> Iterator[str]:
    """Run the server in a process of its own; yields its base URL."""
    script = Path(__file__).resolve()
    command = [sys.executable, str(script), "--latency", str(latency)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            port = int(process.stdout.readline())
            yield f"http://127.0.0.1:{port}/v1"
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
