"""The entity store: recognition, counts and dates, and the entities drawn for a question."""

from __future__ import annotations

from pathlib import Path
from random import Random

import pytest
from baseline_fixtures import ScriptedTask, question, text

from personabench import Record, Sample, UsageError, User
from personabench.methods.k_lamp import KLamp, build_store, draw, find_entities

TEXTS = {
    "2024-03-01": "The ferry to Sundholm left while Ida Marsh was still in Calverra.",
    "2024-03-02": "Nobody in Calverra had seen Ida Marsh since.",
    "2024-03-05": "At Brannock they asked about Calverra's new bridge.",
}


def user(texts: dict[str, str] | None = None) -> User:
    records = [
        Record(f"r{number}", f"story {number}", body, time=day)
        for number, (day, body) in enumerate((texts or TEXTS).items())
    ]
    return User("ann", tuple(records))


async def ask(
    folder: Path, params: KLamp.Params, sample: Sample, *, seed: int = 0
) -> tuple[list[str], str]:
    """The entities drawn, and all requests."""
    setup = ScriptedTask(folder, [sample.user], answer=lambda request: "A headline")
    setup.seed = seed
    _, ctx, requests = await setup.ask(KLamp(params), sample)
    assert len(requests) == 1
    return ctx.notes.get("entities", []), text(requests)


def test_names_are_recognized() -> None:
    (names,) = find_entities(
        ["Yesterday I met Ida Marsh at the Lantern. The NHS and Calverra's mayor agree: no."]
    )
    assert names == ["Ida Marsh", "Lantern", "NHS", "Calverra"]
    # A capital marks no name in a headline, nor at the beginning of a sentence.
    assert find_entities(["Ten Ways To Cook Rice In Calverra", "Cooking is slow."]) == [[], []]
    # It does if the word has it elsewhere too.
    assert find_entities(["Calverra is far.", "We left Calverra."]) == [["Calverra"], ["Calverra"]]
    assert find_entities(["", "1984!"]) == [[], []]


def test_the_store_counts_records_and_keeps_dates() -> None:
    store = build_store(user().history)
    assert store["Calverra"] == {"count": 3, "first": "2024-03-01", "last": "2024-03-05"}
    assert store["Ida Marsh"] == {"count": 2, "first": "2024-03-01", "last": "2024-03-02"}
    assert set(store) == {"Sundholm", "Ida Marsh", "Calverra", "Brannock"}
    assert build_store(user().history[::-1]) == store, "a file need not be in the order of time"


async def test_the_same_seed_draws_the_same_entities(tmp_path: Path) -> None:
    texts = {f"2024-03-{day:02}": f"we saw Place{chr(64 + day)} today" for day in range(1, 21)}
    sample = question([user(texts)])
    draws = [
        (await ask(tmp_path / str(number), KLamp.Params(), sample, seed=seed))[0]
        for number, seed in enumerate((0, 0, 1, 2))
    ]
    assert len(set(draws[0])) == 5
    assert draws[0] == draws[1]
    assert draws[0] != draws[2] != draws[3]
    reversed_user = User("ann", user(texts).history[::-1])
    again, _ = await ask(tmp_path / "reversed", KLamp.Params(), question([reversed_user]))
    assert again == draws[0], "the order of a file does not count"


def test_weights_decide_the_draw() -> None:
    weights = {"rare": 1.0, "frequent": 9.0}
    firsts = [draw(weights, 1, Random(seed))[0] for seed in range(500)]
    assert 420 < firsts.count("frequent") < 480
    assert sorted(draw(weights, 5, Random(0))) == ["frequent", "rare"]


async def test_familiar_draws_by_count_and_unfamiliar_by_its_inverse() -> None:
    method = KLamp(KLamp.Params(policy="unfamiliar"))
    entities = build_store(user().history)
    sample = question([user()], "The mayor of Dorrington went to see Calverra")
    weights = method._weigh(sample, entities)  # noqa: SLF001 - the weights are not in the answer
    assert weights["Calverra"] == pytest.approx(1 / 4)
    assert weights["Brannock"] == pytest.approx(1 / 2)
    # Of the question alone, and unseen before.
    assert weights["Dorrington"] == 1

    familiar = KLamp()._weigh(sample, entities)  # noqa: SLF001
    assert familiar["Calverra"] == 3 and "Dorrington" not in familiar
    far = question([user()], "x " * 600 + "and Dorrington")
    assert "Dorrington" not in method._weigh(far, entities)  # noqa: SLF001


async def test_lapsed_excludes_13_days_and_includes_15(tmp_path: Path) -> None:
    texts = {
        "2024-02-15T23:00": "nobody was in Farwater",
        "2024-02-16": "nobody was in Midwater",
        "2024-02-17": "nobody was in Nearwater",
    }
    # 15, 14 and 13 days before the question.
    sample = question([user(texts)], time="2024-03-01")
    names, prompt = await ask(tmp_path, KLamp.Params(policy="lapsed"), sample)
    assert sorted(names) == ["Farwater", "Midwater"]
    assert "Farwater" in prompt and "Nearwater" not in prompt

    later, _ = await ask(tmp_path / "later", KLamp.Params(policy="lapsed", lapse_days=15), sample)
    assert later == ["Farwater"]


async def test_lapsed_counts_from_the_questions_date_and_never_from_the_clock(
    tmp_path: Path,
) -> None:
    undated = question([user()])
    with pytest.raises(UsageError, match="question 'q1' has no date"):
        await ask(tmp_path, KLamp.Params(policy="lapsed"), undated)
    assert KLamp(KLamp.Params(policy="lapsed")).requirements() == {"history", "dates"}
    assert KLamp().requirements() == {"history"}


async def test_an_empty_store_is_the_plain_request_flagged(tmp_path: Path) -> None:
    plain = user({"2024-03-01": "nothing here has a name"})
    for name, owner, flag in (
        ("plain", plain, "no_entities"),
        ("empty", User("ann", ()), "empty_history"),
    ):
        setup = ScriptedTask(tmp_path / name, [owner], answer=lambda request: "A headline")
        _, ctx, requests = await setup.ask(KLamp(), question([owner]))
        assert ctx.flags[flag] == 1
        assert requests[0].messages[0].content == "Answer with the headline alone."
