"""A server that gives everybody one headline does not pass without a word."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import Command
from loopback import JsonHandler, LoopbackServer, serving

from personabench.run.suspicion import AnswerWatch
from personabench.types import Sample


def watch(pairs: list[tuple[str, str]], question: str = "") -> AnswerWatch:
    """A watch over (answer, reference) pairs."""
    watcher = AnswerWatch()
    for answer, reference in pairs:
        watcher.add(Sample(input=question, references=(reference,)), answer)
    return watcher


def describe(watcher: AnswerWatch, **amounts: Any) -> list[str]:
    return watcher.describe(**{"truncated": 0, "empty": 0, "is_rule": False, **amounts})


def test_repetition_is_found_and_differences_are_not() -> None:
    texts = [f"reference {number}" for number in range(20)]
    assert describe(watch([("Same.", text) for text in texts])) == ["one answer for all 20 samples"]
    few = [(f"answer {number % 3}", text) for number, text in enumerate(texts)]
    assert describe(watch(few)) == ["3 different answers for 20 samples"]
    assert describe(watch([(text, text) for text in texts])) == []
    assert describe(watch([("Same.", text) for text in texts]), is_rule=True) == []
    assert describe(watch([("Same.", text) for text in texts[:4]])) == []


def test_an_answer_to_each_of_a_few_questions_is_not_suspicious() -> None:
    watcher, mixed = AnswerWatch(), AnswerWatch()
    for number in range(20):
        sample = Sample(input=f"question {number % 3}", references=(f"reference {number}",))
        watcher.add(sample, f"answer {number % 3}")
        mixed.add(sample, f"answer {number % 2}")
    assert describe(watcher) == []
    # Fewer answers than questions are.
    assert describe(mixed) == ["2 different answers for 20 samples"]


def test_labels_may_repeat_unless_all_are_one() -> None:
    golds = ["1", "2"] * 10
    assert describe(watch([(gold, gold) for gold in golds])) == []
    assert describe(watch([("1", gold) for gold in golds])) == ["one answer for all 20 samples"]
    assert describe(watch([("1", "1") for _ in golds])) == []


def test_echoes_truncated_and_empty_answers_are_counted() -> None:
    question = "Write a headline for this article about the tram to the harbour."
    echoes = [(f"{question.upper()} {number}", f"gold {number}") for number in range(6)]
    assert describe(watch(echoes, question)) == ["6 of 6 answers begin by repeating their question"]
    fine = [(f"answer {number}", f"gold {number}") for number in range(6)]
    assert describe(watch(fine, question), truncated=4, empty=1) == [
        "4 replies were truncated, for 6 answers",
        "1 of 6 answers are empty",
    ]


@pytest.fixture
def server() -> Iterator[str]:
    """The address of a server with one answer for everybody."""

    class Handler(JsonHandler):
        def do_GET(self) -> None:
            self.send_models("m-1")

        def do_POST(self) -> None:
            self.read_json()
            self.send_answer("Local News Of The Day", input_tokens=900)

    with serving(LoopbackServer(Handler)) as http:
        yield f"{http.url}/v1"


def test_a_constant_server_is_suspicious_in_run_board_and_page(
    personabench: Command, server: str
) -> None:
    model = ("-b", "openai", "--base-url", server, "--model", "m-1")
    ended = personabench("run", "-t", "lamp4", "-m", "none,rag", *model, "-n", "12")
    assert ended.code == 0, ended.err
    lines = [line.strip() for line in ended.out.splitlines() if "Suspicious" in line]
    assert lines == [
        "Suspicious: none: one answer for all 14 samples.",
        "Suspicious: rag: one answer for all 14 samples; 100% of 14 answers equal those of none.",
    ]
    board = " ".join(personabench("leaderboard").out.split())
    assert "100% of 14 answers equal those of none" in board
    personabench("report", "-o", "report.html")
    assert "Suspicious: rag: one answer for all 14 samples" in Path("report.html").read_text()
    (published,) = personabench("publish", "last", "--to", "published").out.split()
    assert '"suspicious"' in Path(published).read_text()
