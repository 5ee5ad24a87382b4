"""Tokens per second through the harness, against `vllm.LLM.chat` on the same prompts.

    python benchmarks/vllm_efficiency.py --model Qwen/Qwen3-8B --samples 4096 \\
        --vllm-args "--max-model-len 4096"

First personabench starts the server and runs the method (data, prompts, HTTP, cache, usage, files);
then vLLM's offline engine, in a process of its own with the same arguments, answers the very
prompts that were sent, in one batch.  Loading and a warm-up on other prompts are not timed.  Both
decode greedily up to `--max-tokens` with prefix caching on, so both generate about the same tokens;
the ratio of tokens per second is the share of the engine's throughput that the harness reaches.
vLLM is found as by `--backend vllm`; its command has to begin with a Python interpreter.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import shlex
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

from throughput import generate

from personabench.errors import UsageError
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
input_tokens = sum(len(answer.prompt_token_ids) for answer in answers)
output_tokens = sum(len(answer.outputs[0].token_ids) for answer in answers)
json.dump([seconds, input_tokens, output_tokens], open(out, "w"))
"""


class RecordingBackend(VLLM):
    """The backend, keeping the messages it sends."""

    def __init__(self, options: BackendOptions) -> None:
        super().__init__(options)
        self.sent: list[Any] = []

    async def complete(
        self,
        request: Request,
        group: str,
    ) -> Response:
        self.sent.append(request.messages)
        return await super().complete(request, group)


class Throughput(NamedTuple):
    """Seconds, prompt tokens and generated tokens."""

    seconds: float
    input_tokens: float
    output_tokens: float

    @property
    def output_rate(self) -> float:
        """Generated tokens per second."""
        return self.output_tokens / self.seconds


async def measure_harness(
    options: argparse.Namespace,
    folder: Path,
    backend: RecordingBackend,
) -> Throughput:
    """Run personabench on warm-up samples and then on the timed ones, on one server."""
    runs = []
    sizes = {"warm": options.warm, "timed": options.samples}
    for seed, (name, samples) in enumerate(sizes.items(), start=1):
        # Different seeds: timed prompts must not be in the prefix cache.
        (folder / name).mkdir()
        generate(folder / name, samples, seed)
        run_options = runner.Options(
            methods=[options.method],
            tasks=["lamp4"],
            data=folder / name,
            concurrency=options.concurrency,
            sampling=Sampling(max_tokens=options.max_tokens),
            results=folder / "results",
        )
        runs.append(run_options)

    outcomes = await runner.run(*runs, backend=backend)
    for outcome in outcomes:
        assert outcome.summary.status == "complete", outcome.summary
    summary = outcomes[-1].summary
    usage = summary.usage["predict"]
    return Throughput(summary.seconds, usage.input_tokens, usage.output_tokens)


def measure_offline(
    options: argparse.Namespace,
    folder: Path,
    sent: list[Any],
) -> Throughput:
    """Run vLLM's own loop on the same prompts."""
    warm_path = folder / "warm.json"
    timed_path = folder / "timed.json"
    cost_path = folder / "cost.json"
    warm_path.write_text(to_json(sent[: options.warm]))
    timed_path.write_text(to_json(sent[options.warm :]))

    interpreter = command(options.model, [], None, 0)[0]
    if "python" not in Path(interpreter).name:
        raise SystemExit(
            f"{interpreter} is not a Python interpreter; see PERSONABENCH_VLLM in docs/backends.md"
        )
    engine_arguments = [
        "--model",
        options.model,
        "--enable-prefix-caching",
        *shlex.split(options.vllm_args),
    ]
    subprocess.run(
        [
            interpreter,
            "-c",
            OFFLINE,
            str(warm_path),
            str(timed_path),
            str(options.max_tokens),
            str(cost_path),
            *engine_arguments,
        ],
        check=True,
        stdout=subprocess.DEVNULL,
    )
    return Throughput(*json.loads(cost_path.read_text()))


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
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        vllm_args = tuple(shlex.split(options.vllm_args))
        backend = RecordingBackend(BackendOptions(model=options.model, vllm_args=vllm_args))
        harness = asyncio.run(measure_harness(options, folder, backend))
        # Second, when the harness's server has freed the GPU.
        offline = measure_offline(options, folder, backend.sent)

    date = time.strftime("%Y-%m-%d")
    print(f"{options.samples} samples of {options.method}, {options.concurrency} in flight, {date}")
    print(f"{'':32}{'seconds':>9}{'tokens in':>11}{'out':>8}{'out/s':>9}{'all/s':>9}")
    print_throughput("personabench, vllm backend", harness)
    print_throughput("vllm.LLM.chat, one batch", offline)
    ratio = harness.output_rate / offline.output_rate
    print(f"ratio of generated tokens per second: {ratio:.2f}")


def print_throughput(label: str, throughput: Throughput) -> None:
    seconds, input_tokens, output_tokens = throughput
    total_rate = (input_tokens + output_tokens) / seconds
    print(
        f"{label:32}{seconds:9.2f}{input_tokens:11.0f}{output_tokens:8.0f}"
        f"{throughput.output_rate:9.1f}{total_rate:9.1f}"
    )


if __name__ == "__main__":
    try:
        main()
    except UsageError as error:
        raise SystemExit(f"error: {error}") from None
