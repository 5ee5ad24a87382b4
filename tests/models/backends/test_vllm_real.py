"""A real vLLM, started and attached to; `make test-vllm` installs it and runs this."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from personabench.api.registry import load_class
from personabench.models.backends.base import BackendOptions
from personabench.models.backends.vllm import VLLM
from personabench.models.backends.vllm_server import COMMAND, Server, command, free_port
from personabench.types import Message, Request

pytestmark = pytest.mark.vllm
CLI = (sys.executable, "-c", "from personabench.cli.app import main; main()")
ARGUMENTS = ("--enforce-eager", "--max-model-len", "2048")
METHODS = ("none", "rag", "dpl")
METHOD_PARAMS = {
    "dpl": {"k_peers": 2, "n_docs": 2, "difference_max_tokens": 32, "profile_max_tokens": 48},
    "rpm": {
        "history_cap": 3,
        "extract_max_tokens": 64,
        "cluster_max_tokens": 128,
        "reason_max_tokens": 48,
        "infer_max_tokens": 64,
    },
}
TIMEOUT = 1800.0


@pytest.fixture(scope="session")
def model() -> str:
    return os.environ["PERSONABENCH_CHECKPOINT"]


def run_command(
    results: Path, *more: str, methods: Sequence[str] = METHODS, limit: int = 4
) -> list[str]:
    """The command of a small run of the methods on the example data."""
    run = [
        "run",
        "-b",
        "vllm",
        "-m",
        ",".join(methods),
        "-t",
        "lamp4",
        "-n",
        str(limit),
        "-j",
        "4",
        "--json",
    ]
    for method in methods:
        for name, value in METHOD_PARAMS.get(method, {}).items():
            run += ["--set", f"{method}.{name}={value}"]
    return [*CLI, *run, "--max-tokens", "24", "--results", str(results), *more]


async def run_to_end(*command: str) -> list[dict[str, Any]]:
    """The summaries of a run that ends well."""
    process = await asyncio.create_subprocess_exec(
        *command, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    out, err = await process.communicate()
    print(err.decode())
    assert process.returncode == 0, err.decode()
    summaries: list[dict[str, Any]] = json.loads(out)
    for summary in summaries:
        calls = {
            phase: (usage["calls"], usage["cached"]) for phase, usage in summary["usage"].items()
        }
        print(summary["method"], summary["n"], calls, summary["counters"], summary["prefix_cache"])
    return summaries


def read_predictions(results: Path) -> list[dict[str, Any]]:
    """Every prediction below a folder."""
    paths = sorted(results.rglob("predictions.jsonl"))
    return [
        json.loads(line)
        for path in paths
        for line in path.read_text().splitlines()
        if line.endswith("}")
    ]


def list_good_outputs(results: Path) -> list[tuple[str, str]]:
    """Sample id and output of every prediction without an error."""
    predictions = read_predictions(results)
    return [(line["sample_id"], line["output"]) for line in predictions if line["error"] is None]


def count_paid_calls(results: Path) -> Counter[str]:
    """How often each call was paid for, by its key, in all runs."""
    profiles = sorted(results.glob("runs/*/*/*/*/artifacts/profiles.jsonl"))
    states = [
        json.loads(line)
        for path in profiles
        for line in path.read_text().splitlines()
        if line.endswith("}")
    ]
    units = read_predictions(results) + [state for state in states if not state["reused"]]
    return Counter(call["key"] for unit in units for call in unit["calls"] if not call["cached"])


def list_leftover_processes(marker: str) -> list[str]:
    """Command lines of processes, ours and their kin, that still mention the marker."""
    commands = []
    for path in Path("/proc").glob("[0-9]*/environ"):
        try:
            if marker.encode() in path.read_bytes() and int(path.parent.name) != os.getpid():
                commands.append(
                    (path.parent / "cmdline").read_bytes().replace(b"\0", b" ").decode()
                )
        except OSError:
            continue
    return [command for command in commands if command]


def test_launcher_with_the_server_killed_in_mid_run_and_resumed(model: str, tmp_path: Path) -> None:
    results = tmp_path / "results"
    marker = f"PERSONABENCH_TEST_MARKER={tmp_path}"
    environment = os.environ | dict([marker.split("=", 1)])
    run = run_command(results, "--model", model, "--vllm-args", " ".join(ARGUMENTS))
    with subprocess.Popen(
        run, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    ) as process:
        try:
            until = time.monotonic() + TIMEOUT
            while len(read_predictions(results)) < 6:
                assert process.poll() is None and time.monotonic() < until, process.communicate()
                time.sleep(0.05)
            (log,) = results.glob("runs/*/none/*/*/attempts/001.log")
            server = re.search(r"APIServer pid=(\d+)", log.read_text(errors="replace"))
            assert server is not None
            os.kill(int(server[1]), signal.SIGKILL)
            _, err = process.communicate(timeout=120)
        finally:
            process.kill()
    print(err)
    assert process.returncode == 1, err
    assert "vllm   loading weights" in err and "vllm   ready after" in err
    assert (
        "the vllm server ended" in err
        and "samples are done and kept" in err
        and "Traceback" not in err
    )
    assert list_leftover_processes(marker) == []
    first_outputs = list_good_outputs(results)

    resumed = subprocess.run(run, capture_output=True, text=True, timeout=TIMEOUT, env=environment)
    print(resumed.stderr)
    assert resumed.returncode == 0, resumed.stderr
    summaries = json.loads(resumed.stdout)
    assert [(summary["method"], summary["status"]) for summary in summaries] == [
        (name, "complete") for name in METHODS
    ]
    outputs = list_good_outputs(results)
    assert set(first_outputs) <= set(outputs)
    assert len(outputs) == sum(summary["n"] for summary in summaries)
    assert set(count_paid_calls(results).values()) == {1}
    assert list_leftover_processes(marker) == []
    assert any(
        "prefix cache: " in log.read_text(errors="replace")
        for log in results.rglob("attempts/*.log")
    )


@asynccontextmanager
async def start_server(model: str, log: Path, *more: str) -> AsyncIterator[tuple[str, Server]]:
    """A server that listens: its URL and itself."""
    port = free_port()
    server = Server(command(model, [*ARGUMENTS, *more], None, port), log)

    async def listening() -> bool:
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            return False
        writer.close()
        return True

    try:
        await server.wait(listening, TIMEOUT)
        yield f"http://127.0.0.1:{port}/v1", server
    finally:
        await server.stop()


@pytest.fixture(scope="module")
def adapters(model: str, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Serving arguments for an adapter for each user of the example data but the last."""
    task = load_class("task", "lamp4")()
    users = sorted({user for _, user in task.open(task.default_split, None).index()})[:-1]
    folder = tmp_path_factory.mktemp("adapters")
    python, script = shlex.split(os.environ[COMMAND])[0], Path(__file__).with_name("vllm_cpu.py")
    subprocess.run(
        [python, script, "adapters", model, folder, *(f"of-{user}" for user in users)], check=True
    )
    return [
        "--enable-lora",
        "--lora-modules",
        *(f"of-{user}={folder / f'of-{user}'}" for user in users),
    ]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def server_url(
    model: str, adapters: list[str], tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[str]:
    async with start_server(model, tmp_path_factory.mktemp("served") / "server.log", *adapters) as (
        url,
        _,
    ):
        yield url


@pytest.mark.asyncio(loop_scope="module")
async def test_attached_features(server_url: str, model: str) -> None:
    backend = VLLM(BackendOptions(base_url=server_url, model=model))
    await backend.identify()
    own = VLLM(BackendOptions(model=model, vllm_args=ARGUMENTS))
    await own.identify()
    # A server reports its window but not its options, so only those of an own server are known.
    assert own.identity == {**backend.identity, "options": "--max-model-len=2048"}
    assert backend.window == 2048
    await backend.open()
    try:
        text = "Zwölf Boxkämpfer jagen Viktor quer über den großen Sylter Deich. " * 20
        count, cut = await asyncio.to_thread(
            lambda: (backend.tokens.count(text), backend.tokens.truncate(text, 50))
        )
        assert backend.tokens.exact and 100 < count < len(text)
        assert text.startswith(cut) and 30 < len(cut) < 300

        def make_request(**fields: Any) -> Request:
            messages = (Message("user", f"{text}\nName a colour and a number."),)
            return Request(messages=messages, **{"max_tokens": 40, **fields})

        schema = {
            "type": "object",
            "properties": {
                "colour": {"enum": ["red", "blue"]},
                "number": {"type": "integer", "maximum": 99},
            },
            "required": ["colour", "number"],
        }
        guided = await backend.complete(make_request(schema=schema), "u")
        assert set(json.loads(guided.text)) == {"colour", "number"}
        response = await backend.complete(make_request(logprobs=3, max_tokens=4), "u")
        assert (
            len(response.logprobs) == 4
            and len(response.logprobs[0]["top_logprobs"]) == 3
            and response.finish == "length"
        )
        first = await backend.complete(make_request(), "u")
        assert (await backend.complete(make_request(), "u")).text == first.text
    finally:
        await backend.aclose()
    assert backend.prefix_cache_hit_rate is not None and backend.prefix_cache_hit_rate > 0.3


@pytest.mark.asyncio(loop_scope="module")
async def test_attached_run(server_url: str, model: str, tmp_path: Path) -> None:
    # One user: rpm makes a dozen calls for each.
    methods = (*METHODS, "rpm")
    run = run_command(tmp_path, "--base-url", server_url, methods=methods, limit=1)
    summaries = await run_to_end(*run, "--model", model)
    assert [summary["status"] for summary in summaries] == ["complete"] * len(methods)
    assert all(line["error"] is None for line in read_predictions(tmp_path))
    assert any(summary["prefix_cache"]["hits"] > 0 for summary in summaries)


@pytest.mark.asyncio(loop_scope="module")
async def test_an_adapter_for_each_user(server_url: str, model: str, tmp_path: Path) -> None:
    run = run_command(tmp_path, "--base-url", server_url, methods=("none",), limit=60)
    plain = await run_to_end(*run, "--model", model)
    process = await asyncio.create_subprocess_exec(
        *run, "--adapter", "of-{user_id}", stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    out, err = await process.communicate()
    (summary,) = json.loads(out)
    missing = summary["counters"]["request_errors"]
    assert process.returncode == 1 and 0 < missing < 60 and "serves no adapter 'of-" in err.decode()
    first, adapted = (
        {
            line["sample_id"]: line["output"]
            for line in read_predictions(Path(run_summary["folder"]))
        }
        for run_summary in (plain[0], summary)
    )
    differ = [
        sample
        for sample, output in adapted.items()
        if output is not None and output != first[sample]
    ]
    assert len(differ) > 30


@pytest.mark.asyncio(loop_scope="module")
async def test_dense_retrieval_from_an_embedding_server(
    server_url: str, model: str, tmp_path: Path
) -> None:
    pooling = ("--runner", "pooling", "--convert", "embed", "--served-model-name", "tiny")
    async with start_server(model, tmp_path / "embedder.log", *pooling) as (url, _):
        dense = (
            "--set",
            "retriever=dense",
            "--set",
            "embedder=vllm:tiny",
            "--embedder-base-url",
            url,
        )
        run = run_command(
            tmp_path, "--base-url", server_url, "--model", model, *dense, methods=("rag",)
        )
        (summary,) = await run_to_end(*run)
    assert summary["status"] == "complete" and "vllm:tiny" in summary["provenance"]


@pytest.mark.asyncio(loop_scope="module")
async def test_two_servers_with_one_killed_in_the_middle(
    server_url: str, model: str, tmp_path: Path
) -> None:
    async with start_server(model, tmp_path / "second.log") as (second, server):
        run = run_command(tmp_path, "--base-url", f"{server_url},{second}", "--model", model)
        running = asyncio.create_task(run_to_end(*run))
        while len(read_predictions(tmp_path)) < 4:
            assert not running.done(), await running
            await asyncio.sleep(0.05)
        await server.stop()
        summaries = await running
    assert [
        (summary["status"], summary["counters"]["request_errors"]) for summary in summaries
    ] == [("complete", 0)] * len(METHODS)
    assert len(read_predictions(tmp_path)) == sum(summary["n"] for summary in summaries)
    assert set(count_paid_calls(tmp_path).values()) == {1}
    assert any(f"{second} is down" in log.read_text() for log in tmp_path.rglob("attempts/*.log"))


@pytest.mark.asyncio(loop_scope="module")
async def test_a_server_without_a_reasoning_parser_takes_no_budget(
    server_url: str, model: str, tmp_path: Path
) -> None:
    arguments = ("-b", "vllm", "--base-url", server_url, "--model", model, "--reasoning", "24")
    facts = await check_backend(*arguments, "--results", str(tmp_path))
    assert facts["dialect"] == "reasoning by reasoning_effort and chat_template_kwargs"


async def check_backend(*arguments: str) -> dict[str, Any]:
    """The properties that `check backend` prints."""
    process = await asyncio.create_subprocess_exec(
        *CLI, "check", "backend", *arguments, "--json", stdout=subprocess.PIPE
    )
    out, _ = await process.communicate()
    assert process.returncode == 0
    facts: dict[str, Any] = json.loads(out)
    print(facts)
    return facts


async def test_thoughts_with_a_reasoning_parser_and_thoughts_switched_off(
    model: str, tmp_path: Path
) -> None:
    thinker, results = tmp_path / "thinker", tmp_path / "results"
    python, script = shlex.split(os.environ[COMMAND])[0], Path(__file__).with_name("vllm_cpu.py")
    subprocess.run([python, script, "thinker", model, thinker], check=True)
    parser = ("--reasoning-parser", "qwen3")
    async with start_server(str(thinker), tmp_path / "server.log", *parser) as (url, _):
        run = run_command(results, "--base-url", url, methods=["none"], limit=1)
        (plain,) = await run_to_end(*run, "--reasoning", "24")
        (raw,) = await run_to_end(*run, "--reasoning", "24", "--reading", "raw")
        (off,) = await run_to_end(*run, "--reasoning", "off")
        facts = await check_backend("-b", "vllm", "--base-url", url, "--results", str(results))
        thinking = await asyncio.create_subprocess_exec(
            *run, "--max-tokens", "8", "-n", "6", stderr=subprocess.PIPE
        )
        _, err = await thinking.communicate()

    # A thought ends with its budget, and the answer has its own 24 tokens.
    calls = [call for line in read_predictions(Path(plain["folder"])) for call in line["calls"]]
    assert all(call["reasoning_tokens"] <= 24 < call["output_tokens"] <= 48 for call in calls)
    assert plain["status"] == "complete" and plain["counters"]["empty_output"] == 0
    assert "thinks before it answers" in plain["provenance"]["dialect"]
    # An answer that stands among the thoughts is read from there in either way.
    read_raw = raw["n"] - raw["counters"].get("answer_in_reasoning", 0)
    assert raw["counters"]["read_raw"] == read_raw > 0
    assert raw["usage"]["predict"]["calls"] == raw["usage"]["predict"]["cached"]
    outputs = list_good_outputs(Path(raw["folder"]))
    assert sum(output.startswith("<think>\n") for _, output in outputs) >= read_raw

    assert "reasoning_tokens" not in off["usage"]["predict"]
    assert off["usage"]["predict"]["cached"] == 0 and "dialect" not in off["provenance"]
    assert facts["dialect"].endswith("so give it room with --reasoning low")
    assert thinking.returncode == 1 and b"truncated at their token limit" in err, err.decode()


async def test_a_base_model_gets_plain_completions(model: str, tmp_path: Path) -> None:
    base = tmp_path / "base"
    shutil.copytree(model, base)
    (base / "chat_template.jinja").unlink(missing_ok=True)
    config = json.loads((base / "tokenizer_config.json").read_text())
    config.pop("chat_template", None)
    (base / "tokenizer_config.json").write_text(json.dumps(config))

    arguments = ["--model", str(base), "--vllm-args", " ".join(ARGUMENTS)]
    command = run_command(tmp_path / "results", *arguments, methods=["none"], limit=1)
    (summary,) = await run_to_end(*command)
    assert summary["status"] == "complete"
    assert summary["provenance"]["dialect"] == "plain completions"
    # The log of the server's start is in the run's own folder.
    assert "vllm" in (Path(summary["folder"]) / "attempts" / "001.log").read_text().lower()
