"""Parsing, question types, metrics and analysis of PersonaMem replies."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from personamem_files import cell, row, talk, write

from personabench.errors import DataError, UsageError
from personabench.run.answer_scorer import measure
from personabench.run.score_file import score_files
from personabench.run.scoring import Tally
from personabench.tasks.personamem import PersonaMem, scoring
from personabench.tasks.personamem.analysis import (
    Row,
    Share,
    bootstrap_accuracy,
    compare_runs,
    count_by_type,
    count_clusters,
    format_report,
    make_rows,
    mcnemar_p,
    score_rules,
)
from personabench.tasks.personamem.data import PersonaMemData

TALK = talk("SUUASU")


@pytest.mark.parametrize(
    ("reply", "gold", "right", "strict", "status"),
    [
        ("<final_answer> (C) </final_answer>", "c", True, True, "letter"),
        ("(a) no. <final_answer>(b)", "b", True, True, "letter"),
        ("(a) or (b)", "a", False, False, "multiple"),
        ("I choose (c). <final_answer> b", "c", True, False, "letter"),
        ("I choose (c). <final_answer> b", "b", True, True, "letter"),
        ("I'd go with b", "b", False, False, "multiple"),
        ("a good fit is c", "c", False, False, "multiple"),
        ("<final_answer>(a) wait <final_answer>(d)", "d", True, True, "letter"),
        ("(b) <final_answer>", "b", True, True, "letter"),
        ("<final_answer>c</final_answer> a solid pick", "c", False, False, "multiple"),
        ("", "a", False, False, "none"),
        ("<final_answer>(e)", "a", False, False, "none"),
        ("<think>(a) or (c)</think>(b)", "b", True, True, "letter"),
        ("<think>(a) is it (b)", "a", False, False, "none"),
        ("it is (a)</think> so (b)", "b", True, True, "letter"),
        ("<FINAL_ANSWER>(a) (b)", "b", False, False, "multiple"),
    ],
)
def test_acceptance_5_parser(reply: str, gold: str, right: bool, strict: bool, status: str) -> None:
    right_letter = f"({gold})"
    assert (scoring.parse_official(reply, (right_letter,)) == right_letter) is right
    assert (scoring.parse_strict(reply) == right_letter) is strict
    assert scoring.classify_reply(reply) == status


def typed(folder: Path, labels: list[str], split: str = "32k", **changes: Any) -> Path:
    return write(
        folder,
        [
            row(f"q{number}", TALK, 6, question_type=label, **changes)
            for number, label in enumerate(labels)
        ],
        [TALK],
        split,
    )


def metrics_of(
    folder: Path, mapping: str, replies: list[str], split: str = "32k"
) -> dict[str, float]:
    task = PersonaMem(PersonaMem.Params(mapping=mapping))  # type: ignore[arg-type]
    dataset = task.open(split, folder)
    tally = Tally(task)
    for sample, reply in zip(dataset.samples(), replies, strict=True):
        tally.add(measure(task, reply, sample)[0])
    return tally.metrics()["official"]


def test_acceptance_6_the_three_mappings_of_types(tmp_path: Path) -> None:
    labels = [
        "recall_user_shared_facts",
        "recall_user_shared_facts",
        "recalling_facts_mentioned_by_the_user",
    ]
    folder, replies = typed(tmp_path, labels), ["(b)", "(a)", "(b)"]
    raw = metrics_of(folder, "raw", replies)
    assert (
        raw["recall_user_shared_facts"] == 0.5 and raw["recalling_facts_mentioned_by_the_user"] == 1
    )
    assert metrics_of(folder, "merged", replies)["recall_user_shared_facts"] == pytest.approx(2 / 3)
    paper = metrics_of(folder, "paper", replies)
    assert (
        paper["acknowledge_latest_user_preferences"] == 0.5
        and paper["recall_user_shared_facts"] == 1
    )
    longer = typed(tmp_path / "128k", labels, "128k")
    assert metrics_of(longer, "paper", replies, "128k") == metrics_of(
        longer, "merged", replies, "128k"
    )


def test_acceptance_7_micro_and_macro(tmp_path: Path) -> None:
    labels = ["suggest_new_ideas"] * 3 + ["track_full_preference_evolution"]
    metrics = metrics_of(typed(tmp_path, labels), "raw", ["(b)", "(b)", "(b)", "(c)"])
    assert (metrics["accuracy"], metrics["macro"]) == (0.75, 0.5)
    assert (metrics["suggest_new_ideas"], metrics["track_full_preference_evolution"]) == (1.0, 0.0)


def test_acceptance_7_a_failed_row_lowers_accuracy_and_is_listed(tmp_path: Path) -> None:
    dataset = PersonaMem().open("32k", typed(tmp_path, ["suggest_new_ideas"] * 4))
    table = make_rows(dataset, {"q0": "(b)", "q1": "(b)", "q2": None, "q3": "(b)"})
    text = format_report(table, "raw")
    assert (
        "micro accuracy 0.7500 (n=4" in text
        and "counted as wrong: q2" in text
        and "failed 1" in text
    )
    with pytest.raises(UsageError, match="1 ids are not questions"):
        make_rows(dataset, {"q9": "(b)"})


def test_metrics_accept_any_resample() -> None:
    pairs = np.array([[0, 1], [0, 0], [2, 1]], dtype=float)
    assert scoring.macro_accuracy(pairs) == 0.75 and scoring.macro_accuracy(pairs[:1]) == 1.0
    assert scoring.type_accuracy(pairs, 0) == 0.5 and math.isnan(scoring.type_accuracy(pairs, 1))


def table_of(rights: dict[str, list[bool]], persona: str = "0") -> list[Row]:
    """Rows by conversation, right or wrong."""
    facts = scoring.Facts(
        "suggest_new_ideas", "32k", "food", "", 1, 10, 0.5, ("(b)",), (0, 1, 2, 3)
    )
    table = []
    for context, marks in rights.items():
        context_facts = scoring.Facts(
            **{
                **{name: getattr(facts, name) for name in facts.__struct_fields__},
                "context": context,
            }
        )
        for number, right in enumerate(marks):
            chosen = "(b)" if right else "(a)"
            table.append(
                Row(
                    f"{context}{number}",
                    persona,
                    context_facts,
                    "(b)",
                    chosen,
                    "letter",
                    right,
                    right,
                )
            )
    return table


def test_acceptance_8_intervals_draw_conversations() -> None:
    apart = table_of({"x": [True] * 10, "y": [False] * 10})
    assert bootstrap_accuracy(apart) == (0.0, 1.0) and count_clusters(apart) == 2
    assert bootstrap_accuracy(table_of({"x": [True, False]})) is None
    assert bootstrap_accuracy(apart, by="persona") is None, "one persona has both conversations"
    mixed = table_of(
        {
            name: [True, number % 3 == 0, number % 2 == 0]
            for number, name in enumerate("abcdefghijkl")
        }
    )
    assert (
        bootstrap_accuracy(mixed, seed=3)
        == bootstrap_accuracy(mixed, seed=3)
        != bootstrap_accuracy(mixed, seed=4)
    )
    assert "few clusters" in format_report(apart, "raw")


def test_acceptance_8_mcnemar_and_comparisons() -> None:
    assert mcnemar_p(5, 0) == pytest.approx(0.0625) and mcnemar_p(9, 1) == pytest.approx(
        0.0215, abs=5e-5
    )
    assert mcnemar_p(0, 0) == 1.0 and mcnemar_p(3, 3) == 1.0
    first = table_of({"x": [True] * 5, "y": [True] * 5})
    second = table_of({"x": [False] * 5, "y": [True] * 5})
    difference = compare_runs(first, second)
    assert (difference.difference, difference.gained, difference.lost, difference.p) == (
        0.5,
        5,
        0,
        0.0625,
    )
    assert difference.interval == (0.0, 1.0)
    with pytest.raises(UsageError, match="missing: 1"):
        compare_runs(first, second[1:])
    with pytest.raises(UsageError, match="data files differ"):
        compare_runs(first, second, hashes=("a", "b"))


def test_acceptance_10_rules_take_the_first_of_equals(tmp_path: Path) -> None:
    tied = cell(("aaaa", "bbbb", "cc", "dd  "))
    rows_ = [
        row("q1", TALK, 6, all_options=tied, correct_answer="(a)"),
        row("q2", TALK, 6, all_options=tied, correct_answer="(c)", persona_id="1"),
        row("q3", TALK, 6, all_options=tied, correct_answer="(c)", persona_id="1"),
        row("q4", TALK, 6, all_options=tied, correct_answer="(a)", persona_id="2"),
    ]
    scores = score_rules(PersonaMem().open("32k", write(tmp_path, rows_, [TALK])).questions)
    assert scores["majority-letter (a) (uses gold)"] == Share(4, 2), (
        "two a, two c: the earlier letter"
    )
    assert scores["longest-option"] == Share(4, 2) and scores["shortest-option"] == Share(4, 2)
    assert scores["longest-option, tie-split"] == 0.25
    # Learned from the other personas: shortest wins 2:1 for persona 0, longest 2:0 for 1, shortest
    # 2:1 for 2.
    assert scores["type-length (uses gold)"] == Share(4, 0)


def test_distances_are_binned_by_split(tmp_path: Path) -> None:
    rows_ = [
        row(
            "q1",
            TALK,
            6,
            distance_to_ref_in_tokens=3999,
            distance_to_ref_proportion_in_context="0.0%",
        ),
        row(
            "q2",
            TALK,
            6,
            distance_to_ref_in_tokens=4000,
            distance_to_ref_proportion_in_context="60.00%",
        ),
        row(
            "q3",
            TALK,
            6,
            distance_to_ref_in_blocks=10,
            distance_to_ref_proportion_in_context="100%",
        ),
    ]
    dataset = PersonaMem().open("32k", write(tmp_path, rows_, [TALK]))
    text = format_report(
        make_rows(dataset, dict.fromkeys(["q1", "q2", "q3"], "(b)")),
        "raw",
        questions=dataset.questions,
    )
    for line in (
        "0k-4k | 2",
        "4k-8k | 1",
        "0-20 % | 1",
        "60-80 % | 1",
        "80-100 % | 1",
        "| 1 | 2 (few)",
        "| 10 | 1 (few)",
    ):
        assert line in text
    assert text.index("| 1 | 2 (few)") < text.index("| 10 | 1 (few)")
    assert "type-length (uses gold)" in text


def test_acceptance_15_type_counts_sum_to_the_rows() -> None:
    dataset = PersonaMem().open("32k", None)
    table = make_rows(dataset, {name: "(a)" for name, _ in dataset.index()})
    for mapping in ("raw", "merged", "paper"):
        shares = count_by_type(table, mapping)  # type: ignore[arg-type]
        assert sum(share.n for share in shares.values()) == len(table) == 76
    assert len(count_by_type(table, "paper")) == 7 and len(count_by_type(table, "merged")) == 6


def test_score_reads_raw_replies_against_the_official_question_file(tmp_path: Path) -> None:
    dataset = PersonaMem().open("32k", None)
    assert isinstance(dataset, PersonaMemData)
    replies = tmp_path / "mine.jsonl"
    predictions = [
        {"id": question.id, "output": f"Because. <final_answer>({'abcd'[question.gold]})"}
        for question in reversed(dataset.questions)
    ]
    predictions[0]["output"] = "no idea"
    replies.write_text("\n".join(map(json.dumps, predictions)))
    scores = score_files(PersonaMem(), replies, dataset.questions_path, "official", partial=False)
    assert (
        scores.n == 76
        and scores.metrics["accuracy"] == pytest.approx(75 / 76)
        and scores.parse_failures == 1
    )
    assert len(scores.metrics) == 9, "micro, macro and each of the seven types"
    replies.write_text("\n".join(map(json.dumps, predictions[1:])))
    with pytest.raises(DataError, match="missing: 1"):
        score_files(PersonaMem(), replies, dataset.questions_path, "official", partial=False)


def test_acceptance_14_repeated_headers_in_predictions_are_left_out_and_counted(
    tmp_path: Path,
) -> None:
    path = tmp_path / "replies.csv"
    path.write_text('question_id,output\r\nq1,"(a),\nsure"\r\nquestion_id,output\r\nq2,(b)\r\n')
    with pytest.warns(UserWarning, match="1 repeated header"):
        stated, pairs = PersonaMem().read_predictions(path)
    assert stated is None and pairs == [("q1", "(a),\nsure"), ("q2", "(b)")]
    path.write_text("name\nq1\n")
    with pytest.raises(DataError, match="JSON lines"):
        PersonaMem().read_predictions(path)
    path.write_bytes(b"question_id,output\nq1,\xe9\n")
    with pytest.raises(DataError, match=r"replies\.csv is not a CSV file in UTF-8"):
        PersonaMem().read_predictions(path)


def test_a_submission_is_scored_again_without_loss(tmp_path: Path) -> None:
    dataset = PersonaMem().open("32k", None)
    assert isinstance(dataset, PersonaMemData)
    path = tmp_path / "predictions.json"
    path.write_text(
        "".join(
            PersonaMem().submission([(q.id, f"({'abcd'[q.gold]})\n") for q in dataset.questions])
        )
    )
    assert (
        score_files(PersonaMem(), path, dataset.questions_path, "strict", partial=False).metrics[
            "accuracy"
        ]
        == 1
    )


def test_unknown_scorer_names_those_there_are() -> None:
    sample = PersonaMem().open("32k", None).load(0)
    with pytest.raises(UsageError, match="official, strict"):
        PersonaMem().parse("(a)", sample, "kind")
