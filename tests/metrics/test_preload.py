"""The modules of metrics, loaded while the first calls of a run are in flight."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from personabench.metrics.metric import Metric
from personabench.metrics.preload import preload
from personabench.metrics.text import ROUGE


def test_a_run_is_ready_before_packages_that_it_may_not_need() -> None:
    heavy = ("numpy", "pandas", "aiohttp", "openai", "psutil", "personabench.models.backends.local")
    code = f"""
import sys, personabench.run.runner
print(*(name for name in {heavy} if name in sys.modules))
"""
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (process.returncode, process.stdout.strip()) == (0, ""), process.stderr


def test_the_modules_of_metrics_are_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "slow_scorer.py").write_text("READY = True\n")
    (tmp_path / "broken_scorer.py").write_text("raise ValueError\n")
    monkeypatch.syspath_prepend(tmp_path)
    missing = Metric("missing", imports=("no_such_package", "broken_scorer", "slow_scorer"))
    try:
        preload([*ROUGE, missing])
        assert sys.modules["slow_scorer"].READY
        assert {"numpy", "absl.logging"} <= sys.modules.keys()
    finally:
        sys.modules.pop("slow_scorer", None)
