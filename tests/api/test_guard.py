"""Faults in the code of a method cost its sample at most."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
from engine_fixtures import headlines, make_engine

from personabench import Context, Method, Sample


async def test_half_a_surrogate_pair_in_an_answer_or_an_error_does_not_stop_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging.getLogger("personabench.engine"), "propagate", False)

    class Torn(Method):
        name = "torn"

        async def predict(self, sample: Sample, state: Any, ctx: Context) -> str:
            if sample.id == "q00000-0":
                raise ValueError("a\ud800b")
            return "a\ud800b"

    run = make_engine(tmp_path, Torn(), headlines(tmp_path / "data", 2))
    assert await run.run()
    run.close()
    predictions = run.predictions()
    error = predictions["q00000-0"].error or ""
    assert error.startswith("Torn.predict (") and "test_guard.py, line 25)" in error
    assert error.endswith("but it raised ValueError: a\ufffdb")
    assert predictions["q00001-0"].output == "a\ufffdb"
