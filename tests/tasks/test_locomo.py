"""LoCoMo: its file, the official scorer, what methods see, and the two judges."""

from __future__ import annotations

import json
import random
import re
from pathlib import Path
from typing import Any

import pytest

from personabench.errors import DataError
from personabench.tasks.locomo import LoCoMo, scoring
from personabench.tasks.locomo.files import find_evidence, read_conversations
from personabench.tasks.locomo.judging import read_verdict
from personabench.testing import trial


def entry(**changes: Any) -> dict[str, Any]:
    turns = [
        {"speaker": "Ann", "dia_id": "D1:1", "text": "I sold the boat.", "query": "SENTINEL boat"},
        {"speaker": "Bo", "dia_id": "D1:2", "text": "Look!", "blip_caption": "a red kite"},
    ]
    qa = [
        {"question": "What was sold?", "answer": "the boat", "evidence": ["D1:1"], "category": 4},
        {"question": "How many?", "answer": 1, "evidence": ["D:1:02", "D"], "category": 2},
        {"question": "Who flew?", "adversarial_answer": "Ann", "evidence": [], "category": 5},
    ]
    return {
        "sample_id": "pair",
        "event_summary": "SENTINEL events",
        "conversation": {
            "speaker_a": "Ann",
            "speaker_b": "Bo",
            "session_1_date_time": "9:05 am on 3 March, 2024",
            "session_1": turns,
            # A date without a session, as in the published file.
            "session_2_date_time": "soon",
        },
        "qa": qa,
        **changes,
    }


def write(folder: Path, *entries: dict[str, Any]) -> Path:
    path = folder / "locomo10.json"
    path.write_text(json.dumps(entries))
    return path


def test_a_file_is_read_with_its_defects(tmp_path: Path) -> None:
    (conversation,) = read_conversations(write(tmp_path, entry()))
    (session,) = conversation.sessions
    assert session.time == "2024-03-03T09:05"
    assert [turn.text for turn in session.turns] == ["I sold the boat.", "Look! [a red kite]"]
    assert [question.id for question in conversation.questions] == [
        "locomo_0_qa0",
        "locomo_0_qa1",
        "locomo_0_qa2",
    ]
    assert conversation.questions[1].evidence == ("D1:2",)
    assert conversation.questions[1].lost_evidence == 1
    task = LoCoMo()
    assert task.counts(task.open("all", tmp_path)) == [
        '2 marks of evidence are in another form than "D1:2"',
        "1 marks of evidence name no turn and are left out",
        "1 questions have no mark of evidence",
    ]


@pytest.mark.parametrize(
    ("texts", "evidence", "lost"),
    [
        (["D8:6; D9:17"], ("D8:6", "D9:17"), 0),
        (["D9:1 D4:4 D4:6"], ("D9:1", "D4:4", "D4:6"), 0),
        (["D:11:26"], ("D11:26",), 0),
        (["D30:05"], ("D30:5",), 0),
        (["D"], (), 1),
        (["D99:1"], (), 1),
    ],
)
def test_evidence_of_every_published_form(
    texts: list[str], evidence: tuple[str, ...], lost: int
) -> None:
    known = {"D8:6", "D9:17", "D9:1", "D4:4", "D4:6", "D11:26", "D30:5"}
    assert find_evidence(texts, known) == (evidence, lost)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"qa": {}}, "Expected `array`"),
        ({"qa": [{"question": "?", "category": 9, "answer": "x"}]}, "expected 1 to 5"),
        ({"qa": [{"question": "?", "category": 4}]}, "no answer"),
        ({"conversation": {"speaker_a": "Ann"}}, "speaker_b is missing"),
        (
            {"conversation": {"speaker_a": "A", "speaker_b": "B", "session_1": {}}},
            "session_1: Expected `array`",
        ),
        (
            {"conversation": {"speaker_a": "A", "speaker_b": "B", "session_1": []}},
            "expected a date such as",
        ),
        (
            {
                "conversation": {
                    "speaker_a": "A",
                    "speaker_b": "B",
                    "session_1": [],
                    "session_1_date_time": "9:05 am on 31 February, 2024",
                }
            },
            "session_1_date_time is '9:05 am on 31 February, 2024', expected a date",
        ),
        (
            {
                "conversation": {
                    "speaker_a": "A",
                    "speaker_b": "B",
                    "session_01": [],
                    "session_1": [],
                    "session_1_date_time": "9:05 am on 3 March, 2024",
                }
            },
            "conversation.session_01 is a second session of its number",
        ),
    ],
)
def test_a_broken_file_is_an_error_with_its_place(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    write(tmp_path, entry(**changes))
    with pytest.raises(DataError, match=re.escape(message)) as caught:
        LoCoMo().open("all", tmp_path)
    assert "conversation 0" in str(caught.value)


def test_a_conversation_that_occurs_twice_is_refused(tmp_path: Path) -> None:
    write(tmp_path, entry(), entry())
    with pytest.raises(DataError, match="conversation 1: sample_id 'pair' occurs twice"):
        LoCoMo().open("all", tmp_path)


def test_a_long_value_is_quoted_in_part(tmp_path: Path) -> None:
    conversation = {**entry()["conversation"], "session_1_date_time": "9" * 100_000}
    with pytest.raises(DataError, match="session_1_date_time is '999") as caught:
        LoCoMo().open("all", write(tmp_path, entry(conversation=conversation)))
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize(
    ("answer", "gold", "category", "value"),
    [
        ("Paris", "paris.", scoring.SINGLE_HOP, 1.0),
        ("the 7 May, 2023", "7 May 2023", scoring.TEMPORAL, 1.0),
        ("yes", "yes; because x", scoring.OPEN_DOMAIN, 1.0),
        # The first part of the gold is an article, which has no words.
        ("b", "a, b", scoring.MULTI_HOP, 0.5),
        *(("x", "", category, 0.0) for category in scoring.ANSWERABLE),
        *(("", "x", category, 0.0) for category in scoring.CATEGORIES),
        ("It is NOT MENTIONED.", "", scoring.ADVERSARIAL, 1.0),
        ("No information available", "", scoring.ADVERSARIAL, 1.0),
        ("Ann", "", scoring.ADVERSARIAL, 0.0),
    ],
)
def test_the_official_rule_case_by_case(
    answer: str, gold: str, category: int, value: float
) -> None:
    assert scoring.score(answer, gold, category) == value


def test_a_gold_may_be_a_number(tmp_path: Path) -> None:
    task = LoCoMo()
    sample = task.open("all", write(tmp_path, entry())).load(1)
    assert sample.references == ("1",)
    assert task.measure("1", sample)["f1"] == [2.0, 1.0]


def test_scores_of_the_official_rules() -> None:
    assert scoring.score("The boats", "a boat", scoring.SINGLE_HOP) == 1.0
    assert scoring.score("red boat", "boat", scoring.SINGLE_HOP) == pytest.approx(2 / 3)
    assert scoring.score("Yes", "Yes; she said so", scoring.OPEN_DOMAIN) == 1.0
    assert scoring.score("figs, olives", "olives, figs, plums", scoring.MULTI_HOP) == (
        pytest.approx(2 / 3)
    )
    assert scoring.score("It is not mentioned.", "", scoring.ADVERSARIAL) == 1.0
    assert scoring.score("", "boat", scoring.TEMPORAL) == 0.0


def test_f1_equals_an_independent_computation() -> None:
    draw = random.Random(0)
    words = ["boat", "boats", "sold", "selling", "the", "and", "red", "May", "2024", "7", "kite,"]
    for _ in range(200):
        answer, gold = (" ".join(draw.choices(words, k=draw.randint(1, 6))) for _ in range(2))
        assert scoring.f1(answer, gold) == pytest.approx(_independent_f1(answer, gold))


def _independent_f1(answer: str, gold: str) -> float:
    from nltk.stem import PorterStemmer

    def stems(text: str) -> list[str]:
        kept = re.sub(r"[^\w\s]", "", text.replace(",", "").lower())
        kept = re.sub(r"\b(a|an|the|and)\b", " ", kept)
        return [PorterStemmer().stem(word) for word in kept.split()]

    left, right = stems(answer), stems(gold)
    shared = 0
    rest = list(right)
    for word in left:
        if word in rest:
            rest.remove(word)
            shared += 1
    return 2 * shared / (len(left) + len(right)) if shared else 0.0


def test_adversarial_options_stand_in_an_order_of_their_own_and_letters_are_read() -> None:
    task = LoCoMo()
    samples = [s for s in task.open("all", None).samples() if s.hidden["category"] == "5"]
    first = [sample.hidden["a"] == scoring.NOT_MENTIONED for sample in samples]
    assert 0 < sum(first) < len(first)
    for sample in samples:
        for letter in "ab":
            assert task.parse(f"({letter})", sample, "official") == sample.hidden[letter]
    assert task.measure(scoring.NOT_MENTIONED, samples[0])["adversarial"] == [5.0, 1.0]


def test_a_request_shows_dates_and_nothing_that_was_not_said(tmp_path: Path) -> None:
    derived = {name: {"D1": "SENTINEL"} for name in ("observation", "session_summary")}
    write(tmp_path, entry(**derived), entry(sample_id="other"))
    task = LoCoMo()
    dataset = task.open("all", tmp_path)
    for sample in dataset.samples():
        view = repr(sample.view())
        assert "SENTINEL" not in view and "category" not in view
        assert "evidence=()" in view and "references=()" in view
    result = trial("full", task, dataset=dataset)
    text = "\n".join(m.content for request in result.requests for m in request.messages)
    assert "SENTINEL" not in text
    assert "[Sunday, 3 March 2024, 09:05]\nAnn: I sold the boat." in text
    task = LoCoMo(LoCoMo.Params(dates=False))
    undated = trial("full", task, dataset=task.open("all", tmp_path))
    assert "March" not in "\n".join(
        m.content for request in undated.requests for m in request.messages
    )


def test_a_session_is_a_record_of_its_own() -> None:
    turns = LoCoMo().open("all", None).load(0)
    sessions = LoCoMo(LoCoMo.Params(unit="session")).open("all", None).load(0)
    assert len(turns.history) == 15 and len(sessions.history) == 3
    assert turns.evidence == ("D1:3",) and sessions.evidence == ("D1",)


def test_evidence_recall_is_that_of_the_shown_turns() -> None:
    """Of BM25 over turns, recomputed from the ids in the predictions."""
    task = LoCoMo()
    result = trial("rag", task, answer=lambda request: "nothing")
    golds = {sample.id: sample.evidence for sample in task.open("all", None).samples()}
    recalls = []
    for line in result.predictions:
        hits = set(golds[line.sample_id]).intersection(line.shown or ())
        recalls.append(len(hits) / len(golds[line.sample_id]))
    assert 0.6 < sum(recalls) / len(recalls) < 1
    recall = result.summary.metrics["official"]["evidence-recall"]
    assert recall == pytest.approx(sum(recalls) / len(recalls))


async def test_a_judge_is_spared_adversarial_questions() -> None:
    task = LoCoMo()
    samples = list(task.open("all", None).samples())
    judge = ScriptedJudge("The same.\nVerdict: right")
    single, adversarial = samples[0], samples[5]
    judged = await task.assess(single, "Pepper", {}, judge)  # type: ignore[arg-type]
    assert judged and judged["right"] is True and "Pepper" in judge.prompts[0]
    ruled = await task.assess(adversarial, "not mentioned", {}, judge)  # type: ignore[arg-type]
    assert ruled and ruled["right"] is True and len(judge.prompts) == 1
    values = task.measure_interaction({}, judged, single)
    assert values["judged"] == values["judged-single-hop"] == [4.0, 1.0]


class ScriptedJudge:
    def __init__(self, reply: str) -> None:
        self.reply = reply
        self.prompts: list[str] = []

    async def complete(self, messages: Any, **_: Any) -> str:
        self.prompts.append(messages[-1].content)
        return self.reply


@pytest.mark.parametrize(
    ("reply", "right"),
    [
        ("It fits.\nVerdict: right", True),
        ("**Verdict: wrong**", False),
        ("Verdict: right\nbut I am not sure", True),
        ("It says:\nVerdict: right\nwhich it is not.\nVerdict: wrong", None),
        ("", None),
    ],
)
def test_verdicts(reply: str, right: bool | None) -> None:
    assert read_verdict(reply) is right


def test_a_reasoned_answer_is_its_last_line() -> None:
    task = LoCoMo(LoCoMo.Params(template="reason"))
    sample = task.open("all", None).load(0)
    assert task.parse("Ida said so.\nAnswer: Pepper", sample, "official") == "Pepper"
    assert task.parse("Pepper", sample, "lenient") is None
    assert task.words.instruction != LoCoMo().words.instruction
