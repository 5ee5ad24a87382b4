"""The `personabench` command, typed in a folder of its own."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from personabench.cli.app import main


@dataclass
class Ended:
    """A command that ended: exit code, standard output, standard error."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


Command = Callable[..., Ended]


@pytest.fixture
def personabench(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> Command:
    monkeypatch.chdir(tmp_path)
    for name in ("OPENAI_API_KEY", "COLUMNS", "FORCE_COLOR", "PYTHONBREAKPOINT"):
        monkeypatch.delenv(name, raising=False)
    # Defaults of whoever runs the tests.
    for name in [name for name in os.environ if name.startswith("PERSONABENCH_")]:
        monkeypatch.delenv(name)

    def command(*words: object) -> Ended:
        monkeypatch.setattr(sys, "argv", ["personabench", *map(str, words)])
        capsys.readouterr()
        try:
            main()
            code = 0
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else int(end.code is not None)
        return Ended(code, *capsys.readouterr())

    return command


@pytest.fixture
def refused(personabench: Command) -> Callable[..., str]:
    """A command that has to be refused with exit code 2; returns the message on standard error."""

    def command(*words: object) -> str:
        ended = personabench(*words)
        assert (ended.code, ended.out) == (2, ""), ended
        assert "Traceback" not in ended.err
        assert "rror: " in ended.err
        return ended.err

    return command
