"""Plugins that block the event loop, hang or swallow their cancellation."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from engine_fixtures import CLI, headlines, make_engine

from personabench import Context, Method, Sample, Task, Vocabulary
from personabench.run import interrupts
from personabench.run.watchdog import watch_opening

PLUGIN = """
import asyncio, hashlib, time

from personabench import Method

count = 0


async def swallow():
    while True:
        try:
            await asyncio.sleep(600)
        except BaseException:
            pass


class Mine(Method):
    name = "mine"

    async def predict(self, sample, state, ctx):
        global count
        count += 1
        if count > 2:
            open("stuck", "w").close()
            STUCK
        return sample.id
"""

STUCK = {
    "sleep": "time.sleep(600)",
    "busy": "while True: pass",
    "swallows": "await swallow()",
    "native": "hashlib.pbkdf2_hmac('sha256', b'x', b'y', 2 * 10**9)",
}


def test_one_termination_ends_a_blocked_process(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(PLUGIN.replace("STUCK", STUCK["sleep"]))
    # Schedulers send SIGTERM once; the wait is shortened for this test.
    patience = "from personabench.run import interrupts; interrupts.TERMINATED = 0.5; "
    code = f"{patience}from personabench.cli.app import main; main()"
    words = ("run", "-m", "mine.py", "-t", "lamp4", "-b", "scripted", "-j", "1")
    process = subprocess.Popen(
        [sys.executable, "-c", code, *words], cwd=tmp_path, stderr=subprocess.PIPE, text=True
    )
    wait_until_stuck(tmp_path, process)
    process.send_signal(signal.SIGTERM)
    try:
        _, err = process.communicate(timeout=30)
    finally:
        process.kill()
    assert process.returncode == 130 and "Mine.predict" in err and "does not stop" in err


@pytest.mark.parametrize(
    ("stuck", "second"),
    [
        pytest.param("sleep", signal.SIGINT, marks=pytest.mark.variants),
        pytest.param("busy", signal.SIGINT, marks=pytest.mark.variants),
        pytest.param("swallows", signal.SIGINT, marks=pytest.mark.variants),
        pytest.param("native", signal.SIGINT, marks=pytest.mark.variants),
        ("swallows", signal.SIGTERM),
    ],
)
def test_a_second_interrupt_always_ends_the_process(
    tmp_path: Path, stuck: str, second: signal.Signals
) -> None:
    (tmp_path / "mine.py").write_text(PLUGIN.replace("STUCK", STUCK[stuck]))
    words = ("run", "-m", "mine.py", "-t", "lamp4", "-b", "scripted", "-j", "1")
    process = subprocess.Popen(
        [*CLI, *words], cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    wait_until_stuck(tmp_path, process)
    process.send_signal(signal.SIGINT)
    time.sleep(0.3)
    assert process.poll() is None
    process.send_signal(second)
    began = time.monotonic()
    try:
        _, err = process.communicate(timeout=30)
    finally:
        process.kill()
    assert time.monotonic() - began < 2.5
    assert process.returncode == 130 and "Traceback" not in err, err
    assert "finished samples are kept. Go on with the same command:" in err
    assert err.splitlines()[-1].endswith(" ".join(words))
    (path,) = tmp_path.glob("results/runs/*/*/*/*/predictions.jsonl")
    assert [json.loads(line)["error"] for line in path.read_text().splitlines()] == [None, None]


@pytest.mark.variants
def test_a_check_ends_at_the_second_interrupt(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(PLUGIN.replace("STUCK", STUCK["sleep"]))
    process = subprocess.Popen(
        [*CLI, "check", "method", "mine.py"],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    wait_until_stuck(tmp_path, process)
    process.send_signal(signal.SIGINT)
    time.sleep(0.3)
    process.send_signal(signal.SIGINT)
    began = time.monotonic()
    _, err = process.communicate(timeout=30)
    assert time.monotonic() - began < 2.5
    assert process.returncode == 130 and "Traceback" not in err, err
    assert "Mine.predict (" in err and "mine.py, line" in err


def wait_until_stuck(folder: Path, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 60
    while not (folder / "stuck").exists():
        assert process.poll() is None and time.monotonic() < deadline, process.communicate()
        time.sleep(0.05)


class Stuck(Method):
    """Stuck at one sample."""

    name = "stuck"

    async def predict(self, sample: Sample, state: Any, ctx: Context) -> str:
        if sample.id == "q00001-0":
            await self.hang()
        return sample.id

    async def hang(self) -> None:
        await asyncio.sleep(600)


class Swallowing(Stuck):
    name = "swallowing"

    async def hang(self) -> None:
        for _ in range(3):
            try:
                await asyncio.sleep(600)
            except asyncio.CancelledError:
                continue


class Blocking(Stuck):
    name = "blocking"

    async def hang(self) -> None:
        time.sleep(0.8)


@pytest.mark.parametrize("method", [Stuck, Swallowing, Blocking])
async def test_a_sample_over_its_time_fails_alone(
    tmp_path: Path,
    method: type[Stuck],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(interrupts, "PATIENCE", 0.1)
    monkeypatch.setattr(interrupts, "abandoned", abandoned := [])
    made = make_engine(tmp_path, method(), headlines(tmp_path / "data", 4), concurrency=1)
    made.engine.sample_timeout = 0.5
    assert await made.run()
    made.close()
    predictions = made.predictions()
    (failed,) = [line for line in predictions.values() if line.error]
    assert len(predictions) == 4 and failed.sample_id == "q00001-0"
    assert failed.flags["timed_out"] == 1
    assert failed.error and "took longer than --sample-timeout 0.5" in failed.error
    if method is not Blocking:
        assert "test_stubborn_plugins.py, line" in failed.error, failed.error

    swallowed = "Swallowing.predict (" in capsys.readouterr().err
    assert swallowed == bool(abandoned) == (method is Swallowing)
    for task in abandoned:
        while not task.done():
            task.cancel()
            await asyncio.sleep(0)


@pytest.mark.parametrize(
    "fault",
    [
        pytest.param("sys.exit(0)", marks=pytest.mark.variants),
        "raise KeyboardInterrupt",
        pytest.param("raise ValueError('no idea')", marks=pytest.mark.variants),
    ],
)
def test_a_background_task_of_a_plugin_ends_no_command(tmp_path: Path, fault: str) -> None:
    (tmp_path / "leaving.py").write_text(
        "import asyncio\nimport sys\n\nfrom personabench import Method\n\n\n"
        "class Leaving(Method):\n"
        "    async def predict(self, sample, state, ctx):\n"
        "        async def leave():\n"
        f"            {fault}\n\n"
        "        self.task = asyncio.create_task(leave())\n"
        "        await asyncio.sleep(0.01)\n"
        "        return await ctx.answer(sample)\n"
    )
    command = "from personabench.cli.app import main; main()"
    words = ("run", "-t", "lamp4", "-m", "leaving.py", "-b", "scripted", "-n", "2")
    ended = subprocess.run(
        [sys.executable, "-c", command, *words], capture_output=True, text=True, cwd=tmp_path
    )
    assert ended.returncode == 0, ended.stderr
    assert "rouge-1" in ended.stdout and "Traceback" not in ended.stderr
    assert ended.stderr.count("leaving.py, line 10: a background task raised") == 1


def test_a_load_that_does_not_end_is_named(tmp_path: Path) -> None:
    class Endless(Task):
        words = Vocabulary(person="guest", stimulus="day", response="reply")

        def load(self, split: str, data: Path | None) -> Iterator[Sample]:
            for day in range(5):
                yield Sample(user_id="ann", input=f"Day {day}?")
                time.sleep(0.1)

    reports: list[str] = []
    with watch_opening(0.2, reports.append):
        Endless().open("dev", None)
    (report,) = reports
    assert report.startswith("Endless.load after sample ")
    assert "test_stubborn_plugins.py, line" in report


async def test_a_plugin_that_blocks_the_event_loop_is_named_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = make_engine(tmp_path, Blocking(), headlines(tmp_path / "data", 3), concurrency=1)
    made.engine.block_limit = 0.2
    assert await made.run()
    made.close()
    err = capsys.readouterr().err
    assert err.count("has blocked the event loop") == 1
    assert err.startswith("warning: Blocking.predict (")
    assert "test_stubborn_plugins.py, line" in err and "at sample q00001-0" in err


async def test_the_first_interrupt_gives_up_on_what_swallows_its_cancellation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(interrupts, "PATIENCE", 0.1)
    monkeypatch.setattr(interrupts, "abandoned", abandoned := [])
    made = make_engine(
        tmp_path, Swallowing(), headlines(tmp_path / "data", 4), grace=0.1, concurrency=2
    )
    asyncio.get_running_loop().call_later(0.3, signal.raise_signal, signal.SIGINT)
    assert await asyncio.wait_for(made.run(), 10) is False
    made.close()
    assert len(made.predictions()) == 3
    assert abandoned and "swallows its cancellation" in capsys.readouterr().err
    for task in abandoned:
        while not task.done():
            task.cancel()
            await asyncio.sleep(0)


@pytest.mark.parametrize(
    "fault", [SystemExit(0), KeyboardInterrupt(), GeneratorExit(), asyncio.CancelledError()]
)
async def test_whatever_a_method_raises_fails_its_sample(
    tmp_path: Path, fault: BaseException
) -> None:
    class Raising(Stuck):
        async def hang(self) -> None:
            raise fault

    made = make_engine(tmp_path, Raising(), headlines(tmp_path / "data", 3))
    assert await made.run()
    made.close()
    errors = [line.error for line in made.predictions().values() if line.error]
    assert len(made.predictions()) == 3 and len(errors) == 1
    assert f"but it raised {type(fault).__name__}" in errors[0]
