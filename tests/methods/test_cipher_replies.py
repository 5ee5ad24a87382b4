"""Parsing of replies by CIPHER and its family, and the treatment of empty ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest
from edit_fixtures import BASE, FAMILY, ScriptedTask, live, stage, stub

from personabench import Request, Sample
from personabench.api import registry
from personabench.methods.cipher import Cipher, Continual, prompts
from personabench.methods.cipher.prompts import Round
from personabench.models.cache import Cache


@pytest.mark.parametrize(
    ("reply", "answer", "unmarked"),
    [
        ("They cut words.\nFinal: Rain", "Rain", 0),
        ("Final: draft\nno,\n**Final headline:** **Rain**", "**Rain**", 0),
        ("<think>Final: no</think>Terse.\n## Final:\n- one\n- two", "- one\n- two", 0),
        ("Rain in the final: a report", "Rain in the final: a report", 1),
        ("Thoughts.\nFinal:  ", "Thoughts.\nFinal:", 1),
        (
            "Final: The team won the cup.\nFinal score: 3-1",
            "The team won the cup.\nFinal score: 3-1",
            0,
        ),
        ("Short.\n**Final answer:** Rain\nFinal thoughts: none", "Rain\nFinal thoughts: none", 0),
        ("Terse.\nFinal Text: one\nFinal version: two", "two", 0),
        ("Final score: 3-1", "Final score: 3-1", 1),
        ("Final: no?</think>Rain", "Rain", 1),
    ],
)
def test_reading_a_reasoned_answer(reply: str, answer: str, unmarked: int) -> None:
    setup = ScriptedTask()
    setup.task = registry.load_class("task", "lamp4")()
    ctx = setup.context()
    assert prompts.read_final(reply, ctx) == answer
    assert ctx.flags.get("no_final", 0) == unmarked


@pytest.mark.parametrize(
    ("reply", "preference"),
    [
        (" Preference: short,\n dry ", "short, dry"),
        ("**Tendency:** generous", "generous"),
        ("<think>hm</think>\n“plain words”", "plain words"),
        ("- None.", ""),
        ("<think>never ends", ""),
        ("no-nonsense headlines", "no-nonsense headlines"),
        ("hm, none?</think> plain words", "plain words"),
        ("word " * 99, " ".join(["word"] * 60)),
    ],
)
def test_reading_a_preference(reply: str, preference: str) -> None:
    ctx = ScriptedTask().context()
    assert prompts.cap_preference(prompts.read_phrase(reply), ctx) == preference
    assert ctx.flags == ({"preference_capped": 1} if reply.startswith("word") else {})


@pytest.mark.parametrize(
    "reply",
    [
        "NONE",
        "none.",
        "null",
        "N/A",
        "n/a - nothing",
        "**None**",
        "(none)",
        "[None]",
        '"None"',
        "Nothing",
        "NONE - it shows nothing",
        "None (the edits are about facts)",
        "None — no style is shown",
        "NONE: no wish",
        "None\n\nThe message only asks a question.",
        "Preference: None (the user only asks)",
        "- None.",
        "None, the user only asks",
        "**NONE** – the reply shows nothing",
        "No preference.",
        "Unknown;",
    ],
)
def test_none_with_a_reason_is_no_preference(reply: str) -> None:
    assert prompts.read_phrase(reply) == ""


@pytest.mark.parametrize(
    "reply",
    [
        "none-too-formal",
        "nothing flowery",
        "None of the usual phrases",
        "null-safe",
        "no preferences over facts",
        "unknown words explained",
        "**none** too long",
        "national news first",
    ],
)
def test_a_preference_may_begin_with_none(reply: str) -> None:
    # "None of the usual jargon" is a preference.
    assert prompts.read_phrase(reply) == reply.strip("*")


def pair(draft: str | None = BASE, **more: Any) -> Round:
    return Round(
        text="alpha",
        draft=draft,
        final=BASE.lower(),
        preference="",
        cost=None,
        **more,
    )


def replying(*replies: str, to: str = "infer") -> Any:
    """A stub that gives these replies in turn to inferences or merges, then the last one again."""
    remaining = list(replies)
    return lambda r: (
        (remaining.pop(0) if len(remaining) > 1 else remaining[0]) if stage(r) == to else stub(r)
    )


async def test_an_inference_without_a_preference_is_repeated_and_not_cached(
    tmp_path: Path,
) -> None:
    setup = ScriptedTask(
        replying("None - no edits.", "<think>hm", "short", "dry"), Cache(tmp_path / "cache.sqlite")
    )
    results = []
    for _ in range(3):
        ctx = setup.context()
        results.append(
            (
                await Cipher().infer([pair()], ctx),
                len(ctx.calls),
                ctx.flags,
            )
        )
    assert results == [
        (
            "",
            2,
            {"empty_inference": 1},
        ),
        (
            "short",
            1,
            {},
        ),
        (
            "short",
            1,
            {},
        ),
    ]
    assert [request.repeat for request in setup.backend.requests] == [0, 1, 0]


async def test_a_second_repeat_counts_and_a_long_preference_is_flagged_once(tmp_path: Path) -> None:
    setup = ScriptedTask(replying("None", "word " * 99), Cache(tmp_path / "cache.sqlite"))
    ctx = setup.context()
    assert await Continual().infer([pair()], ctx) == " ".join(["word"] * 60)
    assert ctx.flags == {"preference_capped": 1}
    assert [r.repeat for r in setup.backend.requests] == [
        0,
        1,
    ]


async def test_a_reaction_without_a_preference_is_cached_but_an_empty_reply_is_not(
    tmp_path: Path,
) -> None:
    setup = ScriptedTask(
        replying("NONE (a question)", "<think>hm", "likes it"), Cache(tmp_path / "cache.sqlite")
    )
    setup.task = registry.load_class("task", "personamem")()
    for cached in (False, True):
        ctx = setup.context()
        assert await Cipher().infer([pair(spoken=True)], ctx) == ""
        assert ctx.flags == {"nothing_shown": 1}
        assert [call.cached for call in ctx.calls] == [cached]
    ctx = setup.context()
    assert await Cipher().infer([pair("Another reply.", spoken=True)], ctx) == "likes it"
    assert ctx.flags == {}


async def test_an_empty_merge_is_repeated_and_not_cached(tmp_path: Path) -> None:
    # A cached empty reply would be returned to every later run.
    setup = ScriptedTask(
        replying(
            "None",
            "N/A",
            "short",
            to="aggregate",
        ),
        Cache(tmp_path / "cache.sqlite"),
    )
    results = []
    for _ in range(2):
        ctx = setup.context()
        rounds = [
            Round(
                **{
                    **pair(),
                    "preference": "terse",
                    "t": 0,
                }
            )
        ]
        results.append(
            (await Cipher().find_preference(Sample("r", "u", "alpha"), rounds, ctx), ctx.flags)
        )
    assert results == [("terse", {"empty_aggregation": 1}), ("short", {})]
    assert [request.repeat for request in setup.backend.requests] == [0, 1, 0]


@pytest.mark.parametrize("cls", FAMILY)
async def test_an_empty_draft_is_shown_as_empty(cls: Any) -> None:
    """Drafts are missing only if no drafts are used at all."""
    _, _, setup = await live(
        cls(), ["alpha"] * 6, ScriptedTask(lambda r: stub(r) if stage(r) != "generate" else "")
    )
    inferences = [request for request in setup.backend.requests if stage(request) == "infer"]
    prompts_shown = [
        request
        for request in setup.backend.requests
        if "earlier drafts" in request.messages[0].content
    ]
    assert inferences or prompts_shown or cls is Cipher
    assert all(
        request.messages[0].content.startswith("An assistant drafted") for request in inferences
    )
    assert all(
        "Draft: \nFinal: " in "".join(m.content for m in request.messages)
        for request in [*inferences, *prompts_shown]
    )


def first(pairs: list[Round]) -> tuple[str, str]:
    ctx = ScriptedTask().context()
    system, user = next(prompts.draft_inferences(pairs, ctx)).messages
    return system.content, user.content


def test_the_wording_depends_on_the_presence_of_a_draft() -> None:
    assert first([pair("")]) == (
        first([pair()])[0],
        f"Draft: \nFinal: {BASE.lower()}\n\nPreference:",
    )
    system, user = first([pair(None)])
    assert system.startswith("You see a brief by one reader.")
    assert user == f"Final: {BASE.lower()}\n\nPreference:"


def drafted(request: Request) -> bool:
    return "Draft:" in request.messages[-1].content


@pytest.mark.parametrize(
    ("brought", "use_edits"),
    [
        (None, True),
        (None, False),
        ("Theirs", True),
        ("", True),
    ],
)
async def test_offline_rounds_have_the_drafts_of_their_records(
    brought: str | None, use_edits: bool
) -> None:
    task = registry.load_class("task", "lamp5")()
    sample = task.open("user/dev", None).load(0).view()
    fields = {} if brought is None else {"draft": brought}
    history = tuple(
        msgspec.structs.replace(record, fields={**record.fields, **fields})
        for record in sample.history
    )
    setup = ScriptedTask(lambda request: "short" if stage(request) == "infer" else "A draft")
    setup.task = task
    ctx = setup.context()
    method = Cipher(Cipher.Params(use_edits=use_edits))
    await method.predict(
        msgspec.structs.replace(sample, history=history),
        await method.profile(sample.user, ctx),
        ctx,
    )
    inferring = [request for request in setup.backend.requests if stage(request) == "infer"]
    assert inferring
    assert {drafted(request) for request in inferring} == {use_edits and brought != ""}
    assert "nearest" not in ctx.notes
