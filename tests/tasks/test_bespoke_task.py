"""BESPOKE: files, hidden facts, the judge's view of an annotator, and the five scores."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from personabench.errors import DataError
from personabench.tasks import bespoke
from personabench.tasks.bespoke import Bespoke
from personabench.testing import trial
from personabench.types import Request

EXAMPLE = Path(bespoke.__file__).parent / "sample"


def text_of(request: Request) -> str:
    return "\n".join(message.content for message in request.messages)


def kind_of(request: Request) -> str:
    text = text_of(request)
    if "Answer to grade:" in text:
        return "grade"
    return "claim" if "Claim:" in text else "write"


def run(grades: str, claim: str = "yes", method: str = "none", data: Path | None = None) -> Any:
    task = Bespoke()

    def answer(request: Request) -> str:
        return {"grade": grades, "claim": claim, "write": "mine"}[kind_of(request)]

    return trial(method, task, dataset=task.open("all", data), answer=answer)


def metrics_of(result: Any) -> Mapping[str, float]:
    metrics: Mapping[str, float] = result.summary.metrics["official"]
    return metrics


def test_five_scores_and_their_mean() -> None:
    metrics = metrics_of(run("It fits.\nneed: 4\ndepth: 3\ntone: 5\nstyle: 4", claim="no"))
    assert {name: metrics[name] for name in ("need", "depth", "tone", "style", "recall")} == {
        **{"need": 80, "depth": 60, "tone": 100, "style": 80},
        **{"recall": 0},
    }
    assert metrics["average"] == pytest.approx(64)


def test_a_missing_grade_leaves_its_criterion_only() -> None:
    result = run("need: 4\ndepth: 3\nstyle: 4")
    metrics = metrics_of(result)
    assert (metrics["need"], metrics["recall"]) == (80, 100)
    assert metrics.get("tone") is None or metrics["tone"] != metrics["tone"]
    assert result.summary.counters["judge_retried"] == 24 * 3


def test_an_answer_without_any_verdict_is_unjudged() -> None:
    assert run("no idea", claim="perhaps").summary.counters["unjudged"] == 24


def test_every_claim_is_a_call_and_the_judge_imitates_the_annotator() -> None:
    result = run("need: 4\ndepth: 3\ntone: 5\nstyle: 4")
    samples = list(Bespoke().open("all", None).samples())
    claims = sum(len(json.loads(sample.hidden["claims"])) for sample in samples)
    kinds = [kind_of(request) for request in result.requests]
    # Users who share a claim share the call.
    assert 24 < kinds.count("claim") <= claims
    judged = [text_of(request) for request in result.requests if kind_of(request) == "grade"]
    assert all("Full marks for an answer" in text and "depth: 4" in text for text in judged)


@pytest.mark.parametrize("method", ["none", "full", "rag", "summary"])
def test_need_rubric_claims_and_examples_reach_no_request_for_an_answer(
    tmp_path: Path, method: str
) -> None:
    shutil.copytree(EXAMPLE, tmp_path / "data")
    for name, field in (
        ("queries/query_table", "gold_information_need"),
        ("gold_information/gold_information", "gold_information_value"),
        ("personalized_rubric/personalized_rubric", "personalized_rubric_value"),
        ("evaluation_shot/evaluation_shot", "evaluation_shot_value"),
    ):
        path = tmp_path / "data" / f"{name}.jsonl"
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        text = "".join(json.dumps({**row, field: "SENTINEL"}) + "\n" for row in rows)
        path.write_text(text)
    result = run("need: 4\ndepth: 3\ntone: 5\nstyle: 4", "yes", method, tmp_path / "data")
    written = [text_of(request) for request in result.requests if kind_of(request) == "write"]
    assert written and not any("SENTINEL" in text for text in written)
    assert any("SENTINEL" in text_of(request) for request in result.requests)


def test_a_graded_example_of_the_same_answer_is_not_shown(tmp_path: Path) -> None:
    shutil.copytree(EXAMPLE, tmp_path / "data")
    path = tmp_path / "data" / "evaluation_shot" / "evaluation_shot.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    own = {**rows[0], "evaluation_shot_value": "Answer: Mine\nneed: 5 OWN"}
    path.write_text("".join(json.dumps(row) + "\n" for row in [own, *rows]))
    result = run("need: 4\ndepth: 3\ntone: 5\nstyle: 4", data=tmp_path / "data")
    assert not any("OWN" in text_of(request) for request in result.requests)


@pytest.mark.parametrize(
    ("content", "claims"),
    [
        ('{"gold_information": ["One.", "Two  words"]}', ["One.", "Two words"]),
        ('["One."]', ["One."]),
        ("plain text", ["plain text"]),
        ('{"other": "One"}', ["One"]),
    ],
)
def test_gold_claims_are_read_from_json_or_text(content: str, claims: list[str]) -> None:
    assert bespoke.read_claims([content]) == claims


def test_a_missing_table_and_field_are_named(tmp_path: Path) -> None:
    shutil.copytree(EXAMPLE, tmp_path / "data")
    path = tmp_path / "data" / "queries" / "query_table.jsonl"
    row = json.loads(path.read_text().splitlines()[0])
    path.write_text(json.dumps({**row, "query": " "}) + "\n")
    with pytest.raises(DataError, match=re.escape("query_table.jsonl, line 1: query is ' '")):
        Bespoke().open("all", tmp_path / "data")
    path.unlink()
    with pytest.raises(DataError, match="has no table query_table"):
        Bespoke().open("all", tmp_path / "data")
