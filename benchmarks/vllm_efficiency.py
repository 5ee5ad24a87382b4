"""Tokens per second through the harness, against `vllm.LLM.chat` on the same prompts.

    python benchmarks/vllm_efficiency.py --model Qwen/Qwen3-8B --samples 4096 --vllm-args "--max-model-len 4096"

First personabench starts the server and runs the method (data, prompts, HTTP, cache, ledger, files); then vLLM's
offline engine, in a process of its own with the same arguments, answers the very prompts that were sent, in one batch.
Loading and a warm-up on other prompts are not timed.  Both decode greedily up to `--max-tokens` with prefix caching on,
so both generate about the same tokens; the ratio of tokens per second is the share of the engine that the harness gets
out of it.  vLLM is found as by `--backend vllm`; its command has to begin with a Python interpreter.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import shlex
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from throughput import generate

from personabench.models.backends.base import BackendOptions
from personabench.models.backends.vllm import VLLM
from personabench.models.backends.vllm_server import command
from personabench.run import runner
from personabench.types import Request, Response, Sampling, to_json

OFFLINE = """
import json, sys, time
from dataclasses import asdict
from vllm import LLM, SamplingParams
from vllm.engine.arg_utils import EngineArgs
try:
    from vllm.utils.argparse_utils import FlexibleArgumentParser
except ImportError:
    from vllm.utils import FlexibleArgumentParser
warm, timed, tokens, out, *arguments = sys.argv[1:]
options = EngineArgs.add_cli_args(FlexibleArgumentParser()).parse_args(arguments)
llm = LLM(**vars(EngineArgs.from_cli_args(options)))
sampling = SamplingParams(temperature=0.0, max_tokens=int(tokens), seed=0)
llm.chat(json.load(open(warm)), sampling, use_tqdm=False)
prompts = json.load(open(timed))
started = time.perf_counter()
answers = llm.chat(prompts, sampling, use_tqdm=False)
seconds = time.perf_counter() - started
spent = [sum(len(answer.prompt_token_ids) for answer in answers), sum(len(a.outputs[0].token_ids) for a in answers)]
json.dump([seconds, *spent], open(out, "w"))
"""


class Noting(VLLM):
    """The backend, keeping the messages it sends."""

    def __init__(self, options: BackendOptions) -> None:
        super().__init__(options)
        self.sent: list[Any] = []

    async def complete(self, request: Request, group: str) -> Response:
        self.sent.append(request.messages)
        return await super().complete(request, group)


async def harness(given: argparse.Namespace, folder: Path, backend: Noting) -> list[list[float]]:
    """Seconds, prompt tokens and generated tokens of a warm-up run and of the timed one, on one server."""
    asked = []
    for seed, (name, samples) in enumerate(
        (("warm", given.warm), ("timed", given.samples)), start=1
    ):
        (folder / name).mkdir()
        generate(folder / name, samples, seed)
        asked.append(
            runner.Options(
                methods=[given.method],
                tasks=["lamp4"],
                data=folder / name,
                concurrency=given.concurrency,
                sampling=Sampling(max_tokens=given.max_tokens),
                results=folder / "results",
            )
        )
    costs = []
    for outcome in await runner.run(*asked, backend=backend):
        assert outcome.summary["status"] == "complete", outcome.summary
        spent = outcome.summary["usage"]["predict"]
        costs.append([outcome.summary["seconds"], spent["input_tokens"], spent["output_tokens"]])
    return costs


def offline(given: argparse.Namespace, folder: Path, sent: list[Any]) -> list[float]:
    """The same of vLLM's own loop."""
    paths = [folder / "warm.json", folder / "timed.json", folder / "cost.json"]
    paths[0].write_text(to_json(sent[: given.warm]))
    paths[1].write_text(to_json(sent[given.warm :]))
    interpreter = command(given.model, [], None, 0)[0]
    if "python" not in Path(interpreter).name:
        raise SystemExit(
            f"{interpreter} is no Python interpreter; see PERSONABENCH_VLLM in docs/backends.md"
        )
    arguments = ["--model", given.model, "--enable-prefix-caching", *shlex.split(given.vllm_args)]
    subprocess.run(
        [
            interpreter,
            "-c",
            OFFLINE,
            *map(str, paths[:2]),
            str(given.max_tokens),
            str(paths[2]),
            *arguments,
        ],
        check=True,
        stdout=subprocess.DEVNULL,
    )
    cost: list[float] = json.loads(paths[2].read_text())
    return cost


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", required=True)
    parser.add_argument("--method", default="none")
    parser.add_argument("--samples", type=int, default=256)
    parser.add_argument("--warm", type=int, default=16, help="samples of the warm-up")
    parser.add_argument("--max-tokens", type=int, default=64)
    parser.add_argument("--concurrency", type=int, default=256)
    parser.add_argument("--vllm-args", default="", help="arguments for both engines, in quotes")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        backend = Noting(
            BackendOptions(model=given.model, vllm_args=tuple(shlex.split(given.vllm_args)))
        )
        _, through = asyncio.run(harness(given, folder, backend))
        bare = offline(given, folder, backend.sent)
    print(
        f"{given.samples} samples of {given.method}, {given.concurrency} in flight, {time.strftime('%Y-%m-%d')}"
    )
    print(f"{'':32}{'seconds':>9}{'tokens in':>11}{'out':>8}{'out/s':>9}{'all/s':>9}")
    for label, (seconds, read, made) in (
        ("personabench, vllm backend", through),
        ("vllm.LLM.chat, one batch", bare),
    ):
        print(
            f"{label:32}{seconds:9.2f}{read:11.0f}{made:8.0f}{made / seconds:9.1f}{(read + made) / seconds:9.1f}"
        )
    print(
        f"ratio of generated tokens per second: {through[2] / through[0] / (bare[2] / bare[0]):.2f}"
    )


if __name__ == "__main__":
    sys.exit(main())
