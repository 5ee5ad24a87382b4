"""What a person is told of replies with thoughts, and of those that are not what they seem."""

from __future__ import annotations

import json

import pytest
from conftest import Command

from personabench.models.backends.scripted import Scripted
from personabench.types import Request, Response, Usage

RUN = ("run", "-b", "scripted", "-t", "lamp4", "-m", "none", "-n", "6")


def answering(monkeypatch: pytest.MonkeyPatch, response: Response) -> None:
    async def complete(self: Scripted, request: Request, group: str) -> Response:
        return response

    monkeypatch.setattr(Scripted, "complete", complete)


def test_show_keeps_thought_and_reply_apart(
    personabench: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    answering(monkeypatch, Response("<think>Hm: dry?</think>Dry again", usage=Usage(90, 9)))
    ended = personabench(*RUN)
    assert ended.code == 0 and "warning" not in ended.err
    shown = personabench("show", "last", "3125")
    assert "thought\nHm: dry?\nreply\nDry again\n" in shown.out and "<think>" not in shown.out
    (call,) = personabench("show", "last", "3125", "--json").json["calls"]
    assert (call["thought"], call["reply"]) == ("Hm: dry?", "Dry again")


@pytest.mark.parametrize(
    ("response", "words"),
    [
        (Response("Dry", "refused", Usage(90, 9)), "content filter"),
        (
            Response("Dry", "length", Usage(90, 9)),
            "7 replies were truncated at their token limit; --max-tokens",
        ),
        (Response("Dry"), "credible count of their tokens"),
        (Response("Dry", usage=Usage(3, 9)), "raise the server's window"),
    ],
)
def test_what_a_reader_of_the_scores_must_know_is_said(
    personabench: Command, monkeypatch: pytest.MonkeyPatch, response: Response, words: str
) -> None:
    answering(monkeypatch, response)
    ended = personabench(*RUN, "--json")
    (said,) = (line for line in ended.err.splitlines() if line.startswith("warning:"))
    assert ended.code == 0 and words in said and json.loads(ended.out)


def test_a_model_that_only_thinks_ends_the_run(
    personabench: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    answering(monkeypatch, Response("<think>Hm", "length", Usage(90, 9)))
    ended = personabench(*RUN)
    assert ended.code == 1 and "first 5 answers" in ended.err and "--reasoning" in ended.err


def test_a_raw_reading_scores_thoughts_and_shares_the_calls(
    personabench: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    answering(monkeypatch, Response("<think>Hm</think> Dry again", usage=Usage(90, 9)))
    # A method that is shown thoughts would make profiles of them.
    run = (*RUN[:6], "summary", *RUN[7:], "--json")
    (answers,) = personabench(*run).json
    (raw,) = personabench(*run, "--reading", "raw").json
    assert raw["sampling"]["reading"] == "raw" and "reading" not in answers["sampling"]
    assert raw["fingerprint"] != answers["fingerprint"]
    assert raw["counters"]["read_raw"] == raw["n"] and "read_raw" not in answers["counters"]
    assert sum(phase["calls"] - phase["cached"] for phase in raw["usage"].values()) == 0
    outputs = [
        personabench("show", run["fingerprint"], "3125", "--json").json for run in (answers, raw)
    ]
    assert [shown["output"] for shown in outputs] == ["Dry again", "<think>Hm</think> Dry again"]
    assert not any("Hm" in call["messages"][-1]["content"] for call in outputs[1]["calls"])
    board = personabench("leaderboard").out
    assert "summary (reading=raw)" in board


def test_a_raw_reading_of_thoughts_alone_is_a_run(
    personabench: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    answering(monkeypatch, Response("<think>Hm", "length", Usage(90, 9)))
    ended = personabench(*RUN, "--reading", "raw")
    assert ended.code == 0 and "replies were truncated" in ended.err


def test_a_few_truncated_thoughts_are_counted_on_the_leaderboard(
    personabench: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    answering(monkeypatch, Response("<think>Hm", "length", Usage(90, 9)))
    ended = personabench(*RUN[:-1], "1")
    assert ended.code == 0 and "3 answers are empty: a model that thinks first" in ended.err
    heading = next(line for line in ended.out.splitlines() if "method" in line)
    assert "truncated" in heading and "empty" in heading


def test_no_negative_tokens_in_a_table(
    personabench: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    answering(monkeypatch, Response("Dry", usage=Usage(-50_000, -9, -3)))
    ended = personabench(*RUN)
    rows = ended.out.partition("tokens")[2].partition(" columns hidden")[0]
    assert ended.code == 0 and "-" not in rows
    assert "7 calls, 0 cached, 0 tokens" in ended.err
