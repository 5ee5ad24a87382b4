"""CIPHER and its family on tasks with a history and no edits."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
from typing import Any

import msgspec
import pytest
from edit_fixtures import FAMILY, ScriptedTask, stage

from personabench import Context, Method, Record, Request, Sample, Task, UsageError
from personabench.api import registry
from personabench.hashing import digest
from personabench.methods.cipher import Cipher, Continual, EThenE, IclEdit
from personabench.models.backends.scripted import Scripted
from personabench.models.cache import Cache
from personabench.run import plan, runner
from personabench.testing.trials import trial


def lamp(name: str) -> tuple[Task, Sample]:
    task = registry.load_class("task", name)()
    return task, next(iter(task.open(task.default_split, None).samples())).view()


async def ask_once(
    method: Method,
    sample: Sample,
    task: Task,
    setup: ScriptedTask,
) -> tuple[str, Context]:
    setup.task = task
    ctx = setup.context()
    return await method.predict(sample, await method.profile(sample.user, ctx), ctx), ctx


def drafting(request: Request) -> str:
    return "A plain draft" if stage(request) == "generate" else "short and dry"


@pytest.mark.parametrize("name", ["lamp4", "lamp5", "lamp6", "lamp7"])
@pytest.mark.parametrize("k", [1, 3])
async def test_static_makes_at_most_2k_offline_calls_and_caches_them(
    name: str, k: int, tmp_path: Path
) -> None:
    # A draft and an inference for each of the k records; both are independent of the question.
    task, sample = lamp(name)
    setup = ScriptedTask(drafting, Cache(tmp_path / "cache.sqlite"))
    _, ctx = await ask_once(Cipher(Cipher.Params(k=k)), sample, task, setup)
    assert len(ctx.calls) == 2 * k + (k > 1) + 1
    again = msgspec.structs.replace(sample, id="again")
    _, ctx = await ask_once(Cipher(Cipher.Params(k=k)), again, task, setup)
    assert all(call.cached for call in ctx.calls)
    before = len(setup.backend.requests)
    _, ctx = await ask_once(IclEdit(IclEdit.Params(k=k)), sample, task, setup)
    assert len(ctx.calls) == k + 1
    assert len(setup.backend.requests) == before + 1


@pytest.mark.parametrize("name", ["lamp2m", "lamp2n", "lamp3", "lamp4", "lamp5", "lamp6"])
@pytest.mark.parametrize("mode", ["static", "replay"])
@pytest.mark.parametrize("cls", FAMILY)
async def test_no_draft_prompt_holds_the_users_response(cls: Any, mode: Any, name: str) -> None:
    # A draft that has seen the response would teach nothing.
    task, sample = lamp(name)
    marked = tuple(
        msgspec.structs.replace(
            record,
            response=record.response if task.kind == "ordinal" else f"{record.response} OWN",
            stimulus=f"{record.stimulus} @{record.id}@",
        )
        for record in sample.history
    )
    setup = ScriptedTask(
        lambda r: "2" if task.kind == "ordinal" and stage(r) == "generate" else drafting(r)
    )
    await ask_once(
        cls(cls.Params(mode=mode)), msgspec.structs.replace(sample, history=marked), task, setup
    )
    drafts = [
        r
        for r in setup.backend.requests
        if stage(r) == "generate" and "@" in r.messages[-1].content
    ]
    assert drafts
    for request in drafts:
        if mode == "static":
            assert not any("OWN" in message.content for message in request.messages)
            assert [message.role for message in request.messages if message.role != "system"] == [
                "user"
            ]
        else:
            headline = re.findall(r"@(.*?)@", request.messages[-1].content)[0]
            final = next(record.response for record in marked if record.id == headline)
            assert task.kind != "text" or not any(
                final in message.content for message in request.messages
            )


async def test_the_draft_of_a_tweet_is_its_neutral_rewrite() -> None:
    task, sample = lamp("lamp7")
    setup = ScriptedTask(lambda request: f"{stage(request)}d")
    await ask_once(Cipher(Cipher.Params(k=2)), sample, task, setup)
    stages = [stage(request) for request in setup.backend.requests]
    assert Counter(stages) == {
        "neutral": 2,
        "infer": 2,
        "aggregate": 1,
        "generate": 1,
    }
    tweets = {record.response for record in sample.history}
    for request in setup.backend.requests:
        if stage(request) == "neutral":
            assert request.messages[1].content in tweets
        if stage(request) == "infer":
            assert re.fullmatch(
                r"Draft: neutrald\nFinal: (.*)\n\nPreference:",
                request.messages[1].content,
                re.DOTALL,
            )


@pytest.mark.parametrize("cls", FAMILY)
async def test_lamp1_is_refused(cls: Any) -> None:
    task, sample = lamp("lamp1")
    with pytest.raises(UsageError, match="no past answers of the kind"):
        trial(cls(), "lamp1", limit=1)
    with pytest.raises(UsageError, match="no past choices"):
        await ask_once(cls(), sample, task, ScriptedTask())


@pytest.mark.usefixtures("quick_vectors")
@pytest.mark.parametrize("mode", ["static", "replay"])
@pytest.mark.parametrize("cls", FAMILY)
@pytest.mark.parametrize("name", ["lamp2m", "lamp2n", "lamp3", "lamp4", "lamp5", "lamp6", "lamp7"])
def test_every_cell_runs_on_the_example_data(cls: Any, mode: Any, name: str) -> None:
    result = trial(
        cls(cls.Params(mode=mode)),
        task=name,
        limit=2,
    )
    assert [line.error for line in result.predictions] == [None] * len(result.predictions)


@pytest.mark.usefixtures("quick_vectors")
@pytest.mark.parametrize("cls", FAMILY)
def test_an_empty_history_is_the_plain_prompt_and_flagged(cls: Any) -> None:
    result = trial(
        cls(),
        limit=3,
        history="none",
    )
    plain = trial(registry.load_class("method", "none")(), limit=3)
    assert [line.output for line in result.predictions] == [
        line.output for line in plain.predictions
    ]
    assert all(line.flags == {"empty_profile": 1} for line in result.predictions)


@pytest.mark.parametrize("name", ["lamp2m", "lamp3"])
async def test_label_costs_and_the_inference_prompt(name: str) -> None:
    task, sample = lamp(name)
    correct, incorrect = ("5", "1") if name == "lamp3" else (sample.choices[0], sample.choices[1])
    history = tuple(
        msgspec.structs.replace(record, response=correct) for record in sample.history[:3]
    )
    sample = msgspec.structs.replace(sample, history=history)
    for guess, inferences in (
        (correct, 0),
        (incorrect, 3),
        ("no idea", 0),
    ):
        setup = ScriptedTask(
            lambda r, guess=guess: f" {guess}." if stage(r) == "generate" else "is generous"
        )
        _, ctx = await ask_once(Cipher(), sample, task, setup)
        inferring = [request for request in setup.backend.requests if stage(request) == "infer"]
        assert len(inferring) == inferences
        assert ctx.flags.get("draft_unreadable", 0) == (3 if guess == "no idea" else 0)
        assert ctx.flags.get("plain_prompt", 0) == (0 if inferences else 1)
        for request in inferring:
            assert any(str(record.stimulus) in request.messages[1].content for record in history)
            assert f"Guess: {incorrect}" in request.messages[1].content
    setup = ScriptedTask(lambda r: "1" if stage(r) == "generate" else "is generous")
    _, ctx = await ask_once(Cipher(Cipher.Params(delta=4)), sample, task, setup)
    assert ctx.flags["plain_prompt"] == 1


@pytest.mark.parametrize("mode", ["static", "replay"])
@pytest.mark.parametrize("cls", FAMILY)
async def test_records_equal_to_the_question_are_left_out(cls: Any, mode: Any) -> None:
    # The record's response would be the reference.
    task, sample = lamp("lamp4")
    copy = Record(
        "copy",
        f"  {str(sample.stimulus).upper()}\n",
        "THE ANSWER",
        fields={"text": "", "title": ""},
    )
    history = (
        *sample.history[:2],
        copy,
        *sample.history[2:4],
    )
    setup = ScriptedTask(drafting)
    _, ctx = await ask_once(
        cls(cls.Params(mode=mode)), msgspec.structs.replace(sample, history=history), task, setup
    )
    assert ctx.flags["duplicates_dropped"] == 1
    assert not any(
        "THE ANSWER" in message.content for r in setup.backend.requests for message in r.messages
    )


async def test_similarity_of_records_is_that_of_their_inputs() -> None:
    task = registry.load_class("task", "lamp4")()
    history = tuple(
        Record(
            f"{n}",
            f"a text on {source}",
            title,
            fields={"text": f"a text on {source}", "title": title},
        )
        for n, (source, title) in enumerate(
            [
                ("alpha", "beta beta"),
                ("beta", "alpha"),
                ("alpha", "gamma"),
            ]
        )
    )
    sample = Sample(
        "q",
        "u",
        "Generate a headline: news of beta",
        stimulus="news of beta",
        history=history,
    )
    setup = ScriptedTask(drafting)
    await ask_once(IclEdit(IclEdit.Params(k=1)), sample, task, setup)
    assert (
        setup.backend.requests[0]
        .messages[-1]
        .content.startswith("Generate a headline: a text on beta")
    )


async def test_replay_drafts_with_the_memory_of_earlier_records() -> None:
    task, sample = lamp("lamp4")
    setup = ScriptedTask(drafting)
    _, ctx = await ask_once(Cipher(Cipher.Params(k=1, mode="replay")), sample, task, setup)
    first, second = [r for r in setup.backend.requests if stage(r) == "generate"][:2]
    assert str(sample.history[0].stimulus) in first.messages[-1].content
    assert "short and dry" not in first.messages[0].content
    assert "Prefers: short and dry" in second.messages[0].content
    assert len(ctx.calls) == 2 * len(sample.history) + 1


async def test_without_edits_no_draft_is_written() -> None:
    task, sample = lamp("lamp4")
    setup = ScriptedTask(drafting)
    await ask_once(Cipher(Cipher.Params(k=3, use_edits=False)), sample, task, setup)
    assert Counter(map(stage, setup.backend.requests)) == {
        "infer": 3,
        "aggregate": 1,
        "generate": 1,
    }
    for request in setup.backend.requests:
        assert "Draft:" not in request.messages[1].content


async def test_e_then_e_learns_from_a_short_history() -> None:
    task, sample = lamp("lamp4")
    setup = ScriptedTask(drafting)
    await ask_once(
        EThenE(), msgspec.structs.replace(sample, history=sample.history[:2]), task, setup
    )
    assert Counter(map(stage, setup.backend.requests)) == {"generate": 3, "infer": 1}


@pytest.mark.usefixtures("quick_vectors")
@pytest.mark.parametrize("cls", FAMILY)
def test_prompts_fit_a_small_window(cls: Any) -> None:
    for name in ("lamp3", "lamp4", "lamp7"):
        result = trial(
            cls(),
            task=name,
            limit=4,
            window=700,
        )
        assert [line.error for line in result.predictions] == [None] * len(result.predictions)


async def test_long_pairs_and_stimuli_are_shortened() -> None:
    task, sample = lamp("lamp4")
    history = tuple(
        msgspec.structs.replace(
            record,
            stimulus="a long article " * 900,
            response=f"{record.response} " * 40,
        )
        for record in sample.history[:5]
    )
    sample = msgspec.structs.replace(sample, history=history)
    for cls, flag in ((IclEdit, "pairs_dropped"), (Continual, "pairs_shortened")):
        setup = ScriptedTask(drafting, window=900)
        _, ctx = await ask_once(cls(), sample, task, setup)
        assert ctx.flags[flag] > 0
        assert ctx.flags["stimuli_shortened"] >= 5


@pytest.mark.parametrize("name", [cls.name for cls in FAMILY])
@pytest.mark.parametrize("task", ["lamp4", "lamp7"])
async def test_the_plan_predicts_the_calls(name: str, task: str, tmp_path: Path) -> None:
    # Users decide by the plan whether they can afford a run.
    options = runner.Options(
        methods=[name],
        tasks=[task],
        limit=4,
        backend="scripted",
        results=tmp_path,
    )
    (forecast,) = await plan.plan(options)
    model = Scripted(answer=lambda request: f"{drafting(request)} {digest(request.messages)[:8]}")
    (outcome,) = await runner.run(options, backend=model)
    predictions = runner.RunFolder(outcome.folder).ordered_predictions
    ids = [line.sample_id for line in runner.RunFolder(outcome.folder).iter_predictions()]
    completed = [line for line in predictions(ids) if line is not None]
    call_count = len({call.key for line in completed for call in line.calls})
    paid = sum(not call.cached for line in completed for call in line.calls)
    row = forecast.as_dict({})
    assert forecast.total == call_count
    assert forecast.to_pay == paid
    assert row["calls"] <= call_count <= row["calls_at_most"]
