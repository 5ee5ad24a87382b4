"""A server that gives everybody one headline does not pass without a word."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from conftest import Command

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

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: Any) -> None:
            pass

        def do_GET(self) -> None:
            self.reply({"object": "list", "data": [{"id": "m-1", "object": "model"}]})

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            message = {"role": "assistant", "content": "Local News Of The Day"}
            choice = {"index": 0, "message": message, "finish_reason": "stop"}
            usage = {"prompt_tokens": 900, "completion_tokens": 5, "total_tokens": 905}
            self.reply({"choices": [choice], "usage": usage})

        def reply(self, value: dict[str, Any]) -> None:
            data = json.dumps(value).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=http.serve_forever, args=(0.05,), daemon=True).start()
    yield f"http://127.0.0.1:{http.server_address[1]}/v1"
    http.shutdown()
    http.server_close()


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
