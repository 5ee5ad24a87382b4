"""CIPHER and its family online, with a stub model and a rule-based user."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from edit_fixtures import (
    BASE,
    FAMILY,
    RULES,
    SOURCES,
    ScriptedTask,
    first_occurrences,
    live,
    paying,
    sequences,
    stage,
    stub,
)

from personabench import Sample, UsageError
from personabench.methods.cipher import Cipher, Continual, CotEdit, EThenE, IclEdit, Oracle
from personabench.methods.cipher.edits import is_costly_edit
from personabench.methods.cipher.learner import find_nearest
from personabench.metrics.edits import edit_cost
from personabench.types import to_json


@pytest.mark.parametrize(
    ("final", "cost"),
    [
        (BASE, 0),
        (BASE.lower(), 3),
        ("- " + BASE, 1),
        (BASE + " What do you think?", 5),
        (BASE + " 🙂", 1),
        ("Hello,\n" + BASE, 2),
        ("The team met on Monday and agreed on a plan.", 2),
        ("The team met on Monday.\n\nThey agreed on a plan.", 0),
        ("", 12),
    ],
)
def test_costs_of_worked_examples(final: str, cost: int) -> None:
    assert edit_cost(BASE, final) == edit_cost(final, BASE) == cost
    assert (
        is_costly_edit(BASE, final, 0, "text")
        == is_costly_edit(final, BASE, 0, "text")
        == (cost > 0)
    )
    assert is_costly_edit(BASE, final, cost, "text") is False


def test_costs_of_contractions_and_empty_texts() -> None:
    assert edit_cost("Don't worry", "Do not worry") == edit_cost("Do not worry", "Don't worry") == 1
    assert edit_cost("", "") == 0


def test_whether_anything_changed_agrees_with_the_cost() -> None:
    rng = random.Random(5)
    pieces = [
        "Hi",
        "there",
        ".",
        ",",
        '"',
        "``",
        "''",
        "'s",
        "can",
        "not",
        "cannot",
        " ",
        "  ",
        "\n",
        "(",
        "🙂",
    ]
    texts = ["".join(rng.choices(pieces, k=rng.randrange(6))) for _ in range(300)]
    close = [text.replace(" ", "") for text in texts] + [text.replace('"', "''") for text in texts]
    verdicts: Counter[bool] = Counter()
    for first, second in [
        *zip(
            texts,
            close[:300],
            strict=True,
        ),
        *zip(texts, close[300:], strict=True),
    ]:
        changed = first.split() != second.split() and edit_cost(first, second) > 0
        verdicts[changed] += 1
        assert is_costly_edit(first, second, 0, "text") == changed, (first, second)
    assert min(verdicts[True], verdicts[False]) > 20


@pytest.mark.parametrize("sources", sequences())
async def test_edited_rounds_of_random_sequences(sources: list[str]) -> None:
    everywhere = list(range(len(sources)))
    for method in (
        Cipher(Cipher.Params(k=1)),
        IclEdit(),
        CotEdit(),
    ):
        rounds, _, _ = await live(method, sources)
        assert paying(rounds) == first_occurrences(sources), method.name
    rounds, _, _ = await live(Continual(), sources)
    assert paying(rounds) == [
        index for index in everywhere if index == 0 or sources[index] != sources[index - 1]
    ]
    rounds, _, _ = await live(EThenE(), sources)
    assert paying(rounds) == [
        index for index in everywhere if index < 5 or sources[index] != sources[4]
    ]
    rounds, _, _ = await live(Oracle(), sources)
    assert paying(rounds) == []


@pytest.mark.parametrize(
    ("source", "total"),
    list(zip(SOURCES, (3, 1, 5, 1, 2), strict=True)),
)
async def test_total_costs_with_a_single_source(source: str, total: int) -> None:
    for k in (1, 3):
        rounds, _, _ = await live(Cipher(Cipher.Params(k=k)), [source] * 6)
        assert [entry.cost for entry in rounds] == [total, 0, 0, 0, 0, 0]


@pytest.mark.parametrize("cls", FAMILY)
async def test_a_process_killed_after_every_round_resumes_identically(cls: Any) -> None:
    # Online runs take hours and are resumed from the stored JSON state.
    sources = sequences()[3]
    rounds, state, setup = await live(cls(), sources)
    again, resumed, second = await live(
        cls(),
        sources,
        interrupted=True,
    )
    assert rounds == again
    assert to_json(state) == to_json(resumed)
    assert to_json(setup.backend.requests) == to_json(second.backend.requests)


@pytest.mark.parametrize("reply", ["", " \n", "None", "Preference: none.", '""'])
async def test_no_memory_entry_is_empty(reply: str) -> None:
    setup = ScriptedTask(lambda request: reply if stage(request) == "infer" else stub(request))
    rounds, state, _ = await live(Cipher(), ["alpha", "beta", "alpha"], setup)
    assert state["rounds"] == []
    assert [(entry.predicting, entry.learning) for entry in rounds] == [(1, 2)] * 3
    for cls in (Continual, EThenE):
        setup = ScriptedTask(setup.backend.answer)
        await live(cls(), ["alpha"] * 7, setup)
        noted = [
            request.messages[0].content
            for request in setup.backend.requests
            if stage(request) == "generate"
        ]
        assert set(noted) == {"Write the brief only."}


async def test_accepted_drafts_leave_no_entry() -> None:
    method, setup = Cipher(), ScriptedTask()
    state = await method.profile(Sample("", "u", "").user, setup.context())
    for number in range(3):
        draft = await method.predict(Sample("r", "u", f"alpha {number}"), state, setup.context())
        state = await method.update(
            state,
            {
                "draft": draft,
                "edited": draft,
                "cost": 0,
            },
            setup.context(),
        )
    assert state == {
        "rounds": [],
        "open": None,
        "t": 3,
    }
    assert Counter(map(stage, setup.backend.requests)) == {"generate": 3}


@pytest.mark.parametrize(
    ("delta", "cost", "inferences"),
    [
        (0, 0, 0),
        (0, 1, 1),
        (3, 3, 0),
        (3, 5, 1),
    ],
)
async def test_only_rounds_that_cost_more_than_delta_are_inferred_from(
    delta: float, cost: float, inferences: int
) -> None:
    method, setup = Cipher(Cipher.Params(delta=delta)), ScriptedTask()
    state = await method.profile(Sample("", "u", "").user, setup.context())
    await method.predict(Sample("r", "u", "alpha"), state, setup.context())
    ctx = setup.context()
    state = await method.update(
        state,
        {
            "draft": BASE,
            "edited": BASE.lower() + "  ",
            "cost": cost,
        },
        ctx,
    )
    assert len(ctx.calls) == inferences
    assert len(state["rounds"]) == inferences


async def test_an_unedited_round_keeps_the_preference_of_its_draft() -> None:
    _, state, _ = await live(Cipher(Cipher.Params(k=3)), ["alpha", "alpha", "alpha"])
    assert [entry["preference"] for entry in state["rounds"]] == ["all lower case"] * 3
    assert [entry["text"] for entry in state["rounds"]] == [
        f"Note {number} about alpha" for number in range(3)
    ]


async def test_calls_per_round() -> None:
    sources = sequences()[3]
    for k in (1, 3):
        rounds, _, _ = await live(Cipher(Cipher.Params(k=k)), sources)
        assert rounds[0].predicting == 1
        assert rounds[0].learning == 1
        for entry in rounds[1:]:
            assert entry.predicting == (1 if k == 1 else 2)
            assert entry.learning == int(entry.cost > 0)
    for method in (
        IclEdit(),
        CotEdit(),
        Oracle(),
    ):
        rounds, _, _ = await live(method, sources)
        assert {(entry.predicting, entry.learning) for entry in rounds} == {(1, 0)}
    rounds, _, _ = await live(Continual(), sources)
    assert [(entry.predicting, entry.learning) for entry in rounds] == [(1, 0)] + [(2, 0)] * 13
    rounds, _, _ = await live(EThenE(), sources)
    assert [(entry.predicting, entry.learning) for entry in rounds] == [(1, 0)] * 4 + [(1, 1)] + [
        (1, 0)
    ] * 9


@pytest.mark.parametrize("cls", FAMILY)
async def test_prompts_hold_no_hidden_preference_and_inferences_no_document(
    cls: Any,
) -> None:
    # The true preference is the gold of an online task, and a document would leak into the
    # preference.
    _, _, setup = await live(
        cls(), sequences()[3], ScriptedTask(lambda request: f"{stage(request)} said")
    )
    for request in setup.backend.requests:
        whole = "\n".join(message.content for message in request.messages)
        assert not any(rule.phrase in whole for rule in RULES)
        if stage(request) in ("infer", "aggregate"):
            assert "Note " not in whole
            assert not any(source in whole for source in SOURCES)


async def test_the_oracle_needs_a_task_that_reveals_preferences() -> None:
    with pytest.raises(UsageError, match="briefs"):
        await Oracle().predict(Sample("r", "u", "alpha"), None, ScriptedTask().context())
    assert Oracle.privileged


async def test_ties_recall_the_earlier_entry() -> None:
    setup = ScriptedTask()
    ctx = setup.context()
    texts = ["beta 1", "alpha 1", "beta 2", "alpha 2", "beta 3"]
    assert await find_nearest("alpha 9", texts, 2, "bert", ctx) == [1, 3]
    assert await find_nearest("alpha 9", texts, 9, "mpnet", ctx) == [1, 3, 0, 2, 4]
    assert await find_nearest("alpha 9", [], 9, "mpnet", ctx) == []
    rounds, state, _ = await live(Cipher(Cipher.Params(k=50)), ["alpha"] * 4)
    assert len(rounds) == len(state["rounds"]) == 4


async def test_the_aggregation_lists_the_nearest_preference_first() -> None:
    _, _, setup = await live(Cipher(Cipher.Params(k=2)), ["beta", "alpha", "alpha"])
    merged = [
        request.messages[-1].content
        for request in setup.backend.requests
        if stage(request) == "aggregate"
    ]
    assert merged[0] == "- bullet points\n\nPreference:"
    assert merged[1] == "- all lower case\n- bullet points\n\nPreference:"


async def test_an_empty_aggregation_falls_back_to_the_nearest_preference() -> None:
    setup = ScriptedTask(lambda request: "" if stage(request) == "aggregate" else stub(request))
    rounds, _, _ = await live(Cipher(), ["alpha", "alpha"], setup)
    assert [entry.cost for entry in rounds] == [3, 0]
    assert rounds[1].predicting == 3


async def test_feedback_without_a_draft_is_an_error() -> None:
    # A state that lost its open round would otherwise attribute the edit to another draft.
    method, setup = Cipher(), ScriptedTask()
    state = await method.profile(Sample("", "u", "").user, setup.context())
    with pytest.raises(UsageError, match="predict opens a round"):
        await method.update(
            state,
            {
                "draft": "a",
                "edited": "b",
                "cost": 1,
            },
            setup.context(),
        )


@pytest.mark.parametrize(
    "make",
    [
        lambda: Cipher.Params(k=0),
        lambda: Cipher.Params(delta=-1),
        lambda: IclEdit.Params(k=0),
        lambda: CotEdit.Params(k=0),
        lambda: Continual.Params(pairs=0),
        lambda: EThenE.Params(preference_max_tokens=0),
    ],
)
def test_parameters_that_cannot_work_are_refused(make: Callable[[], Any]) -> None:
    with pytest.raises(ValueError, match="must be"):
        make()
