"""The packaged model against its repacked file: speed, and agreement of greedy answers.

    python benchmarks/repack.py [--limit 12] [--rounds 2]

Both answer the demo's questions (`none` and `rag` on the example data of lamp4) in fresh processes
that take turns, so that other work on the machine meets both.  Minima of the rounds are compared:
wall time of the calls, and CPU time, which other work changes least.  The repacked file is made
before the first round, in the user's cache; the seconds are printed if it was missing.  Every round
is also compared with the first one of the same file: llama.cpp's batching changes last digits, so
greedy answers of one file differ between runs as well.

    python benchmarks/repack.py --settings n_parallel=1 n_parallel=8 n_ubatch=256

compares the repacked file with itself under other settings of llama.cpp (fields of xllamacpp's
`CommonParams`; flash_attn_type=DISABLED or ENABLED; threads, which the backend chooses by the cores
that are free).  `--settings` alone compares those that may depend on the machine: slots, threads up
to its cores, batches, flash attention and the reuse of prompts.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

from personabench.models.backends import local, threads

METHODS = ("none", "rag")


class Cost(NamedTuple):
    """One process: wall seconds of each method's calls, CPU seconds, and outputs by sample."""

    seconds: dict[str, float]
    cpu: float
    outputs: dict[str, str]


def change_setting(setting: str) -> None:
    """Have the local backend load models with another value of a parameter of llama.cpp."""
    import xllamacpp

    name, _, value = setting.partition("=")
    kind = xllamacpp.llama_flash_attn_type
    typed: Any = {"true": True, "false": False}.get(value)
    if name == "flash_attn_type":
        typed = getattr(kind, f"LLAMA_FLASH_ATTN_TYPE_{value}")
    elif typed is None:
        typed = int(value)
    if name == "threads":
        os.environ[threads.THREADS] = value
        return
    if name == "n_parallel":
        local.SLOTS = local.Local.concurrency = typed
        return

    original = xllamacpp.Server

    def create(params: Any) -> Any:
        setattr(params, name, typed)
        return original(params)

    xllamacpp.Server = create


def list_settings() -> list[str]:
    """List the settings whose best value may depend on the machine."""
    cores = os.cpu_count() or 1
    powers = [1 << exponent for exponent in range(cores.bit_length())]
    threads = sorted({*powers, cores})
    return [
        *(f"threads={count}" for count in threads if count <= cores),
        *(f"n_parallel={count}" for count in (1, 2, 8, 16)),
        *(f"n_ubatch={count}" for count in (128, 256, 1024)),
        "flash_attn_type=DISABLED",
        "kv_unified=true",
        "cache_ram_mib=0",
        "n_cache_reuse=64",
    ]


async def run_demo(model: str | None, limit: int) -> Cost:
    """Run the demo's methods on the example data, with results in a temporary folder."""
    from personabench.models.backends.base import BackendOptions
    from personabench.run import runner

    with tempfile.TemporaryDirectory() as results:
        options = runner.Options(
            methods=METHODS,
            tasks=["lamp4"],
            limit=limit,
            backend_options=BackendOptions(model=model),
            results=Path(results),
        )
        outcomes = await runner.run(options)
        seconds, outputs = {}, {}
        for outcome in outcomes:
            method = outcome.summary.method
            seconds[method] = outcome.summary.seconds
            for line in (outcome.folder / "predictions.jsonl").read_text().splitlines():
                prediction = json.loads(line)
                outputs[f"{method} {prediction['sample_id']}"] = prediction["output"]
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return Cost(seconds, usage.ru_utime + usage.ru_stime, outputs)


def measure(model: str | None, limit: int, setting: str = "") -> Cost:
    """Run the demo in a fresh process."""
    command = [sys.executable, __file__, "--child", model or "", setting, "--limit", str(limit)]
    process = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    last_line = process.stdout.splitlines()[-1]
    return Cost(*json.loads(last_line))


def compare(contenders: dict[str, tuple[str | None, str]], limit: int, rounds: int) -> None:
    """Print the costs of contenders, each against the first, in rounds that take turns."""
    costs: dict[str, list[Cost]] = {name: [] for name in contenders}
    for _ in range(rounds):
        for name, (model, setting) in contenders.items():
            costs[name].append(measure(model, limit, setting))

    print(
        f"{'':34}{'none s':>9}{'rag s':>9}{'CPU s':>9}{'wall':>7}{'CPU':>7}  answers as the first"
    )
    first = next(iter(costs))
    for name, rows in costs.items():
        seconds = [min(row.seconds[method] for row in rows) for method in METHODS]
        cpu = min(row.cpu for row in rows)
        wall_ratio = sum(seconds) / sum(
            min(row.seconds[method] for row in costs[first]) for method in METHODS
        )
        cpu_ratio = cpu / min(row.cpu for row in costs[first])
        # The first contender's own second run shows how far answers differ without a change.
        others = rows[1:] if name == first else rows
        agreement = [count_equal(row.outputs, costs[first][0].outputs) for row in others]
        counts = ", ".join(f"{equal}/{len(rows[0].outputs)}" for equal in agreement)
        print(
            f"{name:34}{seconds[0]:9.1f}{seconds[1]:9.1f}{cpu:9.1f}{wall_ratio:7.2f}"
            f"{cpu_ratio:7.2f}  {counts}",
            flush=True,
        )


def count_equal(a: dict[str, str], b: dict[str, str]) -> int:
    """Count the samples with the same output."""
    return sum(a[sample] == b[sample] for sample in a)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--limit", type=int, default=12, help="samples of each method")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--settings", nargs="*", metavar="NAME=VALUE")
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        model, setting = options.child
        if setting:
            change_setting(setting)
        print(json.dumps(asyncio.run(run_demo(model or None, options.limit))))
        return

    started = time.perf_counter()
    path = local.find_model(local.REPACKED)
    seconds = time.perf_counter() - started
    print(f"{path.name}, {path.stat().st_size / 1e6:.0f} MB, ready in {seconds:.1f} s")
    contenders: dict[str, tuple[str | None, str]]
    if options.settings is not None:
        settings = options.settings or list_settings()
        contenders = {"as shipped": (local.REPACKED, "")}
        contenders |= {setting: (local.REPACKED, setting) for setting in settings}
        print(f"{os.cpu_count()} cores; the backend would use {threads.free_cores()} now")
    else:
        contenders = {"the packaged file": (None, ""), "repacked": (local.REPACKED, "")}
    compare(contenders, options.limit, options.rounds)


if __name__ == "__main__":
    main()
