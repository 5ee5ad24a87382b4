"""A real vLLM, started and attached to; `make test-vllm` installs it and runs this."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from personabench.backends import BackendOptions
from personabench.backends.launch import Server, command, free_port
from personabench.backends.vllm import VLLM
from personabench.types import Message, Request

pytestmark = pytest.mark.vllm
CLI = (sys.executable, "-c", "from personabench.cli.app import main; main()")
ARGUMENTS = ("--enforce-eager", "--max-model-len", "2048")
PATIENCE = 900.0


@pytest.fixture(scope="session")
def model() -> str:
    return os.environ["PERSONABENCH_CHECKPOINT"]


def words(results: Path, *more: str) -> list[str]:
    run = ["run", "-b", "vllm", "-m", "none,rag", "-t", "lamp4", "-n", "12", "-j", "4", "--json"]
    return [*CLI, *run, "--results", str(results), *more]


def lines(results: Path) -> list[dict[str, Any]]:
    paths = sorted(results.glob("runs/*/*/*/*/predictions.jsonl"))
    return [json.loads(line) for path in paths for line in path.read_text().splitlines() if line.endswith("}")]


def left(marker: str) -> list[str]:
    """Command lines of processes, ours and their kin, that still mention the marker."""
    found = []
    for path in Path("/proc").glob("[0-9]*/environ"):
        try:
            if marker.encode() in path.read_bytes() and int(path.parent.name) != os.getpid():
                found.append((path.parent / "cmdline").read_bytes().replace(b"\0", b" ").decode())
        except OSError:
            continue
    return [words for words in found if words]


def test_launcher_with_the_server_killed_in_mid_run_and_resumed(model: str, tmp_path: Path) -> None:
    results = tmp_path / "results"
    marker = f"PERSONABENCH_TEST_MARKER={tmp_path}"
    environment = os.environ | dict([marker.split("=", 1)])
    run = words(results, "--model", model, "--vllm-args", " ".join(ARGUMENTS))
    with subprocess.Popen(run, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment) as process:
        try:
            until = time.monotonic() + PATIENCE
            while len(lines(results)) < 3:
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
    assert "the vllm server ended" in err and "samples are done and kept" in err and "Traceback" not in err
    assert left(marker) == []
    kept = [(line["sample_id"], line["output"]) for line in lines(results) if line["error"] is None]

    ended = subprocess.run(run, capture_output=True, text=True, timeout=PATIENCE, env=environment)
    print(ended.stderr)
    assert ended.returncode == 0, ended.stderr
    summaries = json.loads(ended.stdout)
    assert [(summary["method"], summary["status"]) for summary in summaries] == [
        ("none", "complete"),
        ("rag", "complete"),
    ]
    good = [(line["sample_id"], line["output"]) for line in lines(results) if line["error"] is None]
    assert set(kept) <= set(good) and len(good) == sum(summary["n"] for summary in summaries)
    assert left(marker) == []
    assert any("prefix cache: " in log.read_text(errors="replace") for log in results.rglob("attempts/*.log"))


@asynccontextmanager
async def serving(model: str, log: Path) -> AsyncIterator[tuple[str, Server]]:
    """A server that listens: its URL and itself."""
    port = free_port()
    server = Server(command(model, ARGUMENTS, None, port), log)

    async def listening() -> bool:
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            return False
        writer.close()
        return True

    try:
        await server.wait(listening, PATIENCE)
        yield f"http://127.0.0.1:{port}/v1", server
    finally:
        await server.stop()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def served(model: str, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[str]:
    async with serving(model, tmp_path_factory.mktemp("served") / "server.log") as (url, _):
        yield url


@pytest.mark.asyncio(loop_scope="module")
async def test_attached_features(served: str, model: str) -> None:
    backend = VLLM(BackendOptions(base_url=served))
    await backend.identify()
    own = VLLM(BackendOptions(model=model, vllm_args=ARGUMENTS))
    await own.identify()
    assert backend.identity == own.identity and backend.window == 2048
    await backend.open()
    try:
        text = "Zwölf Boxkämpfer jagen Viktor quer über den großen Sylter Deich. " * 20
        count, cut = await asyncio.to_thread(lambda: (backend.tokens.count(text), backend.tokens.cut(text, 50)))
        assert backend.tokens.exact and 100 < count < len(text)
        assert text.startswith(cut) and 30 < len(cut) < 300

        def ask(**fields: Any) -> Request:
            messages = (Message("user", f"{text}\nName a colour and a number."),)
            return Request(messages=messages, **{"max_tokens": 40, **fields})

        schema = {
            "type": "object",
            "properties": {"colour": {"enum": ["red", "blue"]}, "number": {"type": "integer", "maximum": 99}},
            "required": ["colour", "number"],
        }
        guided = await backend.complete(ask(schema=schema), "u")
        assert set(json.loads(guided.text)) == {"colour", "number"}
        told = await backend.complete(ask(logprobs=3, max_tokens=4), "u")
        assert len(told.logprobs) == 4 and len(told.logprobs[0]["top_logprobs"]) == 3 and told.finish == "length"
        first = await backend.complete(ask(), "u")
        assert (await backend.complete(ask(), "u")).text == first.text
    finally:
        await backend.aclose()
    assert backend.prefix_cache_hit_rate is not None and backend.prefix_cache_hit_rate > 0.3


@pytest.mark.asyncio(loop_scope="module")
async def test_attached_run(served: str, tmp_path: Path) -> None:
    process = await asyncio.create_subprocess_exec(
        *words(tmp_path, "--base-url", served), stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    out, err = await process.communicate()
    assert process.returncode == 0, err.decode()
    assert [summary["status"] for summary in json.loads(out)] == ["complete", "complete"]
    assert all(line["output"].strip() and line["error"] is None for line in lines(tmp_path))


@pytest.mark.asyncio(loop_scope="module")
async def test_two_servers_with_one_killed_in_the_middle(served: str, model: str, tmp_path: Path) -> None:
    async with serving(model, tmp_path / "second.log") as (second, server):
        process = await asyncio.create_subprocess_exec(
            *words(tmp_path, "--base-url", f"{served},{second}"), stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        ending = asyncio.create_task(process.communicate())
        while len(lines(tmp_path)) < 4:
            assert process.returncode is None, (await ending)[1].decode()
            await asyncio.sleep(0.05)
        await server.stop()
        out, err = await ending
    assert process.returncode == 0, err.decode()
    summaries = json.loads(out)
    assert [(summary["status"], summary["counters"]["request_errors"]) for summary in summaries] == [
        ("complete", 0)
    ] * 2
    assert all(summary["usage"]["predict"]["calls"] == summary["n"] for summary in summaries)
    assert len(lines(tmp_path)) == sum(summary["n"] for summary in summaries)
    assert any(f"{second} is out" in log.read_text() for log in tmp_path.rglob("attempts/*.log"))
