"""Results as frames, from a real scripted run."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from personabench import results
from personabench.run.options import Options
from personabench.run.runner import run


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    where = tmp_path_factory.mktemp("results")
    options = Options(
        methods=["none", "summary"], tasks=["lamp3"], limit=4, backend="scripted", results=where
    )
    asyncio.run(run(options))
    return where


def test_runs_have_a_row_each_with_official_metrics_by_name(folder: Path) -> None:
    runs = results.load(folder).runs.set_index("method")
    assert sorted(runs.index) == ["none", "summary"]
    summary = json.loads((Path(str(runs.loc["none", "folder"])) / "summary.json").read_text())
    assert runs.loc["none", "MAE"] == summary["metrics"]["official"]["MAE"]
    assert runs.loc["none", "RMSE/lenient"] == summary["metrics"]["lenient"]["RMSE"]
    assert runs.loc["none", "source"] == "example data, not LaMP"


def test_the_mean_of_the_samples_is_the_metric_of_the_run(folder: Path) -> None:
    frames = results.load(folder)
    means = frames.samples.groupby(["run", "scorer", "metric"])["value"].mean()
    for run_ in frames.runs.itertuples():
        assert means[run_.run, "official", "MAE"] == pytest.approx(run_.MAE)
        assert means[run_.run, "official", "RMSE"] ** 0.5 == pytest.approx(run_.RMSE)
        assert frames.samples.query("run == @run_.run")["sample_id"].nunique() == run_.n
        assert frames.samples.query("run == @run_.run")["user_id"].nunique() == run_.users


def test_calls_have_a_row_each(folder: Path) -> None:
    frames = results.load(folder)
    assert set(frames.calls["phase"]) == {"predict"}
    assert (
        frames.calls.groupby("run").size().to_dict() == frames.runs.set_index("run")["n"].to_dict()
    )
    assert (frames.calls["input_tokens"] > 0).all()


def test_no_runs_are_empty_frames(tmp_path: Path) -> None:
    frames = results.load(tmp_path)
    assert (len(frames.runs), len(frames.samples), len(frames.calls)) == (0, 0, 0)
