"""`check published`: the committed results hold, and every kind of false file is named."""

from __future__ import annotations

import asyncio
import base64
import gzip
import hashlib
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from engine_fixtures import options

from personabench.errors import UsageError
from personabench.hashing import digest
from personabench.results.index import read_published
from personabench.results.published import publish
from personabench.results.run_folder import RunFolder
from personabench.run import runner
from personabench.testing.finding import Finding
from personabench.testing.published_check import check_published

REFERENCE = Path(__file__).parents[2] / "results" / "reference"

Edit = Callable[[dict[str, Any], dict[str, Any]], None]


def test_the_committed_results_hold() -> None:
    findings = list(check_published(REFERENCE))
    assert len(findings) == len(list(REFERENCE.glob("*.json")))
    assert [finding for finding in findings if finding.holds is False] == []
    assert all("numbers recomputed" in finding.detail for finding in findings)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A published run on some users of the example data."""
    results = tmp_path_factory.mktemp("results")
    run = runner.run(options(results, "copy_input", "lamp4", limit=8))
    (outcome,) = asyncio.run(run)
    assert outcome.summary.users > 1
    return publish(RunFolder(outcome.folder), results / "reference")


def check_edited(source: Path, folder: Path, edit: Edit, *, seal: bool = True) -> Finding:
    """Check a published file after an edit of its content and its scores, sealed again."""
    content = json.loads(source.read_text())
    scores = json.loads(gzip.decompress(base64.b64decode(content["scores"])))
    name = content.get("name", source.name)
    edit(content, scores)
    if seal:
        text = json.dumps(scores).encode()
        content["scores"] = base64.b64encode(gzip.compress(text)).decode()
        content["sha256"] = hashlib.sha256(text).hexdigest()
        content["count"] = len(scores["ids"])
        if "header_sha256" in content:
            content["header_sha256"] = digest([content["spec"], content["summary"]])
    (folder / content.pop("name", name)).write_text(json.dumps(content))
    (finding,) = check_published(folder)
    return finding


def test_an_unedited_file_holds(source: Path, tmp_path: Path) -> None:
    finding = check_edited(source, tmp_path, lambda content, scores: None)
    assert finding.holds, finding.detail
    summary = read_published(source).summary
    numbers = sum(len(metrics) for metrics in summary.metrics.values())
    counts = f"{summary.n} samples, {summary.users} users"
    assert finding.detail == f"{counts}, {numbers} numbers recomputed"


def raise_metric(content: dict[str, Any], scores: dict[str, Any]) -> None:
    content["summary"]["metrics"]["official"]["rouge-1"] += 0.01


def raise_lenient_metric(content: dict[str, Any], scores: dict[str, Any]) -> None:
    content["summary"]["metrics"]["lenient"]["rouge-1"] += 0.01


def raise_score(content: dict[str, Any], scores: dict[str, Any]) -> None:
    scores["values"]["official"]["rouge-L"][3] += 0.5


def drop_sample(content: dict[str, Any], scores: dict[str, Any]) -> None:
    for column in (scores["ids"], scores["users"]):
        column.pop()
    for metrics in scores["values"].values():
        for values in metrics.values():
            values.pop()


def drop_value(content: dict[str, Any], scores: dict[str, Any]) -> None:
    scores["values"]["official"]["rouge-L"].pop()


def repeat_sample(content: dict[str, Any], scores: dict[str, Any]) -> None:
    scores["ids"][1] = scores["ids"][0]


def join_users(content: dict[str, Any], scores: dict[str, Any]) -> None:
    scores["users"] = [scores["users"][0]] * len(scores["users"])


def show_id(content: dict[str, Any], scores: dict[str, Any]) -> None:
    scores["ids"][0] = "310"


def add_answers(content: dict[str, Any], scores: dict[str, Any]) -> None:
    scores["answers"] = scores["ids"]


def change_spec(content: dict[str, Any], scores: dict[str, Any]) -> None:
    content["spec"]["seed"] = 3


def change_name(content: dict[str, Any], scores: dict[str, Any]) -> None:
    content["name"] = "lamp4-user-dev-none-scripted-db8fccd5.json"


def drop_header_hash(content: dict[str, Any], scores: dict[str, Any]) -> None:
    del content["header_sha256"]


def add_field(content: dict[str, Any], scores: dict[str, Any]) -> None:
    content["samples"] = ["a question"]


def add_warning(content: dict[str, Any], scores: dict[str, Any]) -> None:
    content["summary"]["warnings"] = ["a line of the data"]


def add_path(content: dict[str, Any], scores: dict[str, Any]) -> None:
    content["summary"]["command"] = "personabench run --data /home/me/lamp"


def add_long_text(content: dict[str, Any], scores: dict[str, Any]) -> None:
    content["summary"]["command"] = "x " * 600


def quote_data(content: dict[str, Any], scores: dict[str, Any]) -> None:
    from personabench.tasks.lamp.records import SAMPLES

    (question, *_) = json.loads((SAMPLES / "lamp4" / "dev_questions.json").read_text())
    content["summary"]["provenance"]["note"] = question["input"]


@pytest.mark.parametrize(
    ("edit", "fault"),
    [
        (raise_metric, r"rouge-1 is \S+ in the summary, \S+ by its scores"),
        (raise_lenient_metric, r"rouge-1 \(lenient\) is"),
        (raise_score, r"rouge-L is \S+ in the summary"),
        (drop_sample, r"counts (\d+) scored samples, the scores are of (?!\1)"),
        (drop_value, r"rouge-L \(official\) has (\d+) values for (?!\1)\d+ samples"),
        (repeat_sample, "1 samples are listed more than once"),
        (join_users, r"counts \d+ users, the scores are of 1$"),
        (show_id, "its ids are not hashed"),
        (add_answers, "hashes of answers"),
        (change_spec, r"the fingerprint of its spec is (\w{8}), its summary says (?!\1)"),
        (change_spec, "spec and summary differ in seed"),
        (change_name, "it is named for another run"),
        (drop_header_hash, "no hash of its spec and summary"),
        (add_field, "fields that published files do not have: samples"),
        (add_warning, "fields that published files do not have: warnings"),
        (add_path, "a path of a machine: /home/me/lamp"),
        (add_long_text, "a text of 1200 characters"),
        (quote_data, "it quotes the data"),
    ],
    ids=lambda value: value.__name__ if callable(value) else "",
)
def test_a_false_file_is_named_with_its_fault(
    source: Path, tmp_path: Path, edit: Edit, fault: str
) -> None:
    finding = check_edited(source, tmp_path, edit)
    assert finding.holds is False
    assert re.search(fault, finding.detail), finding.detail


@pytest.mark.parametrize("edit", [raise_metric, raise_score, change_spec])
def test_an_edit_that_was_not_sealed_is_found_by_the_hashes(
    source: Path, tmp_path: Path, edit: Edit
) -> None:
    def write_scores(content: dict[str, Any], scores: dict[str, Any]) -> None:
        edit(content, scores)
        text = json.dumps(scores).encode()
        content["scores"] = base64.b64encode(gzip.compress(text)).decode()

    finding = check_edited(source, tmp_path, write_scores, seal=False)
    assert finding.holds is False
    assert "published" in finding.detail


def test_one_run_in_two_files_is_named(source: Path, tmp_path: Path) -> None:
    for name in ("mine.json", "other.json"):
        (tmp_path / name).write_bytes(source.read_bytes())
    first, second = check_published(tmp_path)
    assert (first.holds, second.holds) == (True, False)
    assert second.detail == "mine.json has the same run"


def test_a_folder_without_results_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no published results"):
        list(check_published(tmp_path))
    with pytest.raises(UsageError, match="is no folder"):
        list(check_published(tmp_path / "nowhere"))
