"""What a run costs beside the model: time, CPU and memory per call, against what a user would write by hand.

    python benchmarks/throughput.py --samples 2000 --latency 0.05 --concurrency 64
    python benchmarks/throughput.py --memory

All contenders ask the same questions (invented LaMP-4 data) of one fixed-latency server, each in a fresh process:
personabench doing a whole run (load, render, key, cache, call, ledger, append, score) on its `vllm` and its `openai`
backend, its calls alone on each (key, cache, call, ledger, append), a loop over the openai SDK with its default and
with its aiohttp transport, a loop over bare aiohttp, and lm-eval and inspect-ai where the interpreter that
`--peer-python` names has them.  The loops keep nothing and score nothing.  Figures are beyond start-up: a run of one
wave (as many samples as calls in flight) is subtracted.  The ceiling is samples x latency / concurrency.  Minima of
several rounds, since other work on the machine only ever adds.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

import peers
from server import MODEL, running

RECORDS = 10
MAX_TOKENS = 64


class Cost(NamedTuple):
    """One run: seconds of wall time, seconds of CPU (user and system), peak resident MiB."""

    wall: float
    cpu: float
    peak: float


def generate(folder: Path, samples: int, seed: int = 0) -> None:
    """Write LaMP-4 files of so many questions, two to a user, `RECORDS` records to a profile."""
    rng = random.Random(seed)
    words = [
        "".join(rng.choices("abcdefghijklmnopqrstuvwxyz", k=rng.randint(2, 10)))
        for _ in range(5000)
    ]

    def text(length: int) -> str:
        return " ".join(rng.choices(words, k=length))

    with (
        (folder / "dev_questions.json").open("w") as questions,
        (folder / "dev_outputs.json").open("w") as outputs,
    ):
        questions.write("[")
        outputs.write('{"task": "LaMP_4", "golds": [')
        for number in range(samples):
            profile = [
                {
                    "id": f"{number}-{at}",
                    "text": text(35),
                    "title": text(9),
                    "date": f"2020-01-{at + 1:02}",
                }
                for at in range(RECORDS)
            ]
            record = {
                "id": f"q{number}",
                "input": f"Generate a headline for the following article: {text(35)}",
                "profile": profile,
                "user_id": f"u{number // 2}",
            }
            comma = "," if number else ""
            questions.write(comma + json.dumps(record))
            outputs.write(comma + json.dumps({"id": record["id"], "output": text(9)}))
        questions.write("]")
        outputs.write("]}")


async def _personabench(backend: str, url: str, data: Path, concurrency: int) -> None:
    """A whole run of the method `none`, results and cache in a new folder."""
    from personabench.models.backends.base import BackendOptions
    from personabench.run import runner

    with tempfile.TemporaryDirectory(dir=data.parent) as results:
        options = runner.Options(
            methods=["none"],
            tasks=["lamp4"],
            data=data,
            backend=backend,
            backend_options=BackendOptions(base_url=url),
            concurrency=concurrency,
            results=Path(results),
        )
        (outcome,) = await runner.run(options)
        assert outcome.summary["status"] == "complete", outcome.summary


async def _calls(name: str, url: str, data: Path, concurrency: int) -> None:
    """What a call costs on a backend: its key, the cache, the exchange, the receipt, the line on disk."""
    from personabench.models.backends import create
    from personabench.models.backends.base import BackendOptions
    from personabench.models.cache import Cache
    from personabench.models.client import Client
    from personabench.results.run_folder import RunFolder
    from personabench.types import Message, Prediction, Request

    with tempfile.TemporaryDirectory(dir=data.parent) as results:
        backend = create(name, BackendOptions(base_url=url))
        cache, folder = Cache(Path(results, "c")), RunFolder(Path(results))
        await backend.identify()
        await backend.open()
        client = Client(backend, cache, concurrency=concurrency)

        async def ask(question: str) -> None:
            request = Request((Message("user", question),), MAX_TOKENS)
            answer, call = await client.complete(request, "predict", question)
            line = Prediction("q", "u", answer.text, answer.text, {}, (call,), answer.usage)
            folder.append(folder.predictions_path, line)

        await _loop(data, concurrency, ask)
        await backend.aclose()
        cache.close()
        folder.close()


async def _loop(data: Path, concurrency: int, ask: Callable[[str], Awaitable[object]]) -> None:
    questions = [
        record["input"] for record in json.loads((data / "dev_questions.json").read_bytes())
    ]
    slots = asyncio.Semaphore(concurrency)

    async def one(question: str) -> None:
        async with slots:
            await ask(question)

    await asyncio.gather(*map(one, questions))


async def _sdk(url: str, data: Path, concurrency: int, *, aiohttp: bool) -> None:
    import openai

    transport = openai.DefaultAioHttpClient() if aiohttp else None
    async with openai.AsyncOpenAI(
        base_url=url, api_key="none", max_retries=0, http_client=transport
    ) as client:

        async def ask(question: str) -> str | None:
            reply = await client.chat.completions.create(
                model=MODEL,
                messages=[{"role": "user", "content": question}],
                max_tokens=MAX_TOKENS,
                temperature=0.0,
                seed=0,
            )
            return reply.choices[0].message.content

        await _loop(data, concurrency, ask)


async def sdk_default(url: str, data: Path, concurrency: int) -> None:
    """`AsyncOpenAI()` as it comes."""
    await _sdk(url, data, concurrency, aiohttp=False)


async def sdk_aiohttp(url: str, data: Path, concurrency: int) -> None:
    """`AsyncOpenAI(http_client=DefaultAioHttpClient())`."""
    await _sdk(url, data, concurrency, aiohttp=True)


async def bare_aiohttp(url: str, data: Path, concurrency: int) -> None:
    """`session.post(...)` and `json()`."""
    import aiohttp

    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=concurrency)) as session:

        async def ask(question: str) -> str:
            body = {
                "model": MODEL,
                "messages": [{"role": "user", "content": question}],
                "max_tokens": MAX_TOKENS,
            }
            async with session.post(f"{url}/chat/completions", json=body) as reply:
                content: str = (await reply.json())["choices"][0]["message"]["content"]
                return content

        await _loop(data, concurrency, ask)


CONTENDERS: dict[str, tuple[str, Callable[[str, Path, int], Awaitable[None]]]] = {
    "vllm": ("personabench, vllm backend", partial(_personabench, "vllm")),
    "vllm-calls": ("personabench's calls alone, vllm backend", partial(_calls, "vllm")),
    "openai": ("personabench, openai backend", partial(_personabench, "openai")),
    "openai-calls": ("personabench's calls alone, openai backend", partial(_calls, "openai")),
    "sdk-aiohttp": ("openai SDK loop, aiohttp", sdk_aiohttp),
    "sdk": ("openai SDK loop, default", sdk_default),
    "aiohttp": ("aiohttp loop", bare_aiohttp),
}


def child(name: str, url: str, data: Path, concurrency: int) -> None:
    """Run one contender in this process and print its cost."""
    started = time.perf_counter()
    asyncio.run(CONTENDERS[name][1](url, data, concurrency))  # type: ignore[arg-type]
    wall, used = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_SELF)
    print(json.dumps(Cost(wall, used.ru_utime + used.ru_stime, used.ru_maxrss / 1024)))


def measure(
    name: str, url: str, data: Path, concurrency: int, rounds: int, peer: str = sys.executable
) -> Cost:
    """The least of several runs of one contender, each in a fresh process."""
    if name in peers.MODULES:
        command = [peer, peers.__file__, name, url, str(data), str(concurrency)]
    else:
        command = [
            sys.executable,
            __file__,
            "--child",
            name,
            url,
            str(data),
            "--concurrency",
            str(concurrency),
        ]
    costs = []
    for _ in range(rounds):
        noise = subprocess.DEVNULL if name in peers.MODULES else None
        out = subprocess.run(
            command, check=True, stdout=subprocess.PIPE, stderr=noise, text=True
        ).stdout
        costs.append(Cost(*json.loads(out.splitlines()[-1])))
    return Cost(*map(min, zip(*costs, strict=True)))


def installed(name: str, peer: str) -> bool:
    """Whether an interpreter has a peer."""
    probe = f"import importlib.util, sys; sys.exit(importlib.util.find_spec({peers.MODULES[name]!r}) is None)"
    return subprocess.run([peer, "-c", probe]).returncode == 0


def compare(
    samples: int, latency: float, concurrency: int, rounds: int, names: list[str], peer: str
) -> None:
    """Print every contender's wall time, share of the ceiling, CPU per sample and peak memory."""
    if samples <= concurrency:
        raise SystemExit(
            f"--samples {samples}: more than the {concurrency} of --concurrency, which are start-up"
        )
    ideal = (samples - concurrency) * latency / concurrency
    print(
        f"{samples} samples, {latency * 1000:g} ms, {concurrency} in flight; ceiling {ideal:.2f} s after one wave"
    )
    print(
        f"{'':40}{'wall s':>9}{'of ceiling':>12}{'CPU ms/sample':>15}{'ratio':>8}{'peak MiB':>10}"
    )
    with tempfile.TemporaryDirectory() as folder, running(latency) as url:
        few, many = Path(folder, "few"), Path(folder, "many")
        few.mkdir()
        many.mkdir()
        generate(few, concurrency)
        generate(many, samples)
        first: float | None = None
        for name in names:
            label = CONTENDERS[name][0] if name in CONTENDERS else name
            if name in peers.MODULES and not installed(name, peer):
                print(f"{label:40} not installed")
                continue
            try:
                base = measure(name, url, few, concurrency, rounds, peer)
                cost = measure(name, url, many, concurrency, rounds, peer)
            except subprocess.CalledProcessError as error:
                print(f"{label:40} failed ({error})")
                continue
            wall, cpu = (
                cost.wall - base.wall,
                (cost.cpu - base.cpu) / (samples - concurrency) * 1000,
            )
            first = cpu if first is None else first
            print(
                f"{label:40}{wall:9.2f}{ideal / wall:12.0%}{cpu:15.3f}{cpu / first:8.2f}{cost.peak:10.0f}",
                flush=True,
            )


def memory(sizes: tuple[int, int], concurrency: int) -> None:
    """Print personabench's peak memory at two sizes and their ratio."""
    peaks, data_sizes = [], []
    with tempfile.TemporaryDirectory() as folder, running(0.0) as url:
        for samples in sizes:
            data = Path(folder, str(samples))
            data.mkdir()
            generate(data, samples)
            size = sum(path.stat().st_size for path in data.iterdir()) / 2**20
            cost = measure("vllm", url, data, concurrency, 1)
            peaks.append(cost.peak)
            data_sizes.append(size)
            print(
                f"{samples:7} samples: peak {cost.peak:.0f} MiB, of which the mapped data {size:.0f} MiB",
                flush=True,
            )
    small, large = (peak - size for peak, size in zip(peaks, data_sizes, strict=True))
    each = (large - small) / (sizes[1] - sizes[0]) * 1024
    print(f"without the data: ratio {large / small:.2f}, {each:.2f} KiB a sample")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--samples", type=int, default=2000)
    parser.add_argument(
        "--latency", type=float, default=0.05, help="seconds the server takes for a reply"
    )
    parser.add_argument("--concurrency", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=3, help="runs of each kind; the least counts")
    names = [*CONTENDERS, *peers.MODULES]
    parser.add_argument(
        "--only", nargs="+", choices=names, default=names, metavar="NAME", help=", ".join(names)
    )
    parser.add_argument(
        "--peer-python",
        default=sys.executable,
        help="the interpreter that has lm-eval and inspect-ai",
    )
    parser.add_argument(
        "--memory", action="store_true", help="peak memory at 2,000 and 20,000 samples instead"
    )
    parser.add_argument("--child", nargs=3, metavar=("NAME", "URL", "DATA"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child:
        name, url, data = given.child
        child(name, url, Path(data), given.concurrency)
    elif given.memory:
        memory((2000, 20000), given.concurrency)
    else:
        compare(
            given.samples,
            given.latency,
            given.concurrency,
            given.rounds,
            given.only,
            given.peer_python,
        )


if __name__ == "__main__":
    main()
