"""No text of U-SafeBench is in a log, an error or a line of the terminal."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from engine_fixtures import options
from loopback import JsonHandler, LoopbackServer, serving
from test_usafebench import EXAMPLE, SENTINEL

from personabench.errors import BackendError, Refused
from personabench.models.backends.scripted import Scripted
from personabench.results.run_folder import RunFolder
from personabench.run import runner
from personabench.tasks.usafebench import files
from personabench.types import Request, Response

MAIN = "from personabench.cli import main; main()"


class Quoting(Scripted):
    """A server that refuses every prompt and quotes it."""

    def __init__(self, kind: str) -> None:
        super().__init__(answer=lambda request: "Gladly.")
        self.kind = kind

    async def complete(self, request: Request, group: str) -> Response:
        words = "; ".join(message.content for message in request.messages)
        if self.kind == "bug":
            raise ValueError(words)
        if self.kind == "refused":
            raise Refused(words, 400)
        raise BackendError(words)


def write_marked(data: Path) -> None:
    """Write the example data with a mark in every text."""
    data.mkdir()
    for name in files.ROWS:
        rows = json.loads((EXAMPLE / name).read_text())
        for row in rows:
            row["instruction"] += f" {SENTINEL}"
            row["user"] += f" {SENTINEL}"
        (data / name).write_text(json.dumps(rows))


@pytest.mark.parametrize("kind", ["bug", "refused", "error"])
@pytest.mark.parametrize("role", ["judge", "model"])
def test_acceptance_6_no_error_log_or_line_quotes_a_text(
    kind: str, role: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    data = tmp_path / "data"
    write_marked(data)
    sound = Scripted(answer=lambda request: "Gladly.")
    error = ""
    try:
        outcomes = asyncio.run(
            runner.run(
                options(tmp_path / "results", "persona_only", "usafebench", data=data, limit=6),
                backend=Quoting(kind) if role == "model" else sound,
                roles={"judge": Quoting(kind) if role == "judge" else sound},
            )
        )
        error = " ".join(str(outcome) for outcome in outcomes)
    except Exception as failure:
        error = str(failure)

    assert SENTINEL not in error
    printed = capfd.readouterr()
    assert SENTINEL not in printed.out + printed.err
    logs = list((tmp_path / "results").rglob("*.log"))
    assert logs
    for path in logs:
        assert SENTINEL not in path.read_text(), path.name
    failed = 0
    for folder in {path.parent.parent for path in logs}:
        for line in RunFolder(folder).iter_predictions():
            failed += line.error is not None
            assert SENTINEL not in (line.error or "")
    assert bool(failed) == (role == "model")


class Echoing(JsonHandler):
    """A server that breaks on prompts of the data, and quotes them."""

    status = 400

    def do_GET(self) -> None:
        self.send_models("tiny")

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        if SENTINEL in body:
            self.send_json({"error": {"message": f"broke on: {body}"}}, self.status)
            return
        self.send_answer("Gladly.")


@pytest.mark.parametrize("status", [400, pytest.param(500, marks=pytest.mark.variants)])
def test_acceptance_6_the_terminal_shows_no_text_that_a_server_quotes(
    status: int, tmp_path: Path
) -> None:
    data = tmp_path / "data"
    write_marked(data)
    handler = type("Handler", (Echoing,), {"status": status})
    with serving(LoopbackServer(handler)) as server:
        url = f"{server.url}/v1"
        environment = {**os.environ, "OPENAI_API_KEY": "x", "no_proxy": "127.0.0.1"}
        command = [sys.executable, "-c", MAIN, "run", "-t", "usafebench", "-n", "3"]
        command += ["-m", "persona_only", "-b", "openai", "--base-url", url, "--model", "tiny"]
        command += ["--data", str(data), "--results", str(tmp_path / "results")]
        # Calls that fail with 500 are repeated for minutes, and the progress tells of the first.
        with subprocess.Popen(
            command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        ) as process:
            try:
                printed, _ = process.communicate(timeout=8 if status == 500 else 60)
            except subprocess.TimeoutExpired:
                process.kill()
                printed, _ = process.communicate()
    assert SENTINEL not in printed
    told = "Refused, status 400" if status == 400 else "the last error: 5xx"
    assert told in printed and "words are withheld" in printed
    for path in (tmp_path / "results").rglob("*.log"):
        assert SENTINEL not in path.read_text()
