"""Comparisons decided by likelihoods of the responses, or by scores of another model."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest
from prefpair_files import metrics_of, psoups_row, text_of

from personabench.methods.full import Full
from personabench.models.backends.scripted import Scripted
from personabench.models.tokens import EstimatedTokens
from personabench.run.imported import Card, ImportedAnswers, imported_method
from personabench.tasks.prefpair import Prism, Psoups
from personabench.testing import trial
from personabench.types import Request, Response


class TokenBackend(Scripted):
    """Report log-probabilities of given replies: `with_history` and `without`, by their text."""

    supports_reply_logprobs = True
    with_history: Mapping[str, Sequence[float]] = {}
    without: Mapping[str, Sequence[float]] = {}

    async def complete(self, request: Request, group: str) -> Response:
        self.requests.append(request)
        reply = request.messages[-1].content
        conversation = "".join(message.content for message in request.messages[:-1])
        table = self.with_history if "history" in conversation else self.without
        return Response(reply, logprobs=tuple({"logprob": value} for value in table[reply]))


GOOD, BAD = "A long reply to Why? with many words.", "Short: Why?"


@pytest.mark.parametrize(
    ("decide", "expected"),
    [
        # -4 against -3, and -1 against -1.5 for each token.
        ("sum", 0.0),
        ("mean", 1.0),
        # Less -6 and -3.2: +2 against +0.2.
        ("sum_gain", 1.0),
        ("mean_gain", 1.0),
    ],
)
def test_likelihoods_by_hand(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, decide: str, expected: float
) -> None:
    backend = TokenBackend()
    backend.with_history = {GOOD: [-1.0] * 4, BAD: [-1.5] * 2}
    backend.without = {GOOD: [-1.5] * 4, BAD: [-1.6] * 2}
    assert likelihood_accuracy(tmp_path, monkeypatch, backend, decide) == expected
    for request in backend.requests:
        question = text_of(request)
        assert request.messages[-1].content in (GOOD, BAD)
        assert "(A)" not in question
        assert "letter" not in question


@pytest.mark.parametrize("decide", ["sum", "mean", "sum_gain", "mean_gain"])
def test_equal_likelihoods_are_right_on_half(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, decide: str
) -> None:
    backend = TokenBackend()
    backend.with_history = backend.without = {GOOD: [-2.0], BAD: [-2.0]}
    assert likelihood_accuracy(tmp_path, monkeypatch, backend, decide) == 0.5


def likelihood_accuracy(
    folder: Path, monkeypatch: pytest.MonkeyPatch, backend: TokenBackend, decide: Any
) -> float:
    path = folder / "rows.json"
    path.write_text(json.dumps([psoups_row("Why?")]))
    monkeypatch.setattr(sys.modules[trial.__module__], "Scripted", lambda **_: backend)
    task = Psoups()
    method = Full(Full.Params(decide=decide))
    return metrics_of(trial(method, task, dataset=task.open("all", path)))["accuracy"]


def test_a_question_without_choices_shows_the_conversation_and_the_history() -> None:
    task = Prism()
    sample = next(s for s in task.open("all", None).samples() if s.history)
    bare = msgspec.structs.replace(sample, choices=(), input=sample.stimulus or "")
    request = task.render(bare, sample.history, "", EstimatedTokens())
    text = "\n".join(message.content for message in request.messages)
    assert text.endswith(sample.stimulus or "")
    assert "Not preferred: " in text


def test_imported_scores_that_tie_are_right_on_half() -> None:
    task = Psoups()
    dataset = task.open("all", None)
    equal = {sample_id: (1.0, 1.0) for sample_id, _ in dataset.index()}
    card = Card(method="reward", model="m", trained_on="none")
    answers = ImportedAnswers("scores.jsonl", 0, equal, {})
    result = trial(imported_method(card, answers)(), task, dataset=dataset)
    metrics = metrics_of(result)
    assert (metrics["accuracy"], metrics["strict"]) == (0.5, 0.0)
    assert all(line.flags["score_ties"] for line in result.predictions)
