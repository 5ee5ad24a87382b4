"""PersonaMem-v2: its files, what methods see, letters, subsets, controls and the judge."""

from __future__ import annotations

import asyncio
import csv
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from personabench.api import registry
from personabench.errors import DataError, UsageError
from personabench.hashing import digest
from personabench.models.backends.base import BackendOptions
from personabench.run.options import Options
from personabench.run.plan import plan
from personabench.tasks.personamem_v2 import PersonaMemV2, PersonaMemV2Gen, judging, scoring
from personabench.tasks.personamem_v2.data import PersonaMemV2Data
from personabench.tasks.personamem_v2.files import SAMPLE, TYPES, read_history, read_query
from personabench.testing import check_task, trial

TABLE = SAMPLE / "benchmark" / "text" / "benchmark.csv"
Cells = dict[str, str]
ROWS, USERS = 24, 12


def read_cells(path: Path = TABLE) -> list[Cells]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def copy(folder: Path, change: Callable[[list[Cells]], Any] = lambda rows: None) -> Path:
    """A copy of the example data, with changed rows of the table."""
    root = folder / "v2"
    shutil.copytree(SAMPLE, root)
    rows = read_cells()
    change(rows)
    with (root / "benchmark" / "text" / "benchmark.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return root


def read_text(request: Any) -> str:
    return "\n".join(message.content for message in request.messages)


def open_example(**params: Any) -> PersonaMemV2Data:
    return PersonaMemV2(PersonaMemV2.Params(**params)).open("32k", None)


# Files


def test_the_example_has_every_kind_of_row_and_passes_the_checks() -> None:
    rows = read_cells()
    assert len(rows[0]) == 27 and len(rows) >= 12
    assert len({row["persona_id"] for row in rows}) == USERS
    assert {row["pref_type"] for row in rows} == set(TYPES)
    assert any(row["updated"] == "True" for row in rows)
    assert any(row["who"] == "others" for row in rows)
    assert any(not row["user_query"].startswith("{") for row in rows)
    histories = [json.loads(path.read_text()) for path in SAMPLE.glob("data/*/*.json")]
    assert any(isinstance(history, list) for history in histories)
    dataset = open_example()
    assert any(not record.response for sample in dataset.samples() for record in sample.history)
    findings = list(check_task(PersonaMemV2(), "32k"))
    assert [finding.what for finding in findings if finding.holds is False] == []


def test_unmatched_evidence_is_counted() -> None:
    task = PersonaMemV2()
    counts = task.counts(task.open("32k", None))
    assert counts[0] == (
        "2 turns of evidence are in no user turn of their history; "
        f"2 of {ROWS} questions have no other "
        "evidence, 1 of these by design (distance 0)"
    )
    assert counts[1] == "1 questions at distance 0, 1 of them sensitive_info"
    # One snippet differs from its turn by blanks and a line break.
    sketch = next(s for s in task.open("32k", None).samples() if s.input.startswith("Where can I"))
    assert len(sketch.evidence) == 1


def test_a_turn_that_a_snippet_repeats_is_matched_each_time(tmp_path: Path) -> None:
    def repeat(rows: list[Cells]) -> None:
        for row in rows:
            snippet = json.loads(row["related_conversation_snippet"])
            row["related_conversation_snippet"] = json.dumps(snippet * 2)

    task = PersonaMemV2()
    before = task.counts(task.open("32k", None))[0]
    after = task.counts(task.open("32k", copy(tmp_path, repeat)))[0]
    assert after == before.replace("2 turns", "4 turns", 1)


def test_ids_are_places_among_the_rows_of_a_persona() -> None:
    dataset = open_example()
    assert dataset.index()[:2] == [("101-0", "101"), ("101-1", "101")]
    assert dataset.index()[4] == ("202-0", "202")


@pytest.mark.parametrize(
    ("cell", "query"),
    [
        ("{'role': 'user', 'content': ' Hi. '}", "Hi."),
        ("Plain text, with 'quotes'", "Plain text, with 'quotes'"),
        ("__import__('os').system('touch executed')", "__import__('os').system('touch executed')"),
        ("{'role': 'user'}", "{'role': 'user'}"),
        ("[1, 2]", "[1, 2]"),
        ("(" * 5000, "(" * 5000),
    ],
)
def test_a_query_is_read_as_a_literal_and_never_executed(
    cell: str, query: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert read_query(cell) == query
    assert not list(tmp_path.iterdir())


def set_cell(column: str, value: str) -> Callable[[list[Cells]], None]:
    return lambda rows: rows[3].update({column: value})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (set_cell("incorrect_answers", '{"a": 1}'), "row 4: incorrect_answers is not a JSON list"),
        (set_cell("incorrect_answers", '["a", "b"]'), "row 4: incorrect_answers has 2 texts"),
        (set_cell("updated", "perhaps"), "row 4, updated: 'perhaps' is neither True nor False"),
        (set_cell("persona_id", " "), "row 4: persona_id is empty"),
        (set_cell("correct_answer", ""), "row 4: correct_answer is empty"),
        (set_cell("chat_history_32k_link", "../../etc/passwd"), "expected one below data"),
        (set_cell("chat_history_32k_link", "data/none.json"), "none.json cannot be read"),
        (
            set_cell("distance_from_related_snippet_to_query_32k", "far"),
            "row 4, distance: 'far' is not a whole number",
        ),
        (
            lambda rows: [row.pop("who") for row in rows],
            "has no column who; it has: persona_id, chat_history_32k_link",
        ),
        (lambda rows: rows.__delitem__(slice(1, None)) or rows[0].update(user_query=""), "row 1"),
    ],
)
def test_a_broken_table_is_named(tmp_path: Path, change: Any, message: str) -> None:
    with pytest.raises(DataError, match=re.escape(message)):
        PersonaMemV2().open("32k", copy(tmp_path, change))


def test_unknown_types_and_snippets_that_cannot_be_read_are_accepted(tmp_path: Path) -> None:
    def change(rows: list[Cells]) -> None:
        rows[0].update(pref_type="new_type", related_conversation_snippet="not JSON")

    task = PersonaMemV2()
    dataset = task.open("32k", copy(tmp_path, change))
    assert dataset.load(0).evidence == ()
    assert "accuracy-new_type" in {metric.name for metric in task.metrics}


def test_a_broken_message_is_left_out_by_its_position_and_counted(tmp_path: Path) -> None:
    root = copy(tmp_path)
    path = root / "data" / "chat_history_32k" / "chat_history_32k_persona101.json"
    content = json.loads(path.read_text())
    messages = content["chat_history"]
    messages[3] = {"role": "user", "text": "wrong key"}
    messages[5] = "a text"
    messages[7]["extra"] = [1, 2]
    path.write_text(json.dumps(content))
    assert read_history(path).rejected == (3, 5)
    task = PersonaMemV2()
    dataset = task.open("32k", root)
    assert dataset.flags(0) == {"messages_rejected": 2.0} and not dataset.flags(5)
    assert any("2 broken messages are left out, at 3, 5" in text for text in dataset.warnings)
    assert task.counts(dataset)[-1] == "2 broken messages in 1 histories"


@pytest.mark.parametrize("content", ["{}", "[]", "[[1]]", "nonsense", '{"chat_history": "x"}'])
def test_a_history_without_messages_is_named(tmp_path: Path, content: str) -> None:
    root = copy(tmp_path)
    path = root / "data" / "chat_history_32k" / "chat_history_32k_persona202.json"
    path.write_text(content)
    with pytest.raises(DataError, match=r"persona202\.json"):
        PersonaMemV2().open("32k", root)


def test_questions_about_images_are_refused_with_the_name_of_the_table(tmp_path: Path) -> None:
    folder = tmp_path / "benchmark" / "multimodal"
    folder.mkdir(parents=True)
    (folder / "benchmark.csv").write_text("persona_id\n")
    for path in (tmp_path, folder / "benchmark.csv"):
        with pytest.raises(DataError, match=r"use benchmark/text/benchmark\.csv"):
            PersonaMemV2().open("32k", path)


def test_a_table_may_be_named_itself_and_has_a_verdict_on_its_version(tmp_path: Path) -> None:
    root = copy(tmp_path)
    dataset = PersonaMemV2().open("32k", root / "benchmark" / "text" / "benchmark.csv")
    assert dataset.hash == PersonaMemV2().open("32k", root).hash
    assert "not the published version" in dataset.warnings[-1]


def test_the_two_lengths_are_never_one_set() -> None:
    short, long = (PersonaMemV2().open(split, None) for split in ("32k", "128k"))
    assert short.hash != long.hash and short.index() == long.index()
    fingerprints = {
        trial("none", PersonaMemV2(), dataset=dataset, limit=1).summary.fingerprint
        for dataset in (short, long)
    }
    assert len(fingerprints) == 2
    with pytest.raises(UsageError, match="it has: 32k, 128k"):
        PersonaMemV2().open("1M", None)


# What methods see

HIDDEN = ("preference", "prev_pref", "pref_type", "who", "expanded_persona", "short_persona")
# Rules about these values decide what a row is, so that only every second row has a canary.
DECIDING = ("pref_type", "who")


def test_nothing_about_the_preference_reaches_a_method(tmp_path: Path) -> None:
    """Unique words in the columns and marks that methods must not see are in no request."""

    def plant(rows: list[Cells]) -> None:
        for number, row in enumerate(rows):
            for column in HIDDEN:
                if column not in DECIDING or number % 2:
                    row[column] = f"canary{column.replace('_', '')}{number}"
            snippet = json.loads(row["related_conversation_snippet"] or "[]")
            if isinstance(snippet, list):
                snippet.append({"role": "user", "content": f"canaryevidence{number}"})
                row["related_conversation_snippet"] = json.dumps(snippet)
            row["distance_from_related_snippet_to_query_32k"] = f"987654{number}"

    root = copy(tmp_path, plant)
    task = PersonaMemV2()
    dataset = task.open("32k", root)
    for sample in dataset.samples():
        assert "canary" in repr(sample) and "canary" not in repr(sample.view())
    for method in ("none", "rag", "full", "summary", "persona_only", "mem0_like"):
        result = trial(method, task, dataset=dataset)
        assert result.requests
        for request in result.requests:
            text = "\n".join(message.content for message in request.messages)
            assert "canary" not in text and "987654" not in text
    gen = trial("none", PersonaMemV2Gen(), roles={"judge": lambda request: "Verdict: fits"})
    golds = [sample.references[0] for sample in PersonaMemV2Gen().open("32k", None).samples()]
    texts = [request.messages[-1].content for request in gen.requests if len(request.messages) == 1]
    assert texts and not any(gold in text for gold in golds for text in texts)


def test_records_are_exchanges_and_hold_no_persona() -> None:
    sample = open_example().load(0)
    text = "\n".join(f"{record.stimulus} {record.response}" for record in sample.history)
    assert "occupation" not in text and "occupation" in PersonaMemV2().persona(sample)
    forget = next(r for r in sample.history if (r.stimulus or "").startswith("Please forget"))
    assert forget.response == ""


def test_the_whole_conversation_is_the_file_and_the_query_after_it() -> None:
    dataset = open_example()
    sample = dataset.load(0)
    messages = PersonaMemV2().chat(sample, sample.history).messages
    path = SAMPLE / "data" / "chat_history_32k" / "chat_history_32k_persona101.json"
    published = [(m["role"], m["content"]) for m in json.loads(path.read_text())["chat_history"]]
    assert [(m.role, m.content) for m in messages[:-1]] == published
    assert messages[-1].content.startswith(sample.input)
    for choice in sample.choices:
        assert choice in messages[-1].content
    official = PersonaMemV2(PersonaMemV2.Params(template="official", persona=False))
    roles = [m.role for m in official.chat(sample, sample.history).messages]
    assert roles[0] == "user" and roles[-2:] == ["user", "system"]


def test_the_order_of_options_depends_on_the_id_alone() -> None:
    """Another process, with another seed of Python's hashes, sends the same bytes."""
    code = (
        "from personabench.testing import trial; from personabench.hashing import digest\n"
        "print(digest(list(trial('none', 'personamem_v2', limit=8).requests)))"
    )
    # The seed of this process is random, unless it is set.
    seed = "1" if os.environ.get("PYTHONHASHSEED") != "1" else "2"
    printed = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONHASHSEED": seed},
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert printed.strip() == digest(list(trial("none", PersonaMemV2(), limit=8).requests))
    samples = list(open_example().samples())
    assert len({sample.choices.index(sample.references[0]) for sample in samples}) == 4


def test_one_history_is_summarized_once_for_all_questions_of_a_persona() -> None:
    result = trial("summary", PersonaMemV2())
    profiles = {line.profile for line in result.predictions}
    assert len(profiles) == USERS and len(result.predictions) == ROWS
    # A memory ingests each history once as well: all calls are those of the kept states.
    whole = trial("mem0_like", PersonaMemV2())
    ingested = {line.profile: line.sample_id.partition("-")[0] for line in whole.predictions}
    assert len(ingested) == USERS and len(set(ingested.values())) == USERS
    calls = [len(profile.calls) for profile in whole.profiles]
    assert len(calls) == USERS and sum(calls) == whole.summary.usage["profile"].calls > 0


# Letters and subsets


@pytest.mark.parametrize(
    ("output", "letter"),
    [
        ("I think. Final Answer: c", "C"),
        ("Final Answer: **B**", "B"),
        ("so \\boxed{D}", "D"),
        ("Final Answer: A, no. Final Answer: B", "B"),
        ("I would choose A or B", ""),
        ("A", "A"),
        ("<think>Final Answer: A</think> Final Answer: D", "D"),
        ("", ""),
        ("Final Answer: A or B", ""),
        ("\\boxed{A} or \\boxed{B}", ""),
        ("The answer is (c).", "C"),
        ("Final answer is option b", "B"),
        ("Final Answer: a trip by train", ""),
    ],
)
def test_letters(output: str, letter: str) -> None:
    sample = open_example().load(0)
    expected = sample.choices["ABCD".index(letter)] if letter else None
    if output == "Final Answer: a trip by train":
        # The article is taken for a letter, as nothing tells them apart.
        expected = sample.choices[0]
    assert PersonaMemV2().parse(output, sample, "official") == expected


def test_subsets_have_scores_of_their_own() -> None:
    """All right but the two questions with something to forget, which leak."""
    task = PersonaMemV2()
    dataset = task.open("32k", None)
    answers: dict[str, str] = {}
    for sample in dataset.samples():
        leaking = json.loads(sample.hidden["leaking"])
        answers[sample.input] = leaking[0] if leaking else sample.references[0]

    def answer(request: Any) -> str:
        text = request.messages[-1].content
        return next(reply for query, reply in answers.items() if text.startswith(query))

    metrics = trial("none", task, answer=answer).summary.metrics["official"]
    assert metrics["accuracy"] == pytest.approx((ROWS - 3) / ROWS)
    assert metrics["macro"] == pytest.approx(6 / 7)
    assert metrics["forget-accuracy"] == 0.0 and metrics["leak-rate"] == 1.0
    assert metrics["stale-rate"] == 0.0 and metrics["accuracy-updated"] == 1.0
    assert metrics["accuracy-others"] == 1.0 and metrics["accuracy-unplaced"] == 1.0
    assert metrics["accuracy-in-knowledge_query"] == 0.0
    names = {metric.name for metric in PersonaMemV2.metrics_of(list(metrics))}
    assert {metric.name for metric in task.metrics} <= names


@pytest.mark.parametrize(
    ("text", "fact", "expected"),
    [
        ("A strong black coffee with toast", "Drinks strong black coffee", True),
        ("A pot of rooibos tea", "Drinks strong black coffee", False),
        ("anything", "", False),
        ("with them from there", "with that", False),
    ],
)
def test_a_distractor_repeats_a_fact_by_its_content_words(
    text: str, fact: str, expected: bool
) -> None:
    assert scoring.repeats(text, fact) is expected


# Controls

# Room for a reply of 1,024 tokens and about half of a history of the example data.
WINDOW = 1500


def accuracy(method: str, **params: Any) -> float:
    result = trial(method, PersonaMemV2(PersonaMemV2.Params(**params)))
    return float(result.summary.metrics["official"]["accuracy"] or 0)


def test_controls_equal_an_independent_computation_on_the_table() -> None:
    right = {"longest": 0, "shortest_others": 0, "type_length": 0}
    rows = read_cells()
    for row in rows:
        lengths = [len(text) for text in json.loads(row["incorrect_answers"])]
        gold, is_other = len(row["correct_answer"]), row["who"] == "others"
        right["longest"] += gold > max(lengths)
        right["shortest_others"] += is_other and gold < min(lengths)
        right["type_length"] += gold < min(lengths) if is_other else gold > max(lengths)
    assert accuracy("longest_option") == pytest.approx(right["longest"] / len(rows))
    assert accuracy("type_length") == pytest.approx(right["type_length"] / len(rows))
    assert right["shortest_others"] == 2


@pytest.mark.parametrize("method", ["first_option", "majority_letter"])
def test_a_constant_letter_is_right_in_a_quarter_of_the_rotations(method: str) -> None:
    assert accuracy(method, rotations=4) == 0.25
    assert len(open_example(rotations=4).index()) == 4 * ROWS


def test_evidence_recall_of_everything_nothing_and_an_oracle() -> None:
    def recall(name: str, **params: Any) -> float:
        method = registry.load_class("method", name)
        result = trial(method(method.Params(**params)), PersonaMemV2())
        return float(result.summary.metrics["official"]["evidence-recall"] or 0)

    assert recall("rag", k=1000) == 1.0
    assert recall("none") == 0.0
    assert recall("evidence") == 1.0


def test_a_plan_counts_histories_beyond_the_window_and_the_newest_part_keeps_persona_and_query(
    tmp_path: Path,
) -> None:
    options = Options(
        ["full"],
        ["personamem_v2"],
        backend="scripted",
        backend_options=BackendOptions(window=WINDOW),
        assignments=["full.overflow=recent"],
        results=tmp_path,
    )
    (forecast,) = asyncio.run(plan(options))
    assert forecast.owed == ROWS
    # The histories of the first four personas are longer than the window.
    assert forecast.over_window == 16
    task = PersonaMemV2()
    method = registry.load_class("method", "full")
    result = trial(method(method.Params(overflow="recent")), task, window=WINDOW)
    queries = [sample.input for sample in task.open("32k", None).samples()]
    for request in result.requests:
        assert "occupation" in request.messages[0].content
        assert any(request.messages[-1].content.startswith(query) for query in queries)
    dropped = [line for line in result.predictions if "evidence_dropped" in line.flags]
    assert dropped and all("records_dropped" in line.flags for line in dropped)


# The judge


def test_the_judge_sees_reply_query_and_preference_and_no_history() -> None:
    task = PersonaMemV2Gen()
    requests: list[Any] = []

    def judge(request: Any) -> str:
        requests.append(request)
        texts = read_text(request)
        if "Florence" in texts:
            return "Good.\nVerdict: fits"
        return "Bad.\nVerdict: does not fit" if "brother" in texts else "Hm."

    result = trial(
        "full",
        task,
        answer=lambda request: "My reply is a plan.",
        roles={"judge": judge},
    )
    samples = {sample.id: sample for sample in task.open("32k", None).samples()}
    assert len(requests) > ROWS
    for request in requests:
        text = read_text(request)
        assert "My reply is a plan." in text
        sample = next(sample for sample in samples.values() if sample.input in text)
        assert sample.hidden["preference"] in text
        assert not any((r.stimulus or "none") in text for r in sample.history)
        assert sample.hidden["profile"] not in text
    summary = result.summary
    # A reply without a verdict is no verdict: the sample is unjudged and has no score.
    assert summary.counters["unjudged"] == len(result.predictions) - 2
    assert summary.metrics["official"]["fit"] == 0.5


def test_the_broad_judge_sees_the_profile_and_rules_differ_by_kind() -> None:
    samples = list(PersonaMemV2Gen().open("32k", None).samples())
    prompts: list[str] = []

    class Judge:
        async def complete(self, messages: Any, **options: Any) -> str:
            prompts.append("\n".join(message.content for message in messages))
            return "Verdict: fits"

    for sample in (samples[0], samples[2], samples[3]):
        asyncio.run(judging.judge_reply(Judge(), sample, "Yes.", "broad"))
    assert all(sample.hidden["profile"] in prompts[0] for sample in samples[:1])
    assert "another person" in prompts[1] and "another person" not in prompts[0]
    assert "Fact to forget" in prompts[2]


@pytest.mark.parametrize(
    ("reply", "verdict"),
    [
        ("Because.\nVerdict: fits", True),
        ("**Verdict: does not fit**", False),
        ("Verdict: fits\nVerdict: does not fit", None),
        ("It fits", None),
        ("", None),
    ],
)
def test_verdicts(reply: str, verdict: bool | None) -> None:
    assert judging.read_verdict(reply) is verdict


# The published table, where a user has it


PARTS = Path(os.environ.get("PERSONABENCH_PARTS", "none"))


@pytest.mark.skipif(
    not (PARTS / "personamem_v2").is_dir(), reason="PERSONABENCH_PARTS has no personamem_v2"
)
def test_the_published_table() -> None:
    task = PersonaMemV2()
    dataset = task.open("32k", PARTS)
    per_user: dict[str, int] = {}
    for _, user in dataset.index():
        per_user[user] = per_user.get(user, 0) + 1
    assert len(dataset.index()) == 5000 and len(per_user) == 200
    assert min(per_user.values()) == 6 and max(per_user.values()) == 42
    assert not any("not the published version" in text for text in dataset.warnings)
    rows = dataset.rows
    zero = [row for row in rows if row.distance == 0]
    assert len(zero) == 508 and {row.type for row in zero} == {"sensitive_info"}
    longest = sum(len(row.correct) > max(map(len, row.wrong)) for row in rows) / len(rows)
    assert longest == pytest.approx(0.447, abs=0.001)
    others = [row for row in rows if row.who == "others"]
    shortest = sum(len(row.correct) < min(map(len, row.wrong)) for row in others)
    assert shortest / len(others) >= 0.95
