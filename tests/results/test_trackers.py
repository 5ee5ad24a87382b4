"""A run in Weights & Biases and MLflow: settings, numbers and samples, written by their clients."""

from __future__ import annotations

import json
import struct
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from engine_fixtures import options

from personabench.errors import UsageError
from personabench.results.export import Source
from personabench.results.run_folder import RunFolder
from personabench.results.trackers import write_mlflow, write_wandb
from personabench.run import runner


@pytest.fixture
async def source(tmp_path: Path) -> Source:
    (outcome,) = await runner.run(options(tmp_path / "results", "rag", "lamp4", limit=3))
    return Source(RunFolder(outcome.folder), tmp_path / "results")


@pytest.fixture(autouse=True)
def no_server(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("WANDB_MODE", "WANDB_PROJECT", "MLFLOW_TRACKING_URI"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(
    ("package", "write"),
    [("wandb", write_wandb), ("mlflow", write_mlflow)],
    ids=["wandb", "mlflow"],
)
async def test_a_tracker_that_is_not_installed_is_named_with_its_extra(
    package: str, write: Any, source: Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(UsageError, match=rf"personabench-harness\[{package}\]"):
        write(source, tmp_path / "tracked")


async def test_mlflow_needs_a_place(source: Source) -> None:
    with pytest.raises(UsageError, match="MLFLOW_TRACKING_URI"):
        write_mlflow(source, None)


@pytest.mark.variants
async def test_mlflow_reads_the_run_back(source: Source, tmp_path: Path) -> None:
    mlflow = pytest.importorskip("mlflow")
    pytest.importorskip("sqlalchemy")
    database = tmp_path / "tracked" / "runs.db"
    client = mlflow.MlflowClient(tracking_uri=write_mlflow(source, database))
    # A second export is a second run of the same experiment.
    write_mlflow(source, database)
    experiment = client.get_experiment_by_name("personabench")
    first, second = client.search_runs([experiment.experiment_id])
    assert first.data.metrics == second.data.metrics

    assert first.info.status == "FINISHED"
    assert first.info.run_name == "rag on lamp4"
    assert first.data.params["method.k"] == "8"
    assert first.data.params["fingerprint"] == source.spec.fingerprint
    scores = source.summary.metrics
    assert first.data.metrics["rouge-1"] == scores["official"]["rouge-1"]
    assert first.data.metrics["rouge-1/lenient"] == scores["lenient"]["rouge-1"]
    assert first.data.metrics["n"] == 3
    assert first.data.metrics["usage/predict/calls"] == 3
    (table,) = (tmp_path / "tracked").glob(f"runs.artifacts/{first.info.run_id}/**/samples.json")
    assert_samples(json.loads(table.read_text()), source)


@pytest.mark.variants
async def test_wandb_writes_an_offline_run(source: Source, tmp_path: Path) -> None:
    pytest.importorskip("wandb")
    folder = write_wandb(source, tmp_path / "tracked")
    assert folder.parent == tmp_path / "tracked" / "wandb"
    (table,) = folder.glob("files/media/table/*.json")
    assert_samples(json.loads(table.read_text()), source)

    (log,) = folder.glob("*.wandb")
    records = list(read_records(log.read_bytes()))
    (run,) = [record.run for record in records if record.WhichOneof("record_type") == "run"]
    assert (run.project, run.display_name) == ("personabench", "rag on lamp4")
    config = {item.key: item.value_json for item in run.config.update}
    assert config["method.k"] == "8"
    assert json.loads(config["fingerprint"]) == source.spec.fingerprint
    numbers = {
        item.key: item.value_json
        for record in records
        for item in record.summary.update
        if item.key
    }
    assert float(numbers["rouge-1"]) == source.summary.metrics["official"]["rouge-1"]
    assert float(numbers["usage/predict/calls"]) == 3


def assert_samples(table: dict[str, Any], source: Source) -> None:
    rows = [dict(zip(table["columns"], row, strict=True)) for row in table["data"]]
    assert [row["sample_id"] for row in rows] == source.ids
    assert all(row["output"] and row["input"] for row in rows)
    mean = sum(row["rouge-1"] for row in rows) / len(rows)
    assert mean == pytest.approx(source.summary.metrics["official"]["rouge-1"])
    assert "calls" not in table["columns"]


def read_records(content: bytes) -> Iterator[Any]:
    """The records of a `.wandb` file: blocks of 32 KiB as in LevelDB's logs, after a header."""
    from wandb.proto import wandb_internal_pb2 as messages

    block, head = 32768, 7
    position, record = head, b""
    while position + head <= len(content):
        if block - position % block < head:
            position += block - position % block
            continue
        _, length, kind = struct.unpack("<IHB", content[position : position + head])
        position += head
        part = content[position : position + length]
        position += length
        # Whole, first, middle, last.
        record = part if kind in (1, 2) else record + part
        if kind in (1, 4):
            message = messages.Record()
            message.ParseFromString(record)
            yield message
