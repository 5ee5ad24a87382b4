"""A run as a datasets folder, a CSV and an inspect-ai log: everything that was known of each sample
is in it."""

from __future__ import annotations

import csv
import io
import json
import zipfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas
import pytest
from engine_fixtures import headlines, options
from synthetic_scores import seal_scores
from typer.testing import CliRunner

from personabench.api import registry
from personabench.api.users import open_split
from personabench.cli.app import app
from personabench.errors import UsageError
from personabench.results.csv_rows import write_csv
from personabench.results.export import Source, rows, write_csv_file, write_dataset
from personabench.results.inspect_log import write
from personabench.results.locate import find_dataset
from personabench.results.run_folder import RunFolder
from personabench.run import runner


async def ran(place: Path, method: str = "summary", task: str = "lamp4", **changes: Any) -> Source:
    (outcome,) = await runner.run(options(place / "results", method, task, **changes))
    return Source(RunFolder(outcome.folder), place / "results")


async def test_rows_join_data_answers_scores_and_messages(tmp_path: Path) -> None:
    source = await ran(tmp_path, limit=3)
    made = list(rows(source))
    assert source.remarks() == []
    assert len(made) == source.summary.n
    for row in made:
        assert row["references"] and row["input"].startswith("Generate a headline")
        assert [call["phase"] for call in row["calls"]] == ["profile", "predict"]
        assert row["profile"] == row["calls"][0]["reply"]
        assert row["output"] == row["calls"][1]["reply"]
        assert row["calls"][1]["messages"][-1]["content"].startswith(row["input"])
        assert 0 <= row["rouge-1"] == row["rouge-1/lenient"]
    official = source.summary.metrics["official"]["rouge-1"]
    assert sum(row["rouge-1"] for row in made) / len(made) == pytest.approx(official)


async def test_rows_follow_the_data_and_failures_have_a_row(tmp_path: Path) -> None:
    data = headlines(tmp_path / "data", users=5, each=2)
    source = await ran(tmp_path, "none", data=data, concurrency=4)
    assert source.ids == [name for name, _ in source.data.index()]
    path = source.folder.predictions_path
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    lines[0] |= {"output": None, "parsed": None, "error": "no answer", "calls": []}
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    seal_scores(source.folder.path)
    (broken,) = [row for row in rows(Source(source.folder, tmp_path / "results")) if row["error"]]
    assert (broken["sample_id"], broken["output"], broken["calls"]) == (
        lines[0]["sample_id"],
        None,
        [],
    )


@pytest.mark.parametrize("name", sorted(registry.list_entries("task")))
def test_every_tasks_data_is_found_again_by_what_a_run_says_of_it(name: str) -> None:
    task = registry.load_class("task", name)()
    # As a run opens it: questions without users are joined into users.
    opened = open_split(task, task.default_split, None)
    spec: Any = SimpleNamespace(
        separation=opened.separation, split=opened.split, data_hash=opened.hash
    )
    assert find_dataset(task, spec, None).index() == opened.index()
    spec.data_hash = "other"
    assert find_dataset(task, spec, None) is None


async def test_what_is_no_longer_there_is_left_out_and_said(tmp_path: Path) -> None:
    data = headlines(tmp_path / "data", users=3)
    source = await ran(tmp_path, "none", data=data)
    (data / "dev_questions.json").unlink()
    (tmp_path / "results" / "cache.sqlite").unlink()
    late = Source(source.folder, tmp_path / "results")
    assert len(late.remarks()) == 2
    (row, *_) = rows(late)
    assert (
        row["input"],
        row["references"],
        row["calls"][0]["messages"],
        row["calls"][0]["reply"],
    ) == (
        None,
        [],
        [],
        None,
    )
    assert row["output"] and row["rouge-1"] is not None
    for name, form in (("run.eval", write), ("run.csv", write_csv_file), ("run", write_dataset)):
        form(late, tmp_path / name)


async def test_dataset_columns_are_typed(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    source = await ran(tmp_path, task="lamp2m", limit=3)
    write_dataset(source, tmp_path / "out" / "run")
    loaded = datasets.load_from_disk(tmp_path / "out" / "run")
    assert loaded.to_list() == list(rows(source))
    kinds = {name: str(getattr(feature, "dtype", "")) for name, feature in loaded.features.items()}
    assert (kinds["sample_id"], kinds["seed"], kinds["example_data"]) == (
        "string",
        "int64",
        "bool",
    )
    assert kinds["accuracy"] == "float64"
    assert all(len(pair) == 2 for pair in loaded["f1"])
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["run"]
    with pytest.raises(UsageError, match="exists"):
        write_dataset(source, tmp_path / "out" / "run")


async def test_a_dataset_of_any_split_has_a_name(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    source = await ran(tmp_path, "none", task="locomo", limit=1)
    assert source.spec.split == "all"
    write_dataset(source, tmp_path / "run")
    assert str(datasets.load_from_disk(tmp_path / "run").split) == "all_samples"


async def test_csv_has_the_same_rows_with_json_in_cells(tmp_path: Path) -> None:
    source = await ran(tmp_path, task="lamp2m", limit=3)
    write_csv_file(source, tmp_path / "run.csv")
    csv.field_size_limit(1 << 24)
    with (tmp_path / "run.csv").open(newline="") as file:
        read = list(csv.DictReader(file))
    expected = list(rows(source))
    assert list(read[0]) == list(expected[0])
    for text, row in zip(read, expected, strict=True):
        assert (text["sample_id"], text["output"]) == (row["sample_id"], row["output"])
        assert json.loads(text["calls"]) == row["calls"]
        assert json.loads(text["f1"]) == row["f1"]
        assert float(text["accuracy"]) == row["accuracy"]
        assert int(text["input_tokens"]) == row["input_tokens"]


ANSWERS = (
    "cut\rhere",
    "cut\nhere",
    "cut\r\nhere",
    "\r",
    "nothing\0after",
    "\u2028 and \x85 and \x1c",
    'she said "no", twice',
    "=1+1",
    "",
    " spaces ",
    "NA",
    "1e5",
    "\ufeffmarked",
)


async def test_csv_has_a_row_for_each_sample_whatever_it_says(tmp_path: Path) -> None:
    source = await ran(tmp_path, "none", data=headlines(tmp_path / "data", users=len(ANSWERS)))
    path = source.folder.predictions_path
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    path.write_text(
        "".join(
            json.dumps({**line, "output": said}) + "\n"
            for line, said in zip(lines, ANSWERS, strict=True)
        )
    )
    seal_scores(source.folder.path)
    late = Source(source.folder, tmp_path / "results")
    write_csv_file(late, tmp_path / "run.csv", escape=False)
    csv.field_size_limit(1 << 24)
    with (tmp_path / "run.csv").open(encoding="utf-8", newline="") as file:
        read = {row["sample_id"]: row["output"] for row in csv.DictReader(file)}
    assert read == {line["sample_id"]: said for line, said in zip(lines, ANSWERS, strict=True)}
    for engine in ("c", "python"):
        frame = pandas.read_csv(
            tmp_path / "run.csv", dtype=str, keep_default_na=False, engine=engine
        )
        assert dict(zip(frame["sample_id"], frame["output"], strict=True)) == read
    numbers = pandas.read_csv(tmp_path / "run.csv")
    assert numbers["rouge-1"].tolist() == [row["rouge-1"] for row in rows(late)]


def unzipped(path: Path) -> dict[str, Any]:
    """An .eval file as one object."""
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
        header: dict[str, Any] = json.loads(archive.read("header.json"))
        start = json.loads(archive.read("_journal/start.json"))
        assert {key: header[key] for key in start} == start
        samples = [json.loads(archive.read(name)) for name in names if name.startswith("samples/")]
        listed = json.loads(archive.read("summaries.json"))
    assert [each["id"] for each in listed] == [sample["id"] for sample in samples]
    return {**header, "samples": samples}


async def test_inspect_log_says_the_same_in_both_forms(tmp_path: Path) -> None:
    source = await ran(tmp_path, limit=3)
    write(source, tmp_path / "run.json")
    write(source, tmp_path / "run.eval")
    log = json.loads((tmp_path / "run.json").read_text())
    assert unzipped(tmp_path / "run.eval") == log
    assert (log["version"], log["status"], log["eval"]["model"]) == (
        2,
        "success",
        "scripted/scripted",
    )
    assert [score["name"] for score in log["results"]["scores"]] == ["official", "lenient"]
    for sample, row in zip(log["samples"], rows(source), strict=True):
        assert (sample["id"], sample["target"], sample["epoch"]) == (
            row["sample_id"],
            row["references"],
            1,
        )
        assert sample["messages"][-1] == sample["output"]["choices"][0]["message"]
        assert [message["role"] for message in sample["messages"]][-2:] == ["user", "assistant"]
        assert sample["output"]["completion"] == row["output"]
        assert sample["output"]["usage"]["input_tokens"] == row["input_tokens"]
        assert sample["scores"]["official"]["value"]["rouge-1"] == row["rouge-1"]
        assert [event["metadata"]["phase"] for event in sample["events"]] == ["profile", "predict"]
    with pytest.raises(UsageError, match=r"\.eval or \.json"):
        write(source, tmp_path / "run.txt")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["results", "run.eval", "run.json"]


@pytest.mark.parametrize("suffix", ["json", "eval"])
@pytest.mark.parametrize("task", ["lamp4", "lamp2m"])
async def test_inspect_ai_reads_the_log(tmp_path: Path, task: str, suffix: str) -> None:
    log = pytest.importorskip("inspect_ai.log")
    source = await ran(tmp_path, task=task, limit=3)
    path = tmp_path / f"run.{suffix}"
    write(source, path)
    read = log.read_eval_log(str(path))
    assert (read.status, len(read.samples)) == ("success", len(source.ids))
    by_id = {row["sample_id"]: row for row in rows(source)}
    metric = source.summary.primary
    for sample in read.samples:
        row = by_id[sample.id]
        assert sample.output.completion == row["output"]
        assert sample.scores["official"].value[metric] == row[metric]
        assert sample.events[-1].output.completion == row["output"]
    official = read.results.scores[0].metrics[metric].value
    assert official == source.summary.metrics["official"][metric]
    assert log.read_eval_log(str(path), header_only=True).results == read.results


async def test_a_run_without_answers_is_refused(tmp_path: Path) -> None:
    source = await ran(tmp_path, "none", limit=1)
    source.folder.predictions_path.unlink()
    seal_scores(source.folder.path)
    with pytest.raises(UsageError, match="no answers"):
        Source(source.folder, tmp_path / "results")


async def test_a_file_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    source = await ran(tmp_path, "none", limit=1)
    (tmp_path / "file").write_text("")
    for form, name in ((write_csv_file, "run.csv"), (write, "run.json"), (write_dataset, "run")):
        with pytest.raises(UsageError, match="cannot be written"):
            form(source, tmp_path / "file" / name)


FORMULAS = ["=1+1", "+1", "-1", "@SUM(1)", "\t=1", "\r=1", "\n=1", "\uff1d1"]


def test_cells_that_spreadsheets_would_compute_are_escaped_by_default() -> None:
    rows = [{"=name": formula, "number": -0.5, "list": ["=1"]} for formula in FORMULAS]
    written = {}
    for escape in (True, False):
        file = io.StringIO(newline="")
        write_csv(file, rows[0], rows, escape=escape)
        file.seek(0)
        written[escape] = list(csv.reader(file))
    (head, *escaped), (raw_head, *raw) = written[True], written[False]
    assert head == ["'=name", "number", "list"] and raw_head[0] == "=name"
    assert [row[0] for row in escaped] == [f"'{formula}" for formula in FORMULAS]
    assert [row[0] for row in raw] == FORMULAS
    assert {tuple(row[1:]) for row in escaped + raw} == {("-0.5", '["=1"]')}


async def test_an_export_escapes_formulas_unless_told_not_to(tmp_path: Path) -> None:
    (outcome,) = await runner.run(options(tmp_path, "none", limit=2))
    folder = RunFolder(outcome.folder)
    line = folder.predictions_path.read_bytes()
    folder.predictions_path.write_bytes(line.replace(b'"output":"', b'"output":"=1+', 1))
    await runner.run(options(tmp_path, "none", limit=2, cache="only"))
    for arguments, start in (([], "'=1+"), (["--no-escape"], "=1+")):
        target = tmp_path / "run.csv"
        command = ["export", str(folder.path), "--to", "csv", "-o", str(target), *arguments]
        result = CliRunner().invoke(app, [*command, "--results", str(tmp_path)])
        assert result.exit_code == 0, result.output
        with target.open(encoding="utf-8", newline="") as file:
            assert any(row["output"].startswith(start) for row in csv.DictReader(file))
