"""Prompt tokens that vLLM finds in its prefix cache, with and without our order of work.

    python benchmarks/prefix_cache.py --model Qwen/Qwen3-8B

Each method runs on one task with its samples in our order (by user) and at random, and with each
request as we write it (stable parts first) and with its last message moved to the front.  All runs
use one server, each with a cache of its own (`cache_salt`).  Shares are of tokens, so that a busy
machine does not change them; a cache that is too small for the requests in flight does.
"""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import random
import shlex
import subprocess
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec

from personabench.errors import UsageError
from personabench.models.backends.base import BackendOptions
from personabench.models.backends.vllm import VLLM
from personabench.models.backends.vllm_server import command, free_port
from personabench.run import runner
from personabench.run.resolve import ResolvedRun
from personabench.types import Request, Response, Sampling

ORDERS = {"samples by user": False, "samples at random": True}
LAYOUTS = {"stable parts first": False, "question first": True}


class LayoutBackend(VLLM):
    """A running server.

    Attributes:
        question_first: move the last message of each request to the front.
        reply_tokens: cut every reply to so many tokens.
    """

    def __init__(
        self, options: BackendOptions, question_first: bool, reply_tokens: int | None
    ) -> None:
        super().__init__(options)
        self.question_first = question_first
        self.reply_tokens = reply_tokens

    async def complete(self, request: Request, group: str) -> Response:
        if self.question_first:
            *first, last = request.messages
            request = msgspec.structs.replace(request, messages=(last, *first))
        if self.reply_tokens is not None:
            limit = min(request.max_tokens, self.reply_tokens)
            request = msgspec.structs.replace(request, max_tokens=limit)
        return await super().complete(request, group)


@contextmanager
def served(model: str, arguments: list[str], log: Path) -> Iterator[str]:
    """Start a server; yield its address."""
    port = free_port()
    words = command(model, arguments, None, port)
    with log.open("wb") as output:
        server = subprocess.Popen(words, stdout=output, stderr=subprocess.STDOUT)
    try:
        while not _is_ready(port):
            if server.poll() is not None:
                raise SystemExit(f"the server ended; see {log}")
            time.sleep(1)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        server.terminate()
        server.wait()


def _is_ready(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=2):
            return True
    except OSError:
        return False


@contextmanager
def random_order(wanted: bool) -> Iterator[None]:
    """Have runs work on their samples at random."""
    resolve = runner.resolve

    def shuffled(*arguments: Any, **options: Any) -> list[ResolvedRun]:
        jobs = resolve(*arguments, **options)
        return [
            dataclasses.replace(
                job, positions=random.Random(0).sample(job.positions, len(job.positions))
            )
            for job in jobs
        ]

    if wanted:
        runner.resolve = shuffled
    try:
        yield
    finally:
        runner.resolve = resolve


async def measure(
    options: argparse.Namespace, url: str, method: str, random_samples: bool, question_first: bool
) -> tuple[float, float]:
    """Run a method; returns the share of prompt tokens from the cache, and the prompt tokens."""
    salt = f"{method} {random_samples} {question_first}"
    backend_options = BackendOptions(model=options.model, base_url=url, extra={"cache_salt": salt})
    with tempfile.TemporaryDirectory() as folder, random_order(random_samples):
        run_options = runner.Options(
            methods=[method],
            tasks=[options.task],
            limit=options.limit,
            backend="vllm",
            backend_options=backend_options,
            concurrency=options.concurrency,
            sampling=Sampling(max_tokens=options.max_tokens),
            results=Path(folder),
            cache="off",
        )
        backend = LayoutBackend(backend_options, question_first, options.reply_tokens)
        (outcome,) = await runner.run(run_options, backend=backend)
    counts = outcome.summary.prefix_cache
    assert counts is not None, "the server does not report its prefix cache"
    return counts["hits"] / counts["queries"], counts["queries"]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", required=True)
    parser.add_argument("--methods", default="rag,full,dpl,rpm")
    parser.add_argument("--task", default="lamp4")
    parser.add_argument("--limit", type=int, default=37, help="questions, rounded up to users")
    parser.add_argument("--concurrency", type=int, default=8)
    parser.add_argument("--max-tokens", type=int, default=None, help="of each answer")
    parser.add_argument(
        "--reply-tokens",
        type=int,
        default=None,
        help="cut every reply, those about users as well, as on a slow server",
    )
    parser.add_argument("--vllm-args", default="", help="arguments of the server")
    parser.add_argument("--log", type=Path, default=Path("vllm.log"))
    options = parser.parse_args()

    arguments = ["--enable-prefix-caching", *shlex.split(options.vllm_args)]
    print(f"{'':8}{'tokens':>10}  share from the cache")
    with served(options.model, arguments, options.log) as url:
        for method in options.methods.split(","):
            for layout, question_first in LAYOUTS.items():
                for order, at_random in ORDERS.items():
                    share, tokens = asyncio.run(
                        measure(options, url, method, at_random, question_first)
                    )
                    row = f"{method:8}{tokens:10.0f}  {share:.1%}  {order}, {layout}"
                    print(row, flush=True)


if __name__ == "__main__":
    try:
        main()
    except UsageError as error:
        raise SystemExit(f"error: {error}") from None
