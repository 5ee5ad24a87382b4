"""The harness separates personalization from noise.

A model that only reads (`perfect_reader`) answers for every method on the example data, in which
users here follow their habits throughout: a reader of words cannot tell a habit from the plain
answers that the example data mixes in.  With the users' own histories the methods must beat the
question alone; with those of other users, of the same size and as well written, they must not; and
a model that sees only the question must score the same under all of them.  The reader sees no
reference and no user's name, so any difference between the rows comes from the methods' prompts.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import numpy.typing as npt
import pytest
from perfect_reader import blind, read

from personabench.api import registry
from personabench.leaderboard.stats import Comparison, Scores
from personabench.models.backends.scripted import Scripted
from personabench.results.run_folder import RunFolder
from personabench.run import runner
from personabench.tasks.lamp.records import SAMPLES
from personabench.types import Message, Request

PERSONAL = ("rag", "summary", "cipher", "rpm", "dpl")
TASKS = {"lamp2m": "accuracy", "lamp3": "MAE", "lamp4": "rouge-1"}
# Each task runs every method once; the other tasks say the same of other kinds of answers.
CHOSEN = [
    pytest.param(name, marks=() if name == "lamp4" else pytest.mark.variants) for name in TASKS
]
SHUFFLES = (0, pytest.param(1, marks=pytest.mark.variants))


@dataclass(frozen=True)
class Table:
    """All methods on one task: user, score and answer per question, and every request."""

    task: str
    users: Sequence[str]
    scores: Mapping[str, npt.NDArray[np.float64]]
    outputs: Mapping[str, Sequence[str | None]]
    requests: Sequence[Request]


@cache
def write_consistent_data(task: str) -> TemporaryDirectory[str]:
    """A folder with the example data of a task, every record and answer following the habit."""
    habits = json.loads(Path(__file__).with_name("consistent_habits.json").read_text())[task]
    field = {"lamp2m": "tag", "lamp3": "score", "lamp4": "title"}[task]
    questions = json.loads((SAMPLES / task / "dev_questions.json").read_text())
    outputs = json.loads((SAMPLES / task / "dev_outputs.json").read_text())
    for question in questions:
        for record in question["profile"]:
            record[field] = habits.get(record["id"], record[field])
    for gold in outputs["golds"]:
        gold["output"] = habits.get(gold["id"], gold["output"])
    folder = TemporaryDirectory()
    Path(folder.name, "dev_questions.json").write_text(json.dumps(questions))
    Path(folder.name, "dev_outputs.json").write_text(json.dumps(outputs))
    return folder


def compared(
    first: Table,
    second: Table,
    method: str,
    baseline: str,
) -> Comparison:
    """The contrast of a method in one table with a baseline in another, by users."""
    rows = [first.scores[method], second.scores[baseline]]
    return Scores(
        rows,
        first.users,
        higher_is_better=TASKS[first.task] != "MAE",
    ).compare(0, 1)


@cache
def table(
    task: str,
    history: str = "own",
    seed: int = 0,
    model: Callable[[Request], str] = read,
) -> Table:
    """Run all methods on all questions of a task's example data."""
    backend = Scripted(answer=model)
    scores, outputs, users = {}, {}, []
    with TemporaryDirectory() as folder_name:
        methods = ["none", *PERSONAL]
        chosen = runner.Options(
            methods,
            [task],
            backend="scripted",
            history=history,
            seed=seed,
            results=Path(folder_name),
            assignments=["cipher.k=8"],
            data=Path(write_consistent_data(task).name),
            wording="compact",
        )
        for method, outcome in zip(
            methods, asyncio.run(runner.run(chosen, backend=backend)), strict=True
        ):
            assert outcome.summary.status == "complete"
            folder = RunFolder(outcome.folder)
            # Rows of different methods are compared by position, so all are in one order.
            ordered = sorted(folder.scores(), key=lambda score: score.sample_id)
            values = [score.values["official"][TASKS[task]] for score in ordered]
            scores[method] = np.array(values, dtype=np.float64)
            answers = sorted(folder.iter_predictions(), key=lambda line: line.sample_id)
            outputs[method] = [line.output for line in answers]
            users = [score.user_id for score in ordered]
    return Table(task, users, scores, outputs, tuple(backend.requests))


@pytest.mark.parametrize("method", PERSONAL)
@pytest.mark.parametrize("task", CHOSEN)
def test_the_users_history_helps(task: str, method: str) -> None:
    contrast = compared(table(task), table(task), method, "none")
    assert contrast.gain.value > 0
    assert contrast.by_user.win > contrast.by_user.loss
    if (
        task != "lamp3"
    ):  # 13 users with two scores each are too few to tell every method's gain from chance
        assert contrast.p < 0.01


@pytest.mark.parametrize("seed", SHUFFLES)
@pytest.mark.parametrize("method", PERSONAL)
@pytest.mark.parametrize("task", CHOSEN)
def test_another_users_history_does_not_help(task: str, method: str, seed: int) -> None:
    # Method, format and reader are the same and only the user is wrong, so a gain would be chance.
    # On scores `cipher` gains too little for 13 users to show: records whose draft was right are
    # ignored by it.
    shuffled = table(task, "shuffled", seed)
    assert shuffled.outputs["none"] == table(task).outputs["none"]
    assert compared(shuffled, shuffled, method, "none").gain.value <= 0
    contrast = compared(table(task), shuffled, method, method)
    assert contrast.gain.value > 0
    assert contrast.p < 0.05 or (task, method) == ("lamp3", "cipher")


@pytest.mark.parametrize("task", CHOSEN)
def test_without_a_history_every_method_gives_the_plain_answer(task: str) -> None:
    outputs = table(task, "none").outputs
    assert all(outputs[method] == outputs["none"] for method in PERSONAL)


@pytest.mark.variants
@pytest.mark.parametrize("task", CHOSEN)
def test_a_model_that_looks_at_the_question_only_gains_nothing(task: str) -> None:
    """The calls and words that methods add are worth nothing to a model that ignores them."""
    outputs = table(task, model=blind).outputs
    assert outputs["none"] == table(task).outputs["none"]
    assert all(outputs[method] == outputs["none"] for method in PERSONAL)


@pytest.mark.parametrize("task", CHOSEN)
def test_no_prompt_reveals_an_answer_or_a_name(task: str) -> None:
    """No message holds a user's id, and no request about a question its gold as a line."""
    samples = {
        sample.input: sample
        for sample in registry.load_class("task", task)()
        .open("user/dev", Path(write_consistent_data(task).name))
        .samples()
    }
    users = {sample.user_id for sample in samples.values()}
    request_count = 0
    for request in table(task).requests:
        text = "\n".join(message.content for message in request.messages)
        assert not [user for user in users if re.search(rf"\b{re.escape(user)}\b", text)]
        sample = samples.get(request.messages[-1].content.partition("\n\n")[0])
        if sample is not None and task == "lamp4":
            request_count += 1
            assert sample.references[0] not in text
    assert request_count > 0 or task != "lamp4"


# The reader reads: what it says follows from the text it was given, and from that alone.


def ask(contract: str, *turns: str, notes: str = "") -> str:
    """The reader's reply to notes and turns; the contract, if any, ends the first turn."""
    first, *rest = turns
    messages = [Message("system", notes)] if notes else []
    for index, content in enumerate((f"{first}\n\n{contract}" if contract else first, *rest)):
        messages.append(Message("assistant" if index % 2 else "user", content))
    return read(Request(tuple(messages), max_tokens=64))


HEADLINE = "Reply with the headline only."
ARTICLE = "Generate a headline for the following article: {}"
SCORE = "Score the review as this reviewer would. Reply with 1, 2, 3, 4 or 5 only."
REVIEW = "What is the score of the following review? review: {}"


def test_the_reader_copies_what_headlines_share() -> None:
    question = ARTICLE.format("Owls have moved into the clock tower.")
    prompt = (
        ARTICLE.format("x"),
        "Geese, at Last, Explained",
        ARTICLE.format("y"),
        "The Long Winter of Hale, Explained",
    )
    assert ask(HEADLINE, question) == "Owls have moved into the clock tower"
    assert ask("", *prompt, question) == "Owls have moved into the clock tower , Explained"
    remark = 'About this author:\nopens with "You Can Now" and closes with "".'
    assert (
        ask(HEADLINE, question, notes=remark) == "You Can Now Owls have moved into the clock tower"
    )


def test_the_reader_gives_the_label_of_the_most_similar_evidence() -> None:
    late, cheap = "It came three weeks late.", "A bargain."
    prompt = (
        REVIEW.format(late),
        "1",
        REVIEW.format(cheap),
        "4",
    )
    assert ask(SCORE, REVIEW.format("Nine days late, sadly.")) == "3"
    assert ask(SCORE, *prompt, REVIEW.format("Nine days late, sadly.")) == "1"
    assert ask(SCORE, *prompt, REVIEW.format("It was green.")) == "3"
    remark = "About this reviewer:\ngives 2 for late; gives 5 for cheap"
    assert (
        ask(
            SCORE,
            REVIEW.format("What a bargain!"),
            notes=remark,
        )
        == "5"
    )


def test_the_reader_parses_its_own_remarks_and_ignores_peers() -> None:
    texts = (
        "Article: a\n\nThis author:\nHeadline: You Can Now Skate at Noon\n\n"
        "Other person 1:\nArticle: b\nHeadline: Meet the Man Who Skates\n\nHow this author differs:"
    )
    remark = ask("State how this author differs.", texts)
    assert remark == 'opens with "You Can Now Skate" and closes with "Now Skate at Noon".'
    merged = ask(
        "Merge them into one short phrase.",
        f'- {remark}\n- opens with "You Can Now Eat" and closes with "Late".',
    )
    assert merged == 'opens with "You Can Now" and closes with "".'
