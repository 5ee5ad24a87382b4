"""PrefEval: its files, the order of options, the reading of letters, and the judge's rules."""

from __future__ import annotations

import json
import random
import re
import shutil
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from personabench.api import registry
from personabench.errors import DataError, UsageError
from personabench.run.controls import apply_control
from personabench.tasks import prefeval
from personabench.tasks.prefeval import PrefEval, PrefEvalGen, judging
from personabench.testing import trial

EXAMPLE = Path(prefeval.__file__).parent / "sample"


def test_all_forms_have_the_same_questions_and_filler() -> None:
    tasks = {
        form: PrefEval(PrefEval.Params(form=form)) for form in ("explicit", "choice", "persona")
    }
    samples = {form: list(task.open("all", None).samples()) for form, task in tasks.items()}
    keys = [[(sample.id, sample.input) for sample in rows] for rows in samples.values()]
    assert keys[0] == keys[1] == keys[2]
    assert [len(rows[0].evidence) for rows in samples.values()] == [1, 2, 3]
    for rows in samples.values():
        filler = {tuple(record.response for record in sample.history)[-10:] for sample in rows}
        assert len(filler) == 1


def test_the_stray_copy_and_unknown_keys_change_nothing(tmp_path: Path) -> None:
    shutil.copytree(EXAMPLE, tmp_path / "benchmark_dataset")
    folder = tmp_path / "benchmark_dataset" / "mcq_options"
    shutil.copy(folder / "pet_ownership.json", folder / "pet_ownership copy.json")
    path = folder.parent / "implicit_preference" / "persona-driven" / "pet_ownership.json"
    rows = json.loads(path.read_text())
    rows[0]["fix"] = True
    del rows[0]["explanation"]
    path.write_text(json.dumps(rows))
    task = PrefEval(PrefEval.Params(form="persona"))
    dataset = task.open("all", tmp_path)
    assert list(dataset.index()) == list(task.open("all", None).index())
    assert dataset.warnings[0].startswith("3 of PrefEval's 20 topics")


def test_too_many_turns_are_refused_with_the_number() -> None:
    assert len(PrefEval(PrefEval.Params(turns=12)).open("all", None).load(0).history) == 13
    with pytest.raises(UsageError, match="has 12 exchanges"):
        PrefEval(PrefEval.Params(turns=13)).open("all", None)


@pytest.mark.parametrize("topic", ["", "pet_ownership"])
def test_the_order_of_options_depends_on_the_row_alone(topic: str) -> None:
    whole = {sample.id: sample.choices for sample in PrefEval().open("all", None).samples()}
    part = PrefEval(PrefEval.Params(topic=topic, turns=0)).open("all", None)
    assert all(whole[sample.id] == sample.choices for sample in part.samples())
    assert len({sample.choices.index(sample.references[0]) for sample in part.samples()}) > 1


@pytest.mark.parametrize(
    ("output", "letter"),
    [
        ("<choice>B</choice>", "B"),
        ("B", "B"),
        ("<choice>B", "B"),
        ("<choice>B or C</choice>", ""),
        ("The answer is (c).", "C"),
        ("", ""),
        ("<choice></choice>", ""),
        ("<choice>E</choice>", ""),
    ],
)
def test_letters(output: str, letter: str) -> None:
    task = PrefEval()
    sample = task.open("all", None).load(0)
    expected = sample.choices["ABCD".index(letter)] if letter else None
    assert task.parse(output, sample, "official") == expected


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda rows: rows.pop(), "row by row they are the same question"),
        (lambda rows: rows[0].update(question="other"), "the question is another one"),
        (lambda rows: rows[0]["classification_task_options"].pop(), "four different options"),
        (
            lambda rows: rows[0]["classification_task_options"].append(
                rows[0]["classification_task_options"][0]
            ),
            "four different options, not 5 of which 4 differ",
        ),
        (lambda rows: rows[0].update(classification_task_options="x"), "is not a file of PrefEval"),
    ],
)
def test_a_broken_file_is_named(tmp_path: Path, change: Any, message: str) -> None:
    shutil.copytree(EXAMPLE, tmp_path / "data")
    path = tmp_path / "data" / "mcq_options" / "shop_home.json"
    rows = json.loads(path.read_text())
    change(rows)
    path.write_text(json.dumps(rows))
    with pytest.raises(DataError, match=re.escape(message)) as caught:
        PrefEval().open("all", tmp_path / "data")
    assert "shop_home" in str(caught.value)


@pytest.mark.parametrize("key", ["first", "", "9" * 5000, "²", "-1"])
def test_exchanges_are_numbered(tmp_path: Path, key: str) -> None:
    shutil.copytree(EXAMPLE, tmp_path / "data")
    path = tmp_path / "data" / "implicit_preference" / "persona-driven" / "shop_home.json"
    rows = json.loads(path.read_text())
    rows[0]["conversation"][key] = {"user": "Hi.", "assistant": "Hello."}
    path.write_text(json.dumps(rows))
    with pytest.raises(DataError, match="row 0: the keys of a conversation are numbers"):
        PrefEval(PrefEval.Params(form="persona")).open("all", tmp_path / "data")


def test_nothing_but_its_place_tells_a_preference_from_filler() -> None:
    """Not even the id of its record, which methods see."""
    for form in ("explicit", "choice", "persona"):
        for sample in PrefEval(PrefEval.Params(form=form)).open("all", None).samples():
            view = sample.view()
            ids = [record.id for record in view.history]
            assert ids == [f"{number:03d}" for number in range(len(ids))]
            assert (view.evidence, view.hidden, view.references) == ((), {}, ())
            assert {frozenset(record.fields) for record in view.history} == {frozenset()}


def test_marks_and_preferences_reach_no_request_without_a_history() -> None:
    result = trial("none", PrefEval())
    text = "\n".join(m.content for request in result.requests for m in request.messages)
    for sample in PrefEval().open("all", None).samples():
        assert sample.hidden["preference"] not in text


def test_a_shuffled_history_has_a_preference_of_the_same_topic() -> None:
    dataset = PrefEval().open("all", None)
    owners = [sample.history_owner for sample in apply_control(dataset, "shuffled", 0).samples()]
    for (_, user), owner in zip(dataset.index(), owners, strict=True):
        assert owner is not None and owner != user
        assert owner.partition("-")[0] == user.partition("-")[0]


@pytest.mark.parametrize("method", ["longest_option", "shortest_option", "most_familiar"])
def test_no_rule_solves_the_example_data(method: str) -> None:
    result = trial(method, PrefEval())
    assert result.summary.metrics["official"]["accuracy"] <= 0.5


def _verdicts(**values: bool | None) -> dict[str, judging.Verdict]:
    tags = {True: "<answer>yes</answer>", False: "<answer> No </answer>", None: "cut off before"}
    return {name: judging.Verdict(value, tags[value]) for name, value in values.items()}


@pytest.mark.parametrize(
    ("verdicts", "follows", "failure"),
    [
        ({"violate": True, "helpful": True, "acknowledge": False}, False, "unaware"),
        ({"violate": False, "helpful": True, "acknowledge": False}, True, ""),
        ({"violate": False, "helpful": False, "acknowledge": False}, False, "unhelpful"),
        (
            {"violate": True, "helpful": True, "acknowledge": True, "hallucinate": True},
            False,
            "hallucination",
        ),
        (
            {"violate": True, "helpful": True, "acknowledge": True, "hallucinate": False},
            False,
            "inconsistent",
        ),
    ],
)
def test_verdicts_become_one_kind_of_failure(
    verdicts: dict[str, bool | None], follows: bool, failure: str
) -> None:
    read = _verdicts(**verdicts)
    assert judging.follows(read) is follows
    assert judging.classify(read) == failure


def test_a_judge_that_fails_counts_for_nothing_but_the_official_rule() -> None:
    task = PrefEvalGen()
    sample = task.open("all", None).load(0)
    assessment = {name: list(v) for name, v in _verdicts(violate=None, helpful=True).items()}
    values = task.measure_interaction({}, assessment, sample)
    assert values == {"accuracy": [0.0, 0.0], "accuracy-official": 1.0, "judge-failed": 1.0}
    accuracy = next(metric for metric in PrefEvalGen.metrics if metric.name == "accuracy")
    rows = np.array([values["accuracy"], [1.0, 1.0]])
    assert accuracy.size is not None and accuracy.size(rows) == 1 == accuracy.aggregate(rows)


def test_the_official_rule_equals_an_independent_one() -> None:
    draw = random.Random(0)
    pieces = ["yes", "no", "not sure", "<answer>", "</answer>", "Yes", "I know", " ", "cannot"]
    for _ in range(200):
        replies = ["".join(draw.choices(pieces, k=draw.randint(1, 7))) for _ in range(2)]
        verdicts = {
            name: judging.Verdict(judging.read_answer(reply), reply)
            for name, reply in zip(("violate", "helpful"), replies, strict=True)
        }
        assert judging.follows_officially(verdicts) == _independent_rule(*replies)


def _independent_rule(violate: str, helpful: str) -> bool:
    def last_answer(reply: str) -> str:
        answer = ""
        rest = reply.lower()
        while "<answer>" in rest:
            _, _, rest = rest.partition("<answer>")
            inside, closed, _ = rest.partition("</answer>")
            if closed and "<" not in inside:
                answer = inside
        return answer

    broken = last_answer(violate).count("yes") > 0
    unhelpful = last_answer(helpful).count("no") > 0
    return not broken and not unhelpful


def test_a_run_is_judged_by_two_questions_each() -> None:
    result = trial(
        "full",
        PrefEvalGen(),
        limit=4,
        answer=lambda request: "Get a cat.",
        roles={"judge": lambda request: "Fine.\n<answer>no</answer>"},
    )
    metrics = result.summary.metrics["official"]
    assert metrics["accuracy"] == 0 and metrics["judge-failed"] == 0
    assert result.summary.usage["judge"].calls == 8


def test_the_model_may_acknowledge_the_preference_itself() -> None:
    task = PrefEval(PrefEval.Params(acknowledge="model", turns=2))
    preferences = {s.hidden["preference"] for s in task.open("all", None).samples()}

    def answer(request: Any) -> str:
        is_statement = request.messages[-1].content in preferences
        return "Noted, in my own words." if is_statement else "<choice>A</choice>"

    result = trial("full", task, limit=1, answer=answer)
    first, second = result.requests
    (statement,) = first.messages
    preference = statement.content
    texts = [message.content for message in second.messages]
    assert texts[:2] == [preference, "Noted, in my own words."] and len(texts) == 2 + 4 + 1
    (line,) = result.predictions
    assert line.interaction["acknowledgment"] == "Noted, in my own words."
    assert [call.phase for call in line.calls] == ["predict", "simulate"]
    assert result.summary is not None
    assert result.summary.metrics["official"]["evidence-recall"] == 1.0

    # The statement is not shown to the question by a method that shows nothing.
    blind = trial("none", task, limit=1, answer=answer)
    assert blind.summary is not None
    assert blind.summary.metrics["official"]["evidence-recall"] == 0.0
    assert preference not in blind.requests[1].messages[-1].content


def test_only_a_stated_preference_is_acknowledged_by_the_model() -> None:
    with pytest.raises(ValueError, match="goes with form=explicit"):
        PrefEval.Params(acknowledge="model", form="choice")
    fixed = PrefEval().open("all", None)
    assert fixed.load(0).history[0].response == prefeval.ACKNOWLEDGMENT
    assert PrefEval().protocol == "static"


@pytest.mark.parametrize(
    ("method", "calls"), [("remind", 1), ("cot", 1), ("rag_k", 1), ("self_critic", 3)]
)
def test_prompt_only_methods_show_the_whole_conversation(method: str, calls: int) -> None:
    task = PrefEval(PrefEval.Params(turns=6))
    result = trial(method, task, limit=1, answer=lambda request: "<choice>B</choice>")
    assert len(result.requests) == calls
    sample = next(
        sample
        for sample in task.open("all", None).samples()
        if sample.id == result.predictions[0].sample_id
    )
    for request in result.requests:
        turns = [message.content for message in request.messages[:14]]
        assert turns == [
            text for record in sample.history for text in (record.stimulus, record.response)
        ]
    assert result.predictions[0].output == "<choice>B</choice>"


def test_the_best_records_are_repeated_or_shown_alone() -> None:
    """`rag_k` keeps the whole dialogue and adds k records, `rag` shows these alone."""
    for method, kept in (("rag_k", True), ("rag", False)):
        cls = registry.load_class("method", method)
        result = trial(cls(cls.Params(k=5)), PrefEval(), limit=1)
        (request,) = result.requests
        question = request.messages[-1].content
        assert question.count("User: ") == 5
        assert (len(request.messages) == 2 * 11 + 1) == kept


def test_a_window_drops_the_oldest_and_counts_a_preference_that_is_lost() -> None:
    result = trial("remind", PrefEval(PrefEval.Params(turns=12)), limit=3, window=600)
    dropped = [line.flags for line in result.predictions if "records_dropped" in line.flags]
    assert dropped and all(flags["evidence_dropped"] == 1 for flags in dropped)


def test_a_question_without_choices_is_sent_alone() -> None:
    sample = PrefEval().open("all", None).load(0)
    bare = msgspec.structs.replace(sample, choices=())
    rendered = PrefEval().chat(bare, ())
    assert rendered.messages[-1].content == sample.input
