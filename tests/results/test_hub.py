"""Runs are pushed by the hub's own client over HTTP, and read back as datasets."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pandas
import pytest
from engine_fixtures import options
from hub_server import TOKEN, Hub, serving_hub
from typer.testing import CliRunner

from personabench.cli.app import app
from personabench.errors import UsageError
from personabench.results.export import Source
from personabench.results.hub import push_dataset
from personabench.results.run_folder import RunFolder
from personabench.run import runner

# The client reads the address of the hub when it is imported, which takes seconds: one process
# makes all pushes, the last with a token that the hub does not know.
PUSHES = """
import os, sys
from personabench.cli.app import main

*runs, refused = sys.argv[1:]
for run in (*runs, refused):
    if run == refused:
        os.environ["HF_TOKEN"] = "hf_unknown"
    sys.argv = ["personabench", "export", run, "--to", "hf", "--push", "ann/runs"]
    try:
        main()
    except SystemExit as end:
        if end.code:
            raise
"""


@pytest.fixture
def hub() -> Iterator[Hub]:
    with serving_hub() as server:
        yield server


async def make_run(folder: Path, method: str = "none") -> str:
    (outcome,) = await runner.run(options(folder / "results", method, "lamp4", limit=3))
    return str(outcome.folder)


@pytest.mark.variants
async def test_runs_are_pushed_as_configurations_of_a_private_dataset(
    hub: Hub, tmp_path: Path
) -> None:
    runs = [await make_run(tmp_path, method) for method in ("none", "rag", "recency")]
    environment = {
        "HF_ENDPOINT": hub.url,
        "HF_TOKEN": TOKEN,
        "HF_HOME": str(tmp_path / "hf"),
        "HF_HUB_DISABLE_XET": "1",
    }
    ended = subprocess.run(
        [sys.executable, "-c", PUSHES, *runs],
        capture_output=True, text=True, env=os.environ | environment, cwd=tmp_path, check=False,
    )  # fmt: skip
    first, second, refusal = ended.stderr.splitlines()
    for method, line in (("none", first), ("rag", second)):
        assert line.startswith(f"wrote {hub.url}/datasets/ann/runs (configuration lamp4-{method}-")
        assert line.endswith(": 3 samples")
    assert (ended.returncode, refusal.partition(":")[0]) == (1, "error")
    assert "HF_TOKEN" in refusal

    assert hub.private == {"ann/runs": True}
    files = hub.files["ann/runs"]
    tables = sorted(path for path in files if path.endswith(".parquet"))
    folders = [path.partition("/")[0] for path in tables]
    assert [folder.rpartition("-")[0] for folder in folders] == ["lamp4-none", "lamp4-rag"]
    card = files["README.md"].decode()
    assert all(f"config_name: {folder}" in card for folder in folders)

    (tmp_path / "rows.parquet").write_bytes(files[tables[1]])
    rows = pandas.read_parquet(tmp_path / "rows.parquet")
    assert list(rows["method"]) == ["rag"] * 3
    assert rows["output"].str.len().min() > 0
    assert rows["rouge-1"].between(0, 1).all()
    assert rows["example_data"].all()


IMPOSSIBLE = {
    "--to hf --push runs": "write OWNER/NAME",
    "--to csv --push ann/runs": "only be used with --to hf",
    "--to hf --push ann/runs -o x": "leave out --output",
    "--to hf": "needs --output PATH, or --push OWNER/NAME",
    "--to csv -o x --public": "only be used with --push",
    "--to mlflow": "MLFLOW_TRACKING_URI",
}


async def test_targets_that_cannot_be_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    run = await make_run(tmp_path)
    for words, message in IMPOSSIBLE.items():
        command = ["export", run, *words.split(), "--results", str(tmp_path / "results")]
        result = CliRunner().invoke(app, command)
        assert isinstance(result.exception, UsageError), words
        assert message in str(result.exception)


async def test_offline_pushes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    run = await make_run(tmp_path)
    monkeypatch.setenv("PERSONABENCH_OFFLINE", "1")
    monkeypatch.setattr(constants, "ENDPOINT", "https://hub.example")
    with pytest.raises(UsageError, match="offline: --push ann/runs needs "):
        push_dataset(Source(RunFolder(Path(run)), tmp_path / "results"), "ann/runs")
