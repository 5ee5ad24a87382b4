"""Prompts, parsing, metrics and methods on the review task."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import re
from pathlib import Path
from typing import Any

import pytest

from personabench.api import registry
from personabench.api.population import Population
from personabench.api.task import Task
from personabench.errors import DataError, UsageError
from personabench.metrics import meteor
from personabench.metrics.text import ROUGE as ROUGE_METRICS
from personabench.models.backends.scripted import Scripted
from personabench.models.tokens import EstimatedTokens
from personabench.run import runner
from personabench.run.divergence import SharedStimuli
from personabench.run.score_file import open_run, score_files, score_predictions
from personabench.tasks.reviews import SAMPLE, wording
from personabench.testing.trials import trial
from personabench.types import Request

ROUGE = [metric.name for metric in ROUGE_METRICS]


@pytest.fixture
def task(monkeypatch: pytest.MonkeyPatch) -> Task:
    """The task on a machine without METEOR's files, whatever this one has."""
    monkeypatch.setattr(
        meteor, "describe_missing_data", lambda: "METEOR is left out; it needs files"
    )
    return registry.load_class("task", "reviews")()  # type: ignore[no-any-return]


def method(name: str, **params: Any) -> Any:
    cls = registry.load_class("method", name)
    return cls(cls.Params(**params))


def test_a_request_ends_with_what_is_known_of_the_review(task: Task) -> None:
    data = task.open("test", None)
    sample = data.load(0).view()
    rendered = task.render(
        sample, sample.history[:2], "Likes one-word verdicts.", EstimatedTokens()
    )
    system, *turns, question = rendered.messages
    assert (
        "Likes one-word verdicts." in system.content and wording.WORDS.instruction in system.content
    )
    assert [turn.role for turn in turns] == ["user", "assistant"] * 2
    assert (
        turns[-1].content == sample.history[0].response
        and turns[1].content == sample.history[1].response
    )
    assert turns[2].content == wording.format_request(
        sample.history[0].stimulus, sample.history[0].fields
    )
    assert question.content == sample.input
    assert question.content.endswith("Rating: 4 of 5\nReview title: A stool that disappears")
    assert "Item: Dovetail Folding Step Stool, Two Steps\nA beech step stool" in question.content
    bare = task.render(sample, (), "", EstimatedTokens())
    assert len(bare.messages) == 2 and "About this" not in bare.messages[0].content


def test_reviews_are_found_by_review_title_and_description_alone(task: Task) -> None:
    data = task.open("test", None)
    sample = data.load(0)
    assert task.query_text(sample).startswith("A stool that disappears A beech step stool")
    assert "Dovetail" not in task.query_text(sample)
    document = task.document_text(sample.history[0])
    assert (
        document.startswith("Slow in the best sense A stove-top")
        and "Keeper" not in document
        and "Brindle" not in document
    )
    description = task.describe(sample.history[0])
    assert "Rating: 5 of 5\nReview title: Slow in the best sense\nReview: Keeper." in description
    assert description.startswith("Item: Brindle")


@pytest.mark.parametrize(
    "output",
    [
        "Keeper. It pours.",
        "  Review: Keeper. It pours.\n",
        "**Review:** Keeper. It pours.",
        "**review**\nKeeper. It pours.",
        "[Review]: Keeper. It pours.",
        "[REVIEW] Keeper. It pours.",
        "Review\n\nKeeper. It pours.",
        "# Review\nKeeper. It pours.",
    ],
)
def test_tags_are_stripped(task: Task, output: str) -> None:
    sample = task.open("test", None).load(0)
    assert (
        task.parse(output, sample, "official")
        == task.parse(output, sample, "lenient")
        == "Keeper. It pours."
    )


def test_official_reading_strips_nothing_else(task: Task) -> None:
    sample = task.open("test", None).load(0)
    for text in (
        "Review copies are free.",
        "Reviewed twice: good.",
        '"Keeper." -----\n\n**Bold** end',
        "A review: fine.",
    ):
        assert task.parse(text, sample, "official") == text
    assert task.parse("Sure, here is the review: Keeper.", sample, "lenient") == "Keeper."
    assert (
        task.parse("Review:", sample, "official") == ""
        and task.parse("Review:", sample, "lenient") is None
    )
    with pytest.raises(UsageError, match="no scorer"):
        task.parse("", sample, "kind")


def test_without_its_files_meteor_is_missing_and_never_replaced(task: Task) -> None:
    data = task.open("test", None)
    sample = data.load(0)
    assert [metric.name for metric in task.metrics] == [*ROUGE, "bleu"]
    assert "METEOR is left out; it needs files" in data.warnings
    values = task.measure(sample.references[0], sample)
    assert values.keys() == {*ROUGE, "bleu"} and values["rouge-1"] == 1.0
    assert isinstance(values["bleu"], list) and len(values["bleu"]) == 10
    assert task.measure("x", sample.view()) == {}


def test_with_its_files_meteor_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(meteor, "describe_missing_data", lambda: None)
    monkeypatch.setattr(meteor, "describe_limitations", lambda: "METEOR uses an old WordNet")
    monkeypatch.setattr(meteor, "meteor", lambda prediction, reference: 0.25)
    task = registry.load_class("task", "reviews")()
    data = task.open("test", None)
    assert [metric.name for metric in task.metrics] == [*ROUGE, "meteor", "bleu"]
    assert data.warnings == ("METEOR uses an old WordNet",)
    assert task.measure("text", data.load(0))["meteor"] == 0.25


def test_dpl_faithful_compares_reviews_of_the_same_item_in_ten_calls(task: Task) -> None:
    data = task.open("test", None)
    result = trial(method("dpl", preset="faithful", embedder="wordllama"), task)
    assert len(result.predictions) == 12 and len(result.requests) == 12 * (8 + 1 + 1)
    counters = result.summary.counters
    assert counters["n_eff"] == counters["tier_1"] == 96 and counters["k_eff"] == 96 * 4
    assert "fallback" not in counters and result.summary.metrics["official"].keys() == {
        *ROUGE,
        "bleu",
    }
    targets = {sample.id: sample for sample in data.samples()}
    prompts = [message.content for request in result.requests for message in request.messages]
    for sample in targets.values():
        assert not any(sample.references[0] in text for text in prompts)
        assert not any(sample.user_id in text for text in prompts)


def test_dpl_acceptance_12_a_run_says_what_it_was_made_of(task: Task, tmp_path: Path) -> None:
    """Hashes of model, prompts, population and embedder, BLEU's signature, and the comparison."""

    def ran(results: str, people: int) -> tuple[dict[str, Any], dict[str, Any]]:
        settings = ["n_docs=2", f"min_peers={people}", "tiers=T1"]
        chosen = runner.Options(
            ["dpl"], ["reviews"], backend="scripted", limit=3, assignments=settings
        )
        (outcome,) = asyncio.run(
            runner.run(dataclasses.replace(chosen, results=tmp_path / results))
        )
        spec, summary = (
            json.loads((outcome.folder / name).read_text())
            for name in ("spec.json", "summary.json")
        )
        return spec, summary

    spec, summary = ran("compared", 1)
    population = Population(task.open("test", None).population())
    assert spec["model"] == {"kind": "scripted", "name": "scripted"}
    assert spec["method_hash"] == registry.source_hash(registry.load_class("method", "dpl"))
    assert summary["provenance"]["population"] == population.hash
    assert re.fullmatch(r"wordllama:\w+@[0-9a-f]{16}", summary["provenance"]["wordllama"])
    assert summary["signatures"].keys() == {"bleu"}
    assert re.fullmatch(
        r"nrefs:1\|case:mixed\|eff:no\|tok:13a\|smooth:exp\|version:.+",
        summary["signatures"]["bleu"],
    )
    expected = {"n_eff": 6, "k_eff": 24, "tier_1": 6, "fallback": None}
    assert {name: summary["counters"].get(name) for name in expected} == expected
    _, summary = ran("alone", 32)
    assert (summary["counters"]["n_eff"], summary["counters"]["fallback"]) == (0, 3)


def test_dpl_and_rag_show_the_same_reviews(task: Task) -> None:
    def last(name: str, **params: Any) -> dict[str, Request]:
        result = trial(method(name, **params), task, limit=3)
        return {r.messages[-1].content: r for r in result.requests if len(r.messages) > 2}

    rag, dpl = last("rag", k=3), last("dpl", preset="faithful", embedder="wordllama", n_docs=3)
    assert rag.keys() == dpl.keys() and len(rag) == 3
    for question, request in rag.items():
        assert dpl[question].messages[1:] == request.messages[1:]
        assert "About this reviewer" in dpl[question].messages[0].content


def test_outputs_with_dashed_lines_survive_scoring(task: Task, tmp_path: Path) -> None:
    references = SAMPLE / "DPL-main" / "House_and_Hills" / "test.jsonl"
    golds = {sample.id: sample.references[0] for sample in task.open("test", None).samples()}
    predictions = tmp_path / "mine.jsonl"
    rows = [{"id": name, "output": f"Review: {text}\n\n-----\n"} for name, text in golds.items()]
    predictions.write_text("".join(json.dumps(row) + "\n" for row in rows))
    scores = score_files(task, predictions, references, "official", partial=False)
    assert "meteor" not in scores.metrics and scores.warnings == (
        "METEOR is left out; it needs files",
    )
    assert scores.n == 12 and scores.metrics["rouge-1"] == 1.0 and 95 < scores.metrics["bleu"] < 100


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{lines}\n{{"id": "nobody-x", "output": "y"}}', r"extra: 1 \(nobody-x\)"),
        ("{first}\n{lines}", "repeated: 1"),
        ("{first}", "missing: 11"),
        ('{{"id": "x", "outp\n{lines}', "line 1: "),
        ('{lines}\n{{"id": "x", "outp', "line 13: "),
        ("question,answer\nx,y", "expected JSON lines"),
    ],
)
def test_replies_that_do_not_fit_are_told(
    task: Task, tmp_path: Path, content: str, message: str
) -> None:
    references = SAMPLE / "DPL-main" / "House_and_Hills" / "test.jsonl"
    rows = [
        json.dumps({"id": sample.id, "output": "Fine."})
        for sample in task.open("test", None).samples()
    ]
    predictions = tmp_path / "mine.jsonl"
    predictions.write_text(content.format(first=rows[0], lines="\n".join(rows)))
    with pytest.raises(DataError, match=message):
        score_files(task, predictions, references, "official", partial=False)


def test_references_that_are_no_file_of_a_split_are_told(task: Task, tmp_path: Path) -> None:
    table = tmp_path / "reviews.csv"
    table.write_text("user_id,item_id\nu,i\n")
    with pytest.raises(DataError, match=r"reviews.csv: expected a split's own file"):
        task.read_references(table)


def test_the_audit_finds_a_review_that_is_asked_for_and_shown(task: Task, tmp_path: Path) -> None:
    source = SAMPLE / "DPL-main" / "House_and_Hills" / "test.jsonl"
    rows = [json.loads(line) for line in source.read_text().splitlines()]
    rows[0]["profile"][0]["text"] = rows[0]["data"]["text"]
    rows[1]["profile"][2]["asin"] = rows[1]["data"]["asin"]
    for name, category in (("DPL-main", "test"), ("DPL-meta", "full")):
        folder = tmp_path / name / "House_and_Hills"
        folder.mkdir(parents=True)
        text = (SAMPLE / name / "House_and_Hills" / f"{category}.jsonl").read_text()
        (folder / f"{category}.jsonl").write_text(text)
    (tmp_path / "DPL-main" / "House_and_Hills" / "test.jsonl").write_text(
        "\n".join(map(json.dumps, rows))
    )
    data = task.open("test", tmp_path)
    leaking = f"{rows[0]['user_id']}-P0DOVETL14, {rows[1]['user_id']}-P0BAROMT16"
    assert task.audit(data) == [f"the review to write occurs in the history: 2 ({leaking})"]
    assert any("more than one review of an item" in warning for warning in data.warnings)


REAL = Path(__file__).parents[3] / "shared" / "data" / "reviews"


@pytest.mark.skipif(not REAL.is_dir(), reason="no real reviews beside the repository")
def test_real_reviews_make_a_population_to_compare_with() -> None:
    cls = registry.load_class("task", "reviews")
    bounds = {
        "min_chars": 1,
        "item_reviewers": 5,
        "min_reviews": 2,
        "inputs": 1,
        "base_reviews": 1,
        "asked_reviews": 5,
    }
    data = cls(cls.Params(**bounds)).open("test", REAL)
    assert len(data.index()) > 100 and sum(1 for _ in data.population()) > 1000
    assert all(len(sample.history) >= 5 for sample in data.samples())


def test_without_a_judge_reviews_run_unjudged_and_with_one_similarity_comes_beside(
    task: Task,
) -> None:
    title = task.open("test", None).load(0).attributes["review_title"]

    def judge(request: Request) -> str:
        return "Alike.\nScore: 4" if title in request.messages[-1].content else "no idea"

    plain = trial(method("none"), task)
    assert plain.summary.metrics["official"].keys() == {*ROUGE, "bleu"}
    judged = trial(method("none"), task, roles={"judge": judge})
    metrics, counters = judged.summary.metrics["official"], judged.summary.counters
    assert metrics.pop("similarity") == 0.4 and metrics == plain.summary.metrics["official"]
    assert judged.summary.n == 12 and counters["judge_retried"] == 11 * 3
    assert counters["unjudged"] == 11 and judged.summary.usage["judge"].calls == 1 + 11 * 4


def test_runs_tell_whether_reviews_differ_between_people(tmp_path: Path) -> None:
    rows = [
        json.loads(line)
        for line in (SAMPLE / "DPL-main/House_and_Hills/test.jsonl").read_text().splitlines()
    ][:4]
    for row in rows[:2]:
        row["data"]["asin"] = "P0SHARED"
    for name, text in (
        ("DPL-main/X/test.jsonl", "\n".join(map(json.dumps, rows))),
        ("DPL-meta/X/full.jsonl", ""),
    ):
        (tmp_path / "data" / name).parent.mkdir(parents=True)
        (tmp_path / "data" / name).write_text(text)
    meta = {"asin": "P0SHARED", "title": "A lamp", "description": "It gives light."}
    (tmp_path / "data" / "DPL-meta/X/full.jsonl").write_text(json.dumps(meta) + "\n")
    golds = iter([row["data"]["text"] for row in rows])
    texts = {row["data"]["title"]: next(golds) for row in rows}

    def answer(request: Request) -> str:
        return next(
            (text for title, text in texts.items() if title in request.messages[-1].content),
            "the same",
        )

    def ran(results: str, reply: Any) -> Path:
        chosen = runner.Options(
            ["none"], ["reviews"], backend="scripted", results=tmp_path / results
        )
        options = dataclasses.replace(chosen, data=tmp_path / "data", split="X/test")
        (outcome,) = asyncio.run(runner.run(options, backend=Scripted(answer=reply)))
        return outcome.folder

    task = registry.load_class("task", "reviews")()

    def divergence(folder: Path) -> SharedStimuli:
        opened, references = open_run(folder, None)
        shared = score_predictions(opened, folder, references, "official", False).divergence
        assert isinstance(shared, SharedStimuli) and (shared.stimuli, shared.samples) == (1, 2)
        return shared

    gold = divergence(ran("gold", answer))
    assert gold.scores.egises == pytest.approx(0, abs=1e-9) and not gold.simplified
    assert divergence(ran("same", lambda _: "the same")).scores.egises > 0.9999

    # A split's own file names users and items, but does not describe the items.
    references = tmp_path / "data" / "DPL-main/X/test.jsonl"
    replies = tmp_path / "replies.jsonl"
    samples = task.read_references(references)
    lines = [json.dumps({"id": name, "output": "the same"}) for name in samples]
    replies.write_text("\n".join(lines))
    shared = score_files(task, replies, references, "official", False).divergence
    assert isinstance(shared, SharedStimuli) and shared.simplified and shared.scores.egises > 0.9999
