"""LongMemEval: its files, what methods see, the judge's rules and the retrieval scores."""

from __future__ import annotations

import gzip
import json
import math
import random
import re
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from loopback import folder_server, serving

from personabench.errors import DataError, UsageError
from personabench.tasks import longmemeval
from personabench.tasks.longmemeval import LongMemEval, judging, retrieval
from personabench.tasks.longmemeval.download import DATASET, download
from personabench.tasks.longmemeval.files import FILES, TYPES
from personabench.testing import trial

EXAMPLE = Path(longmemeval.__file__).parent / "sample" / FILES["s"]


def write(folder: Path, change: Any = None) -> Path:
    entries = json.loads(EXAMPLE.read_text())
    if change:
        change(entries)
    path = folder / FILES["s"]
    path.write_text(json.dumps(entries))
    return path


def test_the_example_has_all_types_and_two_unanswerable_questions() -> None:
    samples = list(LongMemEval().open("s", None).samples())
    assert {sample.hidden["type"] for sample in samples} == set(TYPES)
    unanswerable = [sample for sample in samples if sample.hidden["abstention"] == "True"]
    assert len(unanswerable) == 2 and not any(sample.evidence for sample in unanswerable)
    assert any(sample.references == ("6",) for sample in samples)


def test_sessions_come_in_the_order_of_time_and_without_labels(tmp_path: Path) -> None:
    """In the published file they do not, and their ids tell the evidence."""
    task = LongMemEval()
    result = trial("full", task, roles={"judge": lambda request: "yes"})
    for sample in task.open("s", None).samples():
        times = [record.time for record in sample.history]
        assert times == sorted(times, key=str)
    for request in result.requests:
        text = "\n".join(message.content for message in request.messages)
        assert "has_answer" not in text and "answer_q" not in text

    def strip(entries: list[dict[str, Any]]) -> None:
        for entry in entries:
            for session in entry["haystack_sessions"]:
                for turn in session:
                    turn.pop("has_answer", None)

    bare = task.open("s", write(tmp_path, strip))
    for marked, unmarked in zip(task.open("s", None).samples(), bare.samples(), strict=True):
        assert marked.history == unmarked.history


def test_a_large_file_is_never_held_as_objects(tmp_path: Path) -> None:
    """Memory grows with one question: many sessions each, and a file of many times the peak."""
    (first, *_) = json.loads(EXAMPLE.read_text())
    turns = [{"role": role, "content": "word " * 40} for role in ("user", "assistant")]
    first |= {
        "haystack_session_ids": [f"s{number}" for number in range(25)],
        "haystack_dates": ["2023/05/30 (Tue) 23:40"] * 25,
        "haystack_sessions": [turns] * 25,
        "answer_session_ids": [],
    }
    path = tmp_path / FILES["m"]
    path.write_text(json.dumps([{**first, "question_id": f"q{n}"} for n in range(80)]))

    tracemalloc.start()
    dataset = LongMemEval().open("m", path)
    records = sum(len(sample.history) for sample in dataset.samples())
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert records == 80 * 25
    # The dataset keeps four samples, for methods that read the same ones.
    assert peak < path.stat().st_size / 3


def test_evidence_is_that_of_the_unit() -> None:
    exchanges = LongMemEval().open("s", None)
    sessions = LongMemEval(LongMemEval.Params(unit="session")).open("s", None)
    for left, right in zip(exchanges.samples(), sessions.samples(), strict=True):
        assert {name.partition(":")[0] for name in left.evidence} == set(right.evidence)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda entries: entries[0].update(question_type="riddle"), "expected one of"),
        (lambda entries: entries[0]["haystack_dates"].pop(), "differ in number"),
        (lambda entries: entries[0].update(question_date="yesterday"), "date is 'yesterday'"),
        (lambda entries: entries[0].update(question_date="2023/02/31 (Fri) 10:00"), "2023/02/31"),
        (
            lambda entries: entries[0]["haystack_dates"].__setitem__(0, "2023/05/30 (Tue) 25:61"),
            "date is '2023/05/30 (Tue) 25:61', expected one such as",
        ),
        (lambda entries: entries[0].update(haystack_sessions={}), "Expected `array`"),
        (lambda entries: entries[0].update(answer=" "), "question or answer is empty"),
        (lambda entries: entries[1].update(question_id="q01"), "ids occur twice"),
        (lambda entries: entries.clear(), "holds no questions"),
    ],
)
def test_a_broken_file_is_named(tmp_path: Path, change: Any, message: str) -> None:
    with pytest.raises(DataError, match=re.escape(message)):
        list(LongMemEval().open("s", write(tmp_path, change)).samples())


@pytest.mark.parametrize(
    ("convert", "message"),
    [
        (lambda text: b"\xef\xbb\xbf" + text, "begins with a byte order mark; save it as UTF-8"),
        (lambda text: text.decode().encode("utf-16"), "it is UTF-16; save it as UTF-8"),
        (gzip.compress, "it is compressed; unpack it with gunzip"),
        (lambda text: text[:-9], "is not a JSON list of questions"),
    ],
)
def test_a_file_in_another_form_says_what_to_do(tmp_path: Path, convert: Any, message: str) -> None:
    path = tmp_path / FILES["s"]
    path.write_bytes(convert(EXAMPLE.read_bytes()))
    with pytest.raises(DataError, match=message):
        LongMemEval().open("s", path)
    path.write_bytes(EXAMPLE.read_bytes().replace(b"\n", b"\r\n"))
    assert LongMemEval().open("s", path).hash == LongMemEval().open("s", None).hash


def test_a_session_that_occurs_twice_has_records_of_its_own(tmp_path: Path) -> None:
    def repeat(entries: list[dict[str, Any]]) -> None:
        for column in ("haystack_session_ids", "haystack_dates", "haystack_sessions"):
            entries[0][column].append(entries[0][column][0])

    before = LongMemEval().open("s", None).load(0)
    after = LongMemEval().open("s", write(tmp_path, repeat)).load(0)
    assert len(after.history) > len(before.history)
    assert len({record.id for record in after.history}) == len(after.history)


@pytest.mark.parametrize(
    ("reply", "value", "official"),
    [
        ("yes", True, True),
        ("Yes.", True, True),
        ("No, yes would be wrong", False, True),
        ("no", False, False),
        ("", None, False),
        ("perhaps", None, False),
    ],
)
def test_verdicts(reply: str, value: bool | None, official: bool) -> None:
    assert judging.read_verdict(reply) is value
    assert judging.passes_officially(reply) is official


def test_a_judged_run_scores_types_and_abstention() -> None:
    def judge(request: Any) -> str:
        return "yes" if "cannot be answered" in request.messages[0].content else "no"

    result = trial("none", LongMemEval(), answer=lambda _: "I do not know", roles={"judge": judge})
    metrics = result.summary.metrics["official"]
    assert metrics["accuracy"] == pytest.approx(2 / 14)
    assert metrics["accuracy-abstention"] == 1.0 and metrics["accuracy-temporal-reasoning"] == 0.0


def test_a_score_of_a_type_is_over_its_questions() -> None:
    samples = list(LongMemEval().open("s", None).samples())
    values: dict[str, list[Any]] = {}
    for sample in samples:
        verdict = {"right": True, "reply": "yes"}
        for name, value in LongMemEval().measure_interaction({}, verdict, sample).items():
            values.setdefault(name, []).append(value)
    for metric in LongMemEval.metrics:
        kind = metric.name.removeprefix("accuracy-")
        if metric.size is None:
            continue
        expected = sum(
            sample.hidden["type"] == kind
            or (kind == "abstention" and sample.hidden["abstention"] == "True")
            for sample in samples
        )
        assert metric.size(np.array(values[metric.name])) == expected > 0


def test_retrieval_scores_equal_an_independent_computation() -> None:
    draw = random.Random(0)
    for _ in range(200):
        # An empty ranking, too, and rankings shorter than the cutoffs.
        ranking = draw.sample([f"s{number}" for number in range(12)], draw.randint(0, 12))
        evidence = draw.sample([f"s{number}" for number in range(14)], draw.randint(1, 4))
        values = retrieval.score_ranking(ranking, evidence)
        for k in (5, 10):
            top = ranking[:k]
            assert values[f"recall-any@{k}"] == float(bool(set(top) & set(evidence)))
            assert values[f"recall-all@{k}"] == float(set(evidence) <= set(top))
            gain = ideal = 0.0
            for place in range(k):
                weight = 1.0 if place < 2 else 1 / math.log2(place + 1)
                gain += weight * (place < len(top) and top[place] in evidence)
                ideal += weight * (place < len(evidence))
            assert values[f"ndcg@{k}"] == pytest.approx(gain / ideal)


def test_nothing_retrieved_scores_0_and_an_unanswerable_question_has_no_score() -> None:
    task = LongMemEval()
    for sample in task.open("s", None).samples():
        values = task.measure_retrieval(sample, ())
        is_scored = {name: value for name, value in values.items() if "@" in name}
        if sample.hidden["abstention"] == "True":
            assert is_scored == {}
        else:
            assert len(is_scored) == 6 and set(is_scored.values()) == {0.0}


def test_official_predictions_are_read_and_written(tmp_path: Path) -> None:
    task = LongMemEval()
    path = tmp_path / "mine.jsonl"
    path.write_text("".join(task.submission([("q01", "the cello"), ("q02", "6")])))
    assert json.loads(path.read_text().splitlines()[0]) == {
        "question_id": "q01",
        "hypothesis": "the cello",
    }
    assert task.read_predictions(path) == (None, [("q01", "the cello"), ("q02", "6")])
    assert len(task.read_references(EXAMPLE)) == 14


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    folder = tmp_path / "hub" / "datasets" / DATASET / "resolve" / "main"
    folder.mkdir(parents=True)
    (folder / FILES["s"]).write_bytes(EXAMPLE.read_bytes())
    with serving(folder_server(tmp_path / "hub")) as http_server:
        yield http_server.url


def test_a_split_is_fetched_checked_and_opens(hub: str, tmp_path: Path) -> None:
    (path,) = download("s", tmp_path / "data", base_url=hub, expected=14)
    assert path.read_bytes() == EXAMPLE.read_bytes()
    assert len(LongMemEval().open("s", tmp_path / "data").index()) == 14
    with pytest.raises(DataError, match="14 questions, but LongMemEval has 500"):
        download("s", tmp_path / "other", base_url=hub)
    with pytest.raises(UsageError, match="it has: oracle, s, m"):
        download("xl", tmp_path)
