"""Fermi: the calls of its search, the memory, its failures, and the prompt of an answer."""

from __future__ import annotations

import asyncio
import json
import re
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from baseline_fixtures import Headlines, ScriptedTask, Stars, labelled, question, text
from engine_fixtures import options

from personabench import Context, Record, Request, Sample, User
from personabench.methods.fermi import Fermi, read_prompts
from personabench.methods.fermi_scoring import ScoredPrompt
from personabench.models.backends.scripted import Scripted
from personabench.run import runner
from personabench.run.plan import plan

PROMPT = re.compile(r"columnist: (prompt [\d.]+)")
Answer = Callable[[Request], str]


def kind(request: Request) -> str:
    opening = request.messages[0].content
    if opening.startswith("You improve the prompt"):
        return "optimizer"
    return "rewrite" if opening.startswith("Rewrite this") else "prediction"


def counts(requests: Sequence[Request]) -> dict[str, int]:
    return dict(Counter(map(kind, requests)))


def prompt_of(request: Request) -> str:
    """The prompt of a prediction; empty for the plain request."""
    match = PROMPT.search(request.messages[0].content)
    return match[1] if match else ""


def write(*prompts: str) -> str:
    return json.dumps({"prompts": [{"prompt": prompt} for prompt in prompts]})


class Optimizer:
    """A model that writes new prompts, each request `count` of them, and predicts by a rule."""

    def __init__(self, predict: Answer, count: int = 4) -> None:
        self.predict = predict
        self.count = count
        self.rounds = 0

    def __call__(self, request: Request) -> str:
        if kind(request) == "prediction":
            return self.predict(request)
        self.rounds += 1
        return write(*(f"prompt {self.rounds}.{number}" for number in range(self.count)))


def stars(count: int) -> User:
    """A user whose ratings are 1 to 4 in turn."""
    return labelled("ann", "1234" * (count // 4))


async def ask(
    folder: Path,
    answer: Answer,
    user: User,
    method: Fermi | None = None,
    task: Headlines | None = None,
    sample: Sample | None = None,
) -> tuple[str, Context, list[Request]]:
    setup = ScriptedTask(folder, [user], task or Stars(), answer=answer)
    return await setup.ask(method or Fermi(), sample or question([user]))


async def test_20_pairs_4_prompts_and_10_rounds_make_820_predictions(tmp_path: Path) -> None:
    _, ctx, requests = await ask(tmp_path, Optimizer(lambda request: "5"), stars(24))
    # 24 records: 4 demonstrations and 20 pairs; and online the answer alone.
    assert counts(requests) == {"prediction": 820 + 1, "optimizer": 10}
    predictions = {r.messages for r in requests[:-1] if kind(r) == "prediction"}
    assert len(predictions) == 820
    assert "parents_kept" not in ctx.flags


async def test_demonstrations_and_scored_pairs_are_disjoint(tmp_path: Path) -> None:
    _, _, requests = await ask(
        tmp_path, Optimizer(lambda request: "5"), stars(24), Fermi(Fermi.Params(rounds=1))
    )
    (optimizer,) = (request for request in requests if kind(request) == "optimizer")
    records, _, memory = optimizer.messages[1].content.partition("Earlier prompts:")
    shown = set(re.findall(r"item\d+", records))
    assert shown == {f"item{number}" for number in range(4)}
    predicted = {
        match[0]
        for request in requests
        if kind(request) == "prediction"
        for match in re.finditer(r"item\d+", request.messages[1].content)
    }
    assert predicted == {f"item{number}" for number in range(4, 24)}
    assert set(re.findall(r"item\d+", memory)) < predicted


async def test_memory_is_ascending_and_lists_the_first_prompts_failures(tmp_path: Path) -> None:
    def predict(request: Request) -> str:
        """Prompt 1.N answers the first N of the items 7 to 11 as the user does."""
        item = int(re.findall(r"item(\d+)", request.messages[1].content)[-1])
        right = int(prompt_of(request).rpartition(".")[2] or 0)
        return str(item % 4 + 1) if item - 7 < right else "5"

    params = Fermi.Params(rounds=2, memory=3, n_pairs=5, failures_shown=3)
    _, _, requests = await ask(
        tmp_path,
        Optimizer(predict),
        stars(12),
        Fermi(params),
        sample=question([stars(12)], "item7"),
    )
    # The newest 5 of 12 records are items 7 to 11.
    memory = [r for r in requests if kind(r) == "optimizer"][1].messages[1].content
    entries = re.findall(r"Prompt: (.*)\nScore: (\d+)", memory)
    assert [int(score) for _, score in entries] == sorted(int(score) for _, score in entries)
    assert [prompt for prompt, _ in entries] == ["prompt 1.1", "prompt 1.2", "prompt 1.3"]

    first, *later = memory.partition("Earlier prompts:")[2].split("Prompt: ")[1:]
    # The newest failures, oldest first.
    assert re.findall(r"\((\d)\)", first) == ["3", "4", "5"]
    assert "Model: 5" in first
    # They have the items 9 to 11, and 10 and 11, wrong; of the first one's, 8 is not shown.
    assert "of those above: 3, 4, 5; others: 0" in later[0]
    assert "of those above: 4, 5; others: 0" in later[1]
    assert all("Model:" not in entry for entry in later)


async def test_all_right_at_the_start_stops_at_once(tmp_path: Path) -> None:
    def predict(request: Request) -> str:
        item = int(re.findall(r"item(\d+)", request.messages[1].content)[-1])
        return str(item % 4 + 1)

    user = stars(24)
    about = question([user], "A new tale of item99")
    _, ctx, requests = await ask(tmp_path, Optimizer(predict), user, sample=about)
    assert counts(requests) == {"prediction": 21}
    assert ctx.flags["aligned_early"] == 1


@pytest.mark.parametrize(
    "reply", ["No prompt.", '{"prompts": []}', '{"prompts": [{"prompt": ""}]}']
)
async def test_a_failed_optimizer_keeps_the_parent(tmp_path: Path, reply: str) -> None:
    def answer(request: Request) -> str:
        return "5" if kind(request) == "prediction" else reply

    _, ctx, requests = await ask(tmp_path, answer, stars(24), Fermi(Fermi.Params(rounds=3)))
    # The parent's scores are known, so that it costs no further prediction.
    assert counts(requests) == {"prediction": 21, "optimizer": 6}
    assert ctx.flags["optimizer_failed"] == 3
    assert ctx.flags["parents_kept"] == 12
    assert ctx.notes["prompt"] == ""


async def test_a_reply_with_some_prompts_keeps_the_parent_for_the_rest(tmp_path: Path) -> None:
    params = Fermi.Params(rounds=1)
    model = Optimizer(lambda request: "5", count=3)
    _, ctx, requests = await ask(tmp_path, model, stars(24), Fermi(params))
    assert counts(requests)["prediction"] == 20 * (1 + 3) + 1
    assert ctx.flags["parents_kept"] == 1


async def test_the_answers_prompt_is_the_best_on_the_nearest_questions(tmp_path: Path) -> None:
    records = [
        Record(f"r{number}", f"@({1 - number % 2},{number % 2}) item{number}", "1")
        for number in range(12)
    ]
    user = User("ann", tuple(records))

    def predict(request: Request) -> str:
        """The first prompt knows the items on the x axis, the second those on the y axis."""
        x_axis = "@(1,0)" in request.messages[1].content
        return (
            "1"
            if {"prompt 1.0": x_axis, "prompt 1.1": not x_axis}.get(prompt_of(request), False)
            else "5"
        )

    params = Fermi.Params(rounds=1, n_prompts=2, neighbours=4)
    for axis, expected in (("@(1,0)", "prompt 1.0"), ("@(0,1)", "prompt 1.1")):
        _, ctx, requests = await ask(
            tmp_path / expected,
            Optimizer(predict, count=2),
            user,
            Fermi(params),
            sample=question([user], f"{axis} new"),
        )
        assert prompt_of(requests[-1]) == ctx.notes["prompt"] == expected
        assert ctx.notes["training_score"] == 0.5

    # With more neighbours than pairs all count, and the tie goes to the earlier prompt.
    many = Fermi(Fermi.Params(rounds=1, n_prompts=2, neighbours=99))
    _, ctx, _ = await ask(
        tmp_path / "all",
        Optimizer(predict, count=2),
        user,
        many,
        sample=question([user], "@(0,1) new"),
    )
    assert ctx.notes["prompt"] == "prompt 1.0"


async def test_ratings_are_scored_by_closeness_and_texts_by_rouge(tmp_path: Path) -> None:
    params = Fermi.Params(rounds=0)
    _, ctx, _ = await ask(
        tmp_path / "stars", lambda request: "4", labelled("ann", "5" * 12), Fermi(params)
    )
    assert ctx.notes["training_score"] == 0.75
    texts = User(
        "ann", tuple(Record(f"r{n}", f"story {n}", "one two three four") for n in range(9))
    )
    _, ctx, _ = await ask(
        tmp_path / "texts", lambda request: "one two", texts, Fermi(params), Headlines()
    )
    assert ctx.notes["training_score"] == pytest.approx(2 / 3, abs=1e-6)


async def test_failures_of_texts_are_under_the_median_of_the_first_prompt(tmp_path: Path) -> None:
    replies = {
        3: "one two three four",
        4: "one two three",
        5: "one two",
        6: "none",
        7: "one two three",
    }
    texts = tuple(Record(f"r{n}", f"story {n}", "one two three four") for n in range(8))

    def answer(request: Request) -> str:
        if kind(request) == "optimizer":
            return write("prompt 1.0")
        return replies.get(int(re.findall(r"story (\d)", text([request]))[-1]), "one")

    params = Fermi.Params(rounds=1, n_prompts=1, n_pairs=5)
    user = User("ann", texts)
    _, _, requests = await ask(
        tmp_path, answer, user, Fermi(params), Headlines(), question([user], "story 3")
    )
    (optimizer,) = (request for request in requests if kind(request) == "optimizer")
    # The record that repeats the question is left out, so that the pairs are stories 2 and 4 to 7.
    assert re.findall(r"\(\d\) Story: story (\d)", optimizer.messages[1].content) == ["2", "6"]


async def test_unparsed_predictions_have_no_score(tmp_path: Path) -> None:
    class Strict(Stars):
        def parse(self, output: str, sample: Sample, scorer: str) -> str | None:
            return output if output in self.labels else None

    def predict(request: Request) -> str:
        return "Well." if "item11" in text([request]) else "1"

    user = labelled("ann", "1" * 12)
    _, ctx, requests = await ask(
        tmp_path, Optimizer(predict), user, Fermi(Fermi.Params(rounds=1, n_prompts=1)), Strict()
    )
    # Repeated once for each of the two prompts; the others are right, but nothing stops early.
    assert ctx.flags["predictions_unparsed"] == 2
    assert "aligned_early" not in ctx.flags
    assert ctx.notes["training_score"] == 1.0
    assert sum("item11" in text([request]) for request in requests) == 4


async def test_prompts_that_quote_an_answer_are_rejected(tmp_path: Path) -> None:
    texts = tuple(Record(f"r{n}", f"story {n}", f"{n} boats left the old port") for n in range(9))

    def answer(request: Request) -> str:
        if kind(request) == "optimizer":
            return write('Say "8 boats left the old port".', "Be brief, as in 8 boats.")
        return "A headline"

    params = Fermi.Params(rounds=1, n_prompts=2)
    _, ctx, requests = await ask(tmp_path, answer, User("ann", texts), Fermi(params), Headlines())
    assert ctx.flags["prompts_quoting"] == ctx.flags["parents_kept"] == 1
    predictions = [request for request in requests if kind(request) == "prediction"]
    assert any("Be brief" in request.messages[0].content for request in predictions)
    assert not any('Say "8' in request.messages[0].content for request in predictions)


async def test_long_prompts_are_shortened(tmp_path: Path) -> None:
    def answer(request: Request) -> str:
        return write("likes " * 400) if kind(request) == "optimizer" else "5"

    params = Fermi.Params(rounds=1, n_prompts=1, prompt_max_tokens=20)
    _, ctx, requests = await ask(tmp_path, answer, stars(12), Fermi(params))
    assert ctx.flags["prompts_truncated"] == 1
    assert requests[-2].messages[0].content.count("likes") == 10


async def test_a_small_window_drops_the_oldest_failures_first(tmp_path: Path) -> None:
    params = Fermi.Params(rounds=1, n_prompts=1, prompt_max_tokens=32)
    setup = ScriptedTask(
        tmp_path, [stars(24)], Stars(), answer=Optimizer(lambda request: "5", 1), window=700
    )
    _, ctx, requests = await setup.ask(Fermi(params), question([stars(24)]))
    (optimizer,) = (request for request in requests if kind(request) == "optimizer")
    numbers = re.findall(r"\((\d+)\)", optimizer.messages[1].content)
    assert ctx.flags["records_dropped"] > 0
    assert 0 < len(numbers) < 16 and numbers[-1] == "20"
    # Demonstrations are dropped only when no failure is left.
    assert "item0" in optimizer.messages[1].content

    small = ScriptedTask(
        tmp_path / "small",
        [stars(24)],
        Stars(),
        answer=Optimizer(lambda request: "5", 1),
        window=330,
    )
    _, _, requests = await small.ask(Fermi(params), question([stars(24)]))
    (optimizer,) = (request for request in requests if kind(request) == "optimizer")
    assert "(" not in optimizer.messages[1].content
    items = re.findall(r"item(\d+)", optimizer.messages[1].content)
    assert 0 < len(items) < 4 and items[-1] == "3"


async def test_records_without_a_stimulus_get_a_neutral_one(tmp_path: Path) -> None:
    tweets = tuple(Record(f"r{n}", None, f"tweet {n}, yay!") for n in range(6))

    def answer(request: Request) -> str:
        if kind(request) == "rewrite":
            (number,) = re.findall(r"tweet (\d)", text([request]))
            return f"A neutral text {number}"
        return "5" if kind(request) == "prediction" else "-"

    params = Fermi.Params(rounds=0)
    _, _, requests = await ask(tmp_path, answer, User("ann", tweets), Fermi(params), Headlines())
    assert counts(requests) == {"rewrite": 4, "prediction": 5}
    predictions = [request for request in requests if kind(request) == "prediction"]
    assert not any("yay" in text([request]) for request in predictions)
    assert "Story: A neutral text 5" in text(predictions)


async def test_an_empty_history_is_the_plain_request_flagged(tmp_path: Path) -> None:
    _, ctx, requests = await ask(tmp_path, Optimizer(lambda request: "5"), User("ann", ()))
    assert counts(requests) == {"prediction": 1}
    assert ctx.flags["empty_history"] == 1


def test_replies_are_read() -> None:
    assert read_prompts(write("a", " b\n c ")) == ["a", "b c"]
    # A reply that reached the token limit.
    assert read_prompts('{"prompts": [{"prompt": "a \\"b\\""}, {"prompt": "c') == ['a "b"']
    assert read_prompts('Sure. {"prompts": [{"prompt": "a"}]}') == ["a"]
    assert read_prompts('{"prompt": "\\ud800"}') is None
    assert read_prompts("Be brief.") is None
    # The dots of the form that was asked for.
    assert read_prompts(write("...")) is None


def test_scores_without_any_prediction_are_the_lowest() -> None:
    nothing = ScoredPrompt("a", (None, None), (None, None), 0)
    zero = ScoredPrompt("b", (0.0, None), ("x", None), 1)
    assert nothing.mean < zero.mean == 0
    assert not nothing.is_aligned(1) and not zero.is_aligned(0)
    assert zero.find_failures(0) == [0]


@pytest.mark.parametrize("task", ["lamp3", "lamp4"])
def test_the_plan_contains_a_search_with_all_prompts(tmp_path: Path, task: str) -> None:
    assignments = ["fermi.rounds=2", "fermi.n_prompts=3"]
    chosen = options(tmp_path, "fermi", task, limit=2, assignments=assignments)
    (forecast,) = asyncio.run(plan(chosen))
    row = forecast.as_dict({})

    model = Scripted(answer=Optimizer(lambda request: "3", count=3))
    (outcome,) = asyncio.run(runner.run(chosen, backend=model))
    calls = sum(phase.calls for phase in outcome.summary.usage.values())
    assert row["calls"] <= calls == len(model.requests) <= row["calls_at_most"]
    assert outcome.summary.counters.get("parents_kept", 0) == 0
