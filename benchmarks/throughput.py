"""Overhead of a run beside the model: time, CPU and memory per call, against hand-written loops.

    python benchmarks/throughput.py --samples 2000 --latency 0.05 --concurrency 64
    python benchmarks/throughput.py --memory
    python benchmarks/throughput.py --whole --concurrency 128

All contenders send the same questions (generated LaMP-4 data) to one fixed-latency server, each in
a fresh process: personabench doing a whole run (load, render, key, cache, call, usage, append,
score) on its `vllm` and its `openai` backend, its calls alone on each (key, cache, call, usage,
append), a loop over the openai SDK with its default and with its aiohttp transport, a loop over
bare aiohttp, and lm-eval and inspect-ai if the interpreter of `--peer-python` has them.  The loops
store nothing and score nothing.  Start-up is not included: a run of one wave (as many samples as
calls in flight) is subtracted; `--whole` compares whole processes of a run and of the bare aiohttp
loop as well.  The ceiling is samples x latency / concurrency.  Minima of several rounds, since
other work on the machine only ever adds.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
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


def generate(
    folder: Path,
    samples: int,
    seed: int = 0,
) -> None:
    """Write LaMP-4 files of `samples` questions, two per user, with `RECORDS` records each."""
    rng = random.Random(seed)
    words = []
    for _ in range(5000):
        letters = rng.choices("abcdefghijklmnopqrstuvwxyz", k=rng.randint(2, 10))
        words.append("".join(letters))

    def generate_text(length: int) -> str:
        return " ".join(rng.choices(words, k=length))

    def generate_record(
        number: int,
        index: int,
    ) -> dict[str, str]:
        return {
            "id": f"{number}-{index}",
            "text": generate_text(35),
            "title": generate_text(9),
            "date": f"2020-01-{index + 1:02}",
        }

    # Written as they are generated: 20,000 samples must not count towards our memory.
    with (
        (folder / "dev_questions.json").open("w") as questions,
        (folder / "dev_outputs.json").open("w") as outputs,
    ):
        questions.write("[")
        outputs.write('{"task": "LaMP_4", "golds": [')
        for number in range(samples):
            profile = [generate_record(number, index) for index in range(RECORDS)]
            question = {
                "id": f"q{number}",
                "input": f"Generate a headline for the following article: {generate_text(35)}",
                "profile": profile,
                "user_id": f"u{number // 2}",
            }
            gold = {"id": question["id"], "output": generate_text(9)}
            comma = "," if number else ""
            questions.write(comma + json.dumps(question))
            outputs.write(comma + json.dumps(gold))
        questions.write("]")
        outputs.write("]}")


async def _run_personabench(
    backend: str,
    url: str,
    data: Path,
    concurrency: int,
) -> None:
    """Run the method `none` with results and cache in a new folder."""
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
        assert outcome.summary.status == "complete", outcome.summary


async def _call_backend(
    name: str,
    url: str,
    data: Path,
    concurrency: int,
) -> None:
    """Make calls on a backend: key, cache, exchange, usage, line on disk."""
    from personabench.models.backends import create
    from personabench.models.backends.base import BackendOptions
    from personabench.models.cache import Cache
    from personabench.models.client import Client
    from personabench.results.run_folder import RunFolder
    from personabench.types import Message, Prediction, Request

    with tempfile.TemporaryDirectory(dir=data.parent) as results:
        backend = create(name, BackendOptions(base_url=url))
        cache = Cache(Path(results, "c"))
        folder = RunFolder(Path(results))
        await backend.identify()
        await backend.open()
        client = Client(backend, cache, concurrency=concurrency)

        async def send(question: str) -> None:
            request = Request((Message("user", question),), MAX_TOKENS)
            answer, call = await client.complete(request, "predict", question)
            prediction = Prediction(
                "q",
                "u",
                answer.text,
                answer.text,
                {},
                (call,),
                answer.usage,
            )
            folder.append(folder.predictions_path, prediction)

        await _send_all(data, concurrency, send)
        await backend.aclose()
        cache.close()
        folder.close()


async def _send_all(
    data: Path,
    concurrency: int,
    send: Callable[[str], Awaitable[object]],
) -> None:
    records = json.loads((data / "dev_questions.json").read_bytes())
    slots = asyncio.Semaphore(concurrency)

    async def send_in_slot(question: str) -> None:
        async with slots:
            await send(question)

    await asyncio.gather(*(send_in_slot(record["input"]) for record in records))


async def _call_sdk(
    url: str,
    data: Path,
    concurrency: int,
    *,
    aiohttp: bool,
) -> None:
    import openai

    transport = openai.DefaultAioHttpClient() if aiohttp else None
    # No retries: a failed call has to fail the benchmark.
    sdk = openai.AsyncOpenAI(
        base_url=url,
        api_key="none",
        max_retries=0,
        http_client=transport,
    )
    async with sdk as client:

        async def send(question: str) -> str | None:
            reply = await client.chat.completions.create(
                model=MODEL,
                messages=[{"role": "user", "content": question}],
                max_tokens=MAX_TOKENS,
                temperature=0.0,
                seed=0,
            )
            return reply.choices[0].message.content

        await _send_all(data, concurrency, send)


async def sdk_default(
    url: str,
    data: Path,
    concurrency: int,
) -> None:
    """Call `AsyncOpenAI()` with its defaults."""
    await _call_sdk(url, data, concurrency, aiohttp=False)


async def sdk_aiohttp(
    url: str,
    data: Path,
    concurrency: int,
) -> None:
    """Call `AsyncOpenAI(http_client=DefaultAioHttpClient())`."""
    await _call_sdk(url, data, concurrency, aiohttp=True)


async def bare_aiohttp(
    url: str,
    data: Path,
    concurrency: int,
) -> None:
    """Call `session.post(...)` and `json()`."""
    import aiohttp

    connector = aiohttp.TCPConnector(limit=concurrency)
    async with aiohttp.ClientSession(connector=connector) as session:

        async def send(question: str) -> str:
            payload = {
                "model": MODEL,
                "messages": [{"role": "user", "content": question}],
                "max_tokens": MAX_TOKENS,
            }
            async with session.post(f"{url}/chat/completions", json=payload) as reply:
                body = await reply.json()
                content: str = body["choices"][0]["message"]["content"]
                return content

        await _send_all(data, concurrency, send)


Contender = Callable[[str, Path, int], Awaitable[None]]
CONTENDERS: dict[str, tuple[str, Contender]] = {
    "vllm": ("personabench, vllm backend", partial(_run_personabench, "vllm")),
    "vllm-calls": ("personabench's calls alone, vllm backend", partial(_call_backend, "vllm")),
    "openai": ("personabench, openai backend", partial(_run_personabench, "openai")),
    "openai-calls": (
        "personabench's calls alone, openai backend",
        partial(_call_backend, "openai"),
    ),
    "sdk-aiohttp": ("openai SDK loop, aiohttp", sdk_aiohttp),
    "sdk": ("openai SDK loop, default", sdk_default),
    "aiohttp": ("aiohttp loop", bare_aiohttp),
}


def run_child(
    name: str,
    url: str,
    data: Path,
    concurrency: int,
) -> None:
    """Run one contender in this process and print its cost."""
    started = time.perf_counter()
    _, contender = CONTENDERS[name]
    asyncio.run(contender(url, data, concurrency))  # type: ignore[arg-type]
    wall = time.perf_counter() - started
    usage = resource.getrusage(resource.RUSAGE_SELF)
    cpu = usage.ru_utime + usage.ru_stime
    # Linux counts the peak in KiB.
    print(json.dumps(Cost(wall, cpu, usage.ru_maxrss / 1024)))


def measure(
    name: str, url: str, data: Path, concurrency: int, rounds: int, peer: str = sys.executable
) -> Cost:
    """Measure the minimum of several runs of one contender, each in a fresh process."""
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
        # Other harnesses print progress on standard error.
        stderr = subprocess.DEVNULL if name in peers.MODULES else None
        process = subprocess.run(
            command,
            check=True,
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
        )
        last_line = process.stdout.splitlines()[-1]
        costs.append(Cost(*json.loads(last_line)))
    return Cost(*map(min, zip(*costs, strict=True)))


def is_installed(name: str, peer: str) -> bool:
    """Whether an interpreter has a peer's package."""
    module = peers.MODULES[name]
    probe = f"import importlib.util, sys; sys.exit(importlib.util.find_spec({module!r}) is None)"
    process = subprocess.run([peer, "-c", probe])
    return process.returncode == 0


def compare(
    samples: int,
    latency: float,
    concurrency: int,
    rounds: int,
    contenders: list[str],
    peer: str,
) -> None:
    """Print every contender's wall time, share of the ceiling, CPU per sample and peak memory."""
    if samples <= concurrency:
        raise SystemExit(
            f"--samples {samples}: must exceed the {concurrency} of --concurrency, which count as "
            "start-up"
        )
    ideal = (samples - concurrency) * latency / concurrency
    print(
        f"{samples} samples, {latency * 1000:g} ms, {concurrency} in flight; "
        f"ceiling {ideal:.2f} s after one wave"
    )
    print(
        f"{'':40}{'wall s':>9}{'of ceiling':>12}{'CPU ms/sample':>15}{'ratio':>8}{'peak MiB':>10}"
    )
    with tempfile.TemporaryDirectory() as folder, running(latency) as url:
        few = Path(folder, "few")
        many = Path(folder, "many")
        few.mkdir()
        many.mkdir()
        generate(few, concurrency)
        generate(many, samples)
        first_cpu: float | None = None
        for name in contenders:
            label = CONTENDERS[name][0] if name in CONTENDERS else name
            if name in peers.MODULES and not is_installed(name, peer):
                print(f"{label:40} not installed")
                continue
            try:
                base = measure(name, url, few, concurrency, rounds, peer)
                cost = measure(name, url, many, concurrency, rounds, peer)
            except subprocess.CalledProcessError as error:
                print(f"{label:40} failed ({error})")
                continue
            # The first wave is start-up: imports, connections and caches of the interpreter.
            wall = cost.wall - base.wall
            cpu = (cost.cpu - base.cpu) / (samples - concurrency) * 1000
            if first_cpu is None:
                first_cpu = cpu
            print(
                f"{label:40}{wall:9.2f}{ideal / wall:12.0%}{cpu:15.3f}{cpu / first_cpu:8.2f}"
                f"{cost.peak:10.0f}",
                flush=True,
            )


def compare_whole(samples: int, latency: float, concurrency: int, rounds: int) -> None:
    """Print the time of whole processes, start-up included, against that of the bare loop.

    Wall time is what counts: work that is done while answers are awaited takes none.
    """
    names = ("vllm", "aiohttp")
    sizes = {"start-up": concurrency, "whole": samples}
    costs: dict[tuple[str, str], list[Cost]] = {}
    with tempfile.TemporaryDirectory() as folder, running(latency) as url:
        for size, count in sizes.items():
            Path(folder, size).mkdir()
            generate(Path(folder, size), count)
        # Compiled files of modules, as after an installation; the first round writes them.
        bytecode = Path(folder, "bytecode")
        # In turns, so that other work on the machine meets both.
        for number in range(rounds + 1):
            for size in sizes:
                for name in names:
                    cost = measure_process(name, url, Path(folder, size), concurrency, bytecode)
                    if number:
                        costs.setdefault((name, size), []).append(cost)

    print(f"{samples} samples, {latency * 1000:g} ms, {concurrency} in flight")
    print(f"{'':40}{'whole process':>20}{'beyond start-up':>20}")
    print(f"{'':40}{'wall s':>11}{'CPU s':>9}{'wall s':>11}{'CPU s':>9}")
    least = {key: Cost(*map(min, zip(*runs, strict=True))) for key, runs in costs.items()}
    figures = []
    for name in names:
        whole, start = least[name, "whole"], least[name, "start-up"]
        row = (whole.wall, whole.cpu, whole.wall - start.wall, whole.cpu - start.cpu)
        figures.append(row)
        wall, cpu, wall_beyond, cpu_beyond = row
        label, _ = CONTENDERS[name]
        print(f"{label:40}{wall:11.2f}{cpu:9.2f}{wall_beyond:11.2f}{cpu_beyond:9.2f}")
    wall, cpu, wall_beyond, cpu_beyond = (a / b for a, b in zip(*figures, strict=True))
    print(f"{'ratio':40}{wall:11.2f}{cpu:9.2f}{wall_beyond:11.2f}{cpu_beyond:9.2f}")


def measure_process(name: str, url: str, data: Path, concurrency: int, bytecode: Path) -> Cost:
    """Measure one contender's process from its start to its end.

    Args:
        bytecode: the folder of compiled modules, whatever the environment says about them.
    """
    environment = {**os.environ, "PYTHONPYCACHEPREFIX": str(bytecode)}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    command = [sys.executable, __file__, "--child", name, url, str(data)]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    started = time.perf_counter()
    subprocess.run(
        [*command, "--concurrency", str(concurrency)],
        check=True,
        stdout=subprocess.DEVNULL,
        env=environment,
    )
    wall = time.perf_counter() - started
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Cost(wall, cpu, after.ru_maxrss / 1024)


def compare_memory(
    sizes: tuple[int, int],
    concurrency: int,
) -> None:
    """Print personabench's peak memory at two sizes and their ratio."""
    own_peaks = []
    with tempfile.TemporaryDirectory() as folder, running(0.0) as url:
        for samples in sizes:
            data = Path(folder, str(samples))
            data.mkdir()
            generate(data, samples)
            size = sum(path.stat().st_size for path in data.iterdir()) / 2**20
            cost = measure("vllm", url, data, concurrency, 1)
            own_peaks.append(cost.peak - size)
            print(
                f"{samples:7} samples: peak {cost.peak:.0f} MiB, "
                f"of which the mapped data {size:.0f} MiB",
                flush=True,
            )
    small, large = own_peaks
    per_sample = (large - small) / (sizes[1] - sizes[0]) * 1024
    print(f"without the data: ratio {large / small:.2f}, {per_sample:.2f} KiB a sample")


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
    choices = [*CONTENDERS, *peers.MODULES]
    parser.add_argument(
        "--only",
        nargs="+",
        choices=choices,
        default=choices,
        metavar="NAME",
        help=", ".join(choices),
    )
    parser.add_argument(
        "--peer-python",
        default=sys.executable,
        help="the interpreter that has lm-eval and inspect-ai",
    )
    parser.add_argument(
        "--memory", action="store_true", help="peak memory at 2,000 and 20,000 samples instead"
    )
    parser.add_argument(
        "--whole", action="store_true", help="whole processes of a run and of the bare loop instead"
    )
    parser.add_argument(
        "--child",
        nargs=3,
        metavar=("NAME", "URL", "DATA"),
        help=argparse.SUPPRESS,
    )
    options = parser.parse_args()
    if options.child:
        name, url, data = options.child
        run_child(name, url, Path(data), options.concurrency)
    elif options.whole:
        compare_whole(options.samples, options.latency, options.concurrency, options.rounds)
    elif options.memory:
        compare_memory((2000, 20000), options.concurrency)
    else:
        compare(
            options.samples,
            options.latency,
            options.concurrency,
            options.rounds,
            options.only,
            options.peer_python,
        )


if __name__ == "__main__":
    main()
