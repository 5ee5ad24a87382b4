"""CIPHER and its family on conversations: reactions to replies take the place of edits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
import pytest
from edit_fixtures import FAMILY, ScriptedTask, stage

from personabench import Record, Request, Sample, UsageError
from personabench.api import registry
from personabench.methods.cipher import Cipher, Continual, EThenE, IclEdit
from personabench.tasks.personamem.conversation import find_exchanges, make_records, strip_speaker
from personabench.tasks.personamem.files import Turn
from personabench.testing.trials import trial


def talk(*blocks: Sequence[str]) -> tuple[Record, ...]:
    """A history of blocks that alternate between user and assistant."""
    turns = []
    for block in blocks:
        turns.append(Turn("system", "Current user persona: somebody."))
        turns += [
            Turn("assistant" if index % 2 else "user", text) for index, text in enumerate(block)
        ]
    return make_records(turns, "user")


def test_an_exchange_is_a_message_its_reply_and_the_next_message() -> None:
    history = talk(
        ("User: a1", "Assistant: r1", "User: a2", "Assistant: r2"),
        ("User: b1", "Assistant: s1", "User: b2"),
    )
    triples = [
        (
            exchange.stimulus,
            exchange.fields["reply"],
            exchange.response,
        )
        for exchange in find_exchanges(history)
    ]
    assert triples == [("a1", "r1", "a2"), ("b1", "s1", "b2")]
    assert find_exchanges(()) == ()
    assert find_exchanges(talk(("User: alone",))) == ()


def spoken(*sources: str) -> Sample:
    """A question about alpha after exchanges about some sources, in time order."""
    blocks = [
        (f"Ask {n} {source}", f"Reply {n}", f"Reaction {n}") for n, source in enumerate(sources)
    ]
    task = registry.load_class("task", "personamem")()
    sample = task.open("32k", None).load(0)
    changed: Sample = msgspec.structs.replace(
        sample,
        history=talk(*blocks),
        stimulus="What of alpha?",
        input="What of alpha? (a) x (b) y",
    )
    return changed


async def ask_once(
    method: Any,
    sample: Sample,
    says: dict[str, str] | None = None,
) -> tuple[ScriptedTask, dict[str, float]]:
    """Run a method on PersonaMem with a model that infers `says` from a reaction."""

    def answer(request: Request) -> str:
        text = request.messages[-1].content
        replies = [value for key, value in (says or {}).items() if key in text]
        return (
            (replies or ["likes it"])[0]
            if said_next(request)
            else "merged"
            if merges(request)
            else "(a)"
        )

    setup = ScriptedTask(answer)
    setup.task = registry.load_class("task", "personamem")()
    ctx = setup.context()
    await method.predict(sample.view(), await method.profile(sample.user, ctx), ctx)
    return setup, ctx.flags


def said_next(request: Request) -> bool:
    return "what an assistant replied" in request.messages[0].content


def merges(request: Request) -> bool:
    return stage(request) == "aggregate"


async def test_the_nearest_exchanges_are_merged_in_time_order() -> None:
    sample = spoken("alpha", "beta", "alpha", "gamma", "alpha")
    says = {"Reaction 0": "likes short", "Reaction 2": "NONE", "Reaction 4": "likes long"}
    setup, flags = await ask_once(Cipher(Cipher.Params(k=3)), sample, says)
    inferred = [r.messages[-1].content for r in setup.backend.requests if said_next(r)]
    assert inferred == [
        f"Assistant: Reply {n}\nUser: Reaction {n}\n\nPreference:" for n in (0, 2, 4)
    ]
    (merged,) = (r for r in setup.backend.requests if merges(r))
    assert merged.messages[-1].content == "- likes short\n- likes long\n\nPreference:"
    assert "the later one holds" in merged.messages[0].content
    assert flags == {"nothing_shown": 1}
    assert "Prefers: merged" in setup.backend.requests[-1].messages[0].content
    assert not any("(b) y" in text for text in [*inferred, merged.messages[-1].content])


async def test_without_preferences_the_prompt_is_plain() -> None:
    setup, flags = await ask_once(Cipher(), spoken("alpha", "beta"), {"Reaction": "None."})
    assert flags == {"nothing_shown": 2, "plain_prompt": 1}
    assert len(setup.backend.requests) == 3
    assert all(
        "Prefers" not in message.content for r in setup.backend.requests for message in r.messages
    )


async def test_the_family_uses_the_last_the_first_or_the_nearest_exchanges() -> None:
    sample = spoken("beta", "alpha", "gamma")
    setup, _ = await ask_once(Continual(Continual.Params(pairs=2)), sample)
    assert "Reaction 0" not in setup.backend.requests[0].messages[-1].content
    setup, _ = await ask_once(EThenE(EThenE.Params(pairs=2)), sample)
    assert "Reaction 2" not in setup.backend.requests[0].messages[-1].content
    setup, _ = await ask_once(IclEdit(IclEdit.Params(k=1)), sample)
    (request,) = setup.backend.requests
    assert (
        "took earlier replies:\n\nAssistant: Reply 1\nUser: Reaction 1"
        in request.messages[0].content
    )


async def test_an_exchange_that_starts_with_the_question_is_left_out() -> None:
    sample = msgspec.structs.replace(spoken("alpha", "beta"), stimulus="  ask 0 ALPHA ")
    setup, flags = await ask_once(Cipher(Cipher.Params(k=2)), sample)
    assert flags["duplicates_dropped"] == 1
    assert not any("Reaction 0" in r.messages[-1].content for r in setup.backend.requests)


@pytest.mark.parametrize("cut", range(0, 24, 4))
async def test_no_message_after_the_cut_and_no_option_reaches_a_memory(
    cut: int,
) -> None:
    # The messages after the cut hold the answer, and options are the answer among others.
    data = registry.load_class("task", "personamem")().open("32k", None)
    question, sample = data.questions[cut], data.load(cut)
    turns = data.contexts.turns(question.context)
    before = "\n".join(turn.content for turn in turns[: question.end])
    later = [
        strip_speaker(turn.content)
        for turn in turns[question.end :]
        if strip_speaker(turn.content) not in before
    ]
    setup, _ = await ask_once(Cipher(), sample)
    inferring = [r.messages[-1].content for r in setup.backend.requests if said_next(r)]
    assert inferring
    assert later or cut
    for text in inferring:
        assert not any(message in text for message in later)
        assert not any(option in text for option in question.texts)


@pytest.mark.usefixtures("quick_vectors")
@pytest.mark.parametrize("cls", FAMILY)
def test_the_family_runs_on_the_example_conversations(cls: Any) -> None:
    result = trial(
        cls(),
        "personamem",
        limit=8,
    )
    assert [line.error for line in result.predictions] == [None] * len(result.predictions)


def test_turns_need_conversations() -> None:
    # Without a dialogue there are no reactions to learn from.
    with pytest.raises(UsageError, match="its histories are not conversations"):
        trial(Cipher(Cipher.Params(mode="turns")), "lamp4", limit=1)
