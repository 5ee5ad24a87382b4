"""A vLLM server of our own, imitated by a child process: started, watched, stopped, in every way a
run can end."""

from __future__ import annotations

import asyncio
import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from fake_vllm import request

from personabench.errors import BackendDown, UsageError
from personabench.models.backends import supervisor, vllm_server
from personabench.models.backends.base import BackendOptions
from personabench.models.backends.vllm import VLLM
from personabench.models.backends.vllm_server import COMMAND, command

FAKE = Path(__file__).with_name("fake_vllm.py")
CLI = (sys.executable, "-c", "from personabench.cli.app import main; main()")


def fake(tmp_path: Path, latency: float = 0.0) -> str:
    """A command that has flags of the stand-in's own before the serving arguments, which are part
    of the model."""
    return shlex.join(
        [sys.executable, str(FAKE), "--pids", str(tmp_path / "pids"), "--latency", str(latency)]
    )


@pytest.fixture
def fake_command(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("VLLM_API_KEY", raising=False)
    monkeypatch.setenv(COMMAND, fake(tmp_path))


def gone(pids: list[int]) -> bool:
    """Whether none of the processes runs any more."""
    for pid in pids:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            continue
        if state != "Z":
            return False
    return True


def wait_gone(pids: list[int], seconds: float = 15.0) -> bool:
    until = time.monotonic() + seconds
    while not gone(pids) and time.monotonic() < until:
        time.sleep(0.05)
    return gone(pids)


def own(*arguments: str, **options: Any) -> VLLM:
    return VLLM(BackendOptions(model="org/tiny", vllm_args=arguments, **options))


def pids(tmp_path: Path) -> list[int]:
    return [int(word) for word in (tmp_path / "pids").read_text().split()]


async def test_launch_answer_and_stop(
    fake_command: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log = tmp_path / "001.log"
    log.write_text("before\n")
    backend = own("--tensor-parallel-size", "2", "--slow", "0.5", window=2048)
    await backend.identify()
    known = {"kind": "vllm", "name": "org/tiny", "options": "--slow=0.5"}
    assert backend.identity == known and not (tmp_path / "pids").exists()
    await backend.open(log)
    assert (await backend.complete(request(), "u")).text == "answer Hello"
    assert backend.window == 2048 and backend.tokens.exact
    started = pids(tmp_path)
    assert len(started) == 3 and not gone(started[:1])
    assert os.getpgid(started[0]) not in (os.getpgid(0), os.getpgid(os.getppid()))
    await backend.aclose()
    assert gone(started)
    assert log.read_text().startswith("before\nstarting ")
    assert (
        "--enable-prefix-caching --max-model-len 2048 --tensor-parallel-size 2" in log.read_text()
    )
    assert log.read_text().endswith("prefix cache: 60 of 100 prompt tokens were cached (60.0%)\n")
    err = capsys.readouterr().err
    assert (
        "vllm   starting; log in" in err
        and "vllm   loading weights (" in err
        and "vllm   ready after" in err
    )


async def test_start_that_fails_shows_the_telling_lines(fake_command: None, tmp_path: Path) -> None:
    backend = own("--fail", "no memory for the KV cache")
    await backend.identify()
    with pytest.raises(UsageError) as caught:
        await backend.open(tmp_path / "001.log")
    assert "ended with exit code 3 before it was ready" in str(caught.value)
    assert "\n  ValueError: no memory for the KV cache\n  RuntimeError: Engine core" in str(
        caught.value
    )
    assert str(tmp_path / "001.log") in str(caught.value)
    assert "Too many open files" not in str(caught.value)
    await backend.aclose()
    assert gone(pids(tmp_path))


async def test_an_argument_that_vllm_does_not_know(fake_command: None, tmp_path: Path) -> None:
    backend = own("--no-such-flag")
    await backend.identify()
    with pytest.raises(
        UsageError, match=r"exit code 2 .*\n.*error: unrecognized arguments: --no-such-flag"
    ):
        await backend.open()
    await backend.aclose()


async def test_start_that_takes_too_long(fake_command: None, tmp_path: Path) -> None:
    backend = own("--slow", "60", start_timeout=1.5)
    await backend.identify()
    with pytest.raises(
        UsageError,
        match=r"not ready after 2 s, last seen (loading weights|starting);.*start-timeout",
    ):
        await backend.open()
    await backend.aclose()
    assert gone(pids(tmp_path))


async def test_interrupted_start_leaves_nothing(fake_command: None, tmp_path: Path) -> None:
    backend = own("--slow", "60")
    await backend.identify()
    opening = asyncio.create_task(backend.open())
    while not (tmp_path / "pids").exists() or not (tmp_path / "pids").read_text():
        await asyncio.sleep(0.05)
    opening.cancel()
    await asyncio.gather(opening, return_exceptions=True)
    await backend.aclose()
    assert gone(pids(tmp_path))


async def test_a_server_that_ignores_sigterm_is_killed(
    fake_command: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    short = tmp_path / "warden.py"
    short.write_text(Path(supervisor.__file__).read_text().replace("GRACE = 10.0", "GRACE = 0.3"))
    monkeypatch.setattr(supervisor, "__file__", str(short))
    backend = own("--stubborn")
    await backend.identify()
    await backend.open()
    await backend.aclose()
    assert gone(pids(tmp_path))


async def test_a_server_that_dies_ends_the_run_with_its_words(
    fake_command: None, tmp_path: Path
) -> None:
    backend = own()
    await backend.identify()
    await backend.open(tmp_path / "001.log")
    os.kill(pids(tmp_path)[0], signal.SIGKILL)
    with pytest.raises(BackendDown, match="the vllm server ended"):
        for _ in range(20):
            await backend.complete(request(), "u")
    await backend.aclose()
    assert gone(pids(tmp_path))


def test_command_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(COMMAND, f"{sys.executable} serve")
    words = command("org/tiny", ["--dtype", "half"], None, 7)
    assert words[:3] == [sys.executable, "serve", "org/tiny"] and words[-3:] == [
        "--enable-prefix-caching",
        "--dtype",
        "half",
    ]
    for argument in ("--port=8000", "--host", "--model", "--api-key=x"):
        with pytest.raises(UsageError, match=f"{argument.partition('=')[0]}: cannot be set here"):
            command("org/tiny", [argument], None, 7)
    monkeypatch.setenv(COMMAND, "no-such-program serve")
    with pytest.raises(UsageError, match="names no-such-program, which is not a program"):
        command("org/tiny", [], None, 7)


def test_no_vllm_anywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(COMMAND, raising=False)
    monkeypatch.setattr(vllm_server, "find_spec", lambda _: None)
    monkeypatch.setattr(vllm_server.shutil, "which", lambda *_, **__: None)
    with pytest.raises(UsageError, match=r"pip install 'personabench-harness\[vllm\]'.*--base-url"):
        command("org/tiny", [], None, 7)


# The whole command


def words(tmp_path: Path, *more: str) -> list[str]:
    line = ["run", "-b", "vllm", "--model", "org/tiny", "-m", "none", "-t", "lamp4"]
    return [*CLI, *line, "--results", str(tmp_path / "results"), *more]


@contextmanager
def started(tmp_path: Path, latency: float, *more: str) -> Iterator[subprocess.Popen[str]]:
    """A run that is under way: some calls are answered, others in flight."""
    process = subprocess.Popen(
        words(tmp_path, "-j", "4", *more),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, COMMAND: fake(tmp_path, latency)},
    )
    try:
        until = time.monotonic() + 60
        while not list(tmp_path.glob("results/runs/*/*/*/*/predictions.jsonl")) or not done(
            tmp_path
        ):
            assert process.poll() is None and time.monotonic() < until, process.communicate()
            time.sleep(0.05)
        yield process
    finally:
        process.kill()
        process.communicate()


def done(tmp_path: Path) -> list[dict[str, Any]]:
    (path,) = tmp_path.glob("results/runs/*/*/*/*/predictions.jsonl")
    return [json.loads(line) for line in path.read_text().splitlines() if line.endswith("}")]


@pytest.mark.parametrize(
    "ending",
    [
        signal.SIGINT,
        pytest.param(signal.SIGTERM, marks=pytest.mark.variants),
        pytest.param(signal.SIGKILL, marks=pytest.mark.variants),
    ],
)
def test_every_way_out_leaves_no_process_and_the_same_command_goes_on(
    fake_command: None, tmp_path: Path, ending: signal.Signals
) -> None:
    with started(tmp_path, 0.4) as process:
        process.send_signal(ending)
        process.communicate(timeout=60)
        assert process.returncode == (-signal.SIGKILL if ending == signal.SIGKILL else 130)
    assert wait_gone(pids(tmp_path))
    kept = {line["sample_id"] for line in done(tmp_path) if line["error"] is None}
    assert 0 < len(kept) < 60
    ended = subprocess.run(words(tmp_path, "--json"), capture_output=True, text=True, timeout=120)
    assert ended.returncode == 0, ended.stderr
    (summary,) = json.loads(ended.stdout)
    assert (summary["status"], summary["n"]) == ("complete", 60)
    lines = done(tmp_path)
    assert (
        len(lines) == 60 and Counter(line["sample_id"] for line in lines).most_common(1)[0][1] == 1
    )
    assert wait_gone(pids(tmp_path))


def test_sigterm_during_start_leaves_no_process(fake_command: None, tmp_path: Path) -> None:
    command_line = words(tmp_path, "--vllm-args", "--slow 60")
    process = subprocess.Popen(
        command_line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    until = time.monotonic() + 60
    while not (tmp_path / "pids").exists() or len((tmp_path / "pids").read_text().split()) < 3:
        assert process.poll() is None and time.monotonic() < until, process.communicate()
        time.sleep(0.05)
    process.terminate()
    process.communicate(timeout=30)
    assert process.returncode != 0
    assert wait_gone(pids(tmp_path))


def test_a_server_killed_in_mid_run_costs_nothing_that_was_done(
    fake_command: None, tmp_path: Path
) -> None:
    with started(tmp_path, 0.4) as process:
        os.kill(pids(tmp_path)[0], signal.SIGKILL)
        _, err = process.communicate(timeout=60)
        assert process.returncode == 1
        assert (
            "the vllm server ended" in err
            and "samples are done and kept" in err
            and "Traceback" not in err
        )
    assert wait_gone(pids(tmp_path))
    kept = [line["sample_id"] for line in done(tmp_path) if line["error"] is None]
    ended = subprocess.run(words(tmp_path, "--json"), capture_output=True, text=True, timeout=120)
    (summary,) = json.loads(ended.stdout)
    assert (summary["status"], summary["n"]) == ("complete", 60)
    assert [line["sample_id"] for line in done(tmp_path) if line["error"] is None][
        : len(kept)
    ] == kept


def test_a_refused_start_is_one_message(tmp_path: Path) -> None:
    environment = {**os.environ, COMMAND: "no-such-program"}
    ended = subprocess.run(
        words(tmp_path), text=True, capture_output=True, timeout=60, env=environment
    )
    assert (
        ended.returncode == 2
        and "no-such-program, which is not a program on this machine" in ended.stderr
    )
    assert "Traceback" not in ended.stderr


def test_thinking_on_and_off_are_two_models(fake_command: None, tmp_path: Path) -> None:
    def ran(*more: str) -> tuple[Any, set[str]]:
        ended = subprocess.run(
            words(tmp_path, "-n", "4", "--json", *more), capture_output=True, text=True, timeout=120
        )
        assert ended.returncode == 0, ended.stderr
        (summary,) = json.loads(ended.stdout)
        lines = (Path(summary["folder"]) / "predictions.jsonl").read_text().splitlines()
        return summary, {json.loads(line)["output"].split()[0] for line in lines}

    on, long = ran()
    given = """--default-chat-template-kwargs '{"enable_thinking": false}'"""
    off, short = ran("--vllm-args", given)
    assert (long, short) == ({"answer"}, {"short"})
    assert off["folder"] != on["folder"] and off["usage"]["predict"]["cached"] == 0
    again, _ = ran(
        "--vllm-args", """-tp 2 --default_chat_template_kwargs='{"enable_thinking":false}'"""
    )
    assert again["folder"] == off["folder"]
    sample = json.loads((Path(off["folder"]) / "predictions.jsonl").read_text().splitlines()[0])[
        "sample_id"
    ]
    why = ["cache", "why", sample, *words(tmp_path)[len(CLI) + 1 :], "--vllm-args", given, "--json"]
    (call,) = json.loads(
        subprocess.run([*CLI, *why], capture_output=True, text=True, timeout=120).stdout
    )
    assert call["stored"]


@pytest.mark.variants
def test_one_server_for_all_seeds(fake_command: None, tmp_path: Path) -> None:
    ended = subprocess.run(
        words(tmp_path, "--seeds", "0,1,2", "-n", "3", "--json"), capture_output=True, text=True
    )
    assert ended.returncode == 0, ended.stderr
    summaries = json.loads(ended.stdout)
    assert [summary["seed"] for summary in summaries] == [0, 1, 2]
    logs = [log.read_text() for log in tmp_path.rglob("attempts/*.log")]
    assert len(logs) == 3 and sum("starting " in log for log in logs) == 1
    assert ended.stderr.count("ready after") == 1 and wait_gone(pids(tmp_path))


async def test_adapters_of_a_started_server(fake_command: None, tmp_path: Path) -> None:
    (tmp_path / "ann").mkdir()
    (tmp_path / "ann" / "adapter_config.json").write_text("{}")
    backend = own("--enable-lora", "--lora-modules", f"ann={tmp_path / 'ann'}", adapter="{user_id}")
    await backend.identify()
    known = backend.identity
    assert set(known) == {"kind", "name", "adapters"}
    await backend.open()
    assert (await backend.complete(request(adapter="ann"), "ann")).model == ""
    assert backend.identity == known
    await backend.aclose()
