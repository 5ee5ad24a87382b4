"""DPL against its acceptance list, with a scripted model, a real client and cache, and invented records."""

from __future__ import annotations

import asyncio
import random
import re
import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
import pytest

from personabench import (
    Context,
    Message,
    Metric,
    Population,
    Record,
    Rendered,
    Request,
    Sample,
    Task,
    Tokens,
    UsageError,
    User,
    Words,
)
from personabench.backends import BackendOptions
from personabench.backends.scripted import Scripted
from personabench.cache import Cache
from personabench.client import Client
from personabench.method import Method
from personabench.methods.dpl import Dpl
from personabench.methods.dpl.peers import Asker, Peers
from personabench.methods.dpl.prompts import untagged
from personabench.methods.dpl.selectors import Peer, agree, select
from personabench.methods.dpl.settings import PRESETS, Settings, resolve
from personabench.methods.rag import Rag
from personabench.methods.summary import Summary
from personabench.spec import Sampling
from personabench.types import Call, Prediction, Usage, from_json, to_json

WORDS = Words(
    person="columnist",
    stimulus="story",
    response="headline",
    profile_question="How does this columnist word headlines?",
    axes=(("Form", "length and punctuation"), ("Affect", "tone"), ("Substance", "which fact comes first")),
    instruction="Answer with the headline alone.",
)
TOPICS = ("harbour", "orchard", "tramway", "glacier", "library", "brewery", "lighthouse", "quarry", "vineyard", "zoo")


class Headlines(Task):
    name = "headlines"
    metrics = (Metric("exact"),)
    words = WORDS

    def open(self, split: str, data: Path | None) -> Any:
        raise UsageError("only records made up here")

    def render(self, sample: Sample, records: Sequence[Record], notes: str, tokens: Tokens) -> Rendered:
        system = WORDS.instruction + (f"\nAbout the columnist: {notes}" if notes else "")
        parts = [f"<{record.id}> {self.describe(record)}" for record in records]
        return Rendered((Message("system", system), Message("user", "\n".join([*parts, f"Story: {sample.input}"]))))

    def parse(self, output: str, sample: Sample, scorer: str) -> str | None:
        return output

    def measure(self, parsed: str | None, sample: Sample) -> Mapping[str, float]:
        return {"exact": float(parsed in sample.references)}


class Tags(Headlines):
    name = "tags"
    kind = "category"


class Stars(Headlines):
    name = "stars"
    kind = "ordinal"


class Vectors:
    """Embedders whose geometry a test writes down: `@(x,y)` in a text is its vector, other texts are bags of words."""

    async def embed(self, texts: Sequence[str], name: str) -> npt.NDArray[np.float32]:
        vectors = np.zeros((len(texts), 258), np.float32)
        for row, text in zip(vectors, texts, strict=True):
            if place := re.search(r"@\(([-\d.]+),([-\d.]+)\)", text):
                row[:2] = float(place[1]), float(place[2])
                continue
            for token in text.split():
                row[2 + zlib.crc32(token.encode()) % 256] += 1
        return vectors


def stage(request: Request) -> str:
    opening = request.messages[0].content
    for start, name in (
        ("You find out", "difference"),
        ("You write the profile", "profile"),
        ("You study", "summary"),
    ):
        if opening.startswith(start):
            return name
    return "answer"


def reply(request: Request) -> str:
    name = stage(request)
    if name == "difference":
        topic = re.search(r"Story: .*?(\w+)\n", request.messages[1].content + "\n")
        return f"Form: shorter about {topic[1] if topic else 'nothing'}."
    return {"profile": "**Summary:** Terse and dry.", "summary": "A summary.", "answer": " A headline "}[name]


class World:
    """A task, its people, and a scripted model behind the real client and cache."""

    def __init__(
        self,
        folder: Path,
        users: Sequence[User],
        task: Task | None = None,
        *,
        answer: Callable[[Request], str] = reply,
        window: int | None = None,
        merge: bool = False,
        model: str = "scripted",
    ) -> None:
        self.task = task or Headlines()
        self.population = Population(users, merge=merge)
        self.backend = Scripted(BackendOptions(model=model), answer=answer, window=window)
        self.client = Client(self.backend, Cache(folder / "cache.sqlite"), concurrency=64)
        self.seed = 0

    def context(self, unit: str = "") -> Context:
        return Context(
            task=self.task,
            client=self.client,
            embedders=Vectors(),  # type: ignore[arg-type]
            sampling=Sampling(),
            seed=self.seed,
            phase="predict",
            unit=unit,
        )

    async def dpl(self, *, prepared: bool = True, **params: Any) -> Dpl:
        method = Dpl(Dpl.Params(**params))
        if prepared:
            await method.prepare(self.population, self.context())
        return method

    async def ask(self, method: Method, sample: Sample) -> tuple[str, Context, list[Request]]:
        before = len(self.backend.requests)
        ctx = self.context(sample.user_id)
        state = await method.profile(sample.user, ctx) if method.profiles else None
        output = await method.predict(sample.view(), state, ctx)
        return output, ctx, self.backend.requests[before:]


def stages(requests: Sequence[Request]) -> dict[str, int]:
    names = [stage(request) for request in requests]
    return {name: names.count(name) for name in ("difference", "profile", "answer", "summary")}


def text(requests: Sequence[Request]) -> str:
    return "\n".join(message.content for request in requests for message in request.messages)


def reviewed(person: str, item: int, response: str, stimulus: str | None = None) -> Record:
    topic = TOPICS[item % len(TOPICS)]
    return Record(f"{person}-{item}", stimulus or f"The tale of item{item} and the {topic}", response, item=f"i{item}")


def crowd(items: int = 10, others: int = 6) -> list[User]:
    """Ann and others, who all wrote about the same items, each in a corner of the plane of their own."""
    people = ["ann", *(f"peer{number}" for number in range(others))]
    return [
        User(
            person,
            tuple(reviewed(person, item, f"{person} words @({10 * place},{place**2})") for item in range(items)),
        )
        for place, person in enumerate(people)
    ]


def question(users: Sequence[User], about: str = "A new tale of the tramway and the orchard", **fields: Any) -> Sample:
    user = users[0]
    return Sample("q1", user.id, about, stimulus=about, history=user.history, references=("GOLD",), **fields)


async def test_acceptance_1_calls_per_sample_and_reuse_by_the_same_user(tmp_path: Path) -> None:
    users = crowd(items=8)
    world = World(tmp_path, users)
    method = await world.dpl(preset="faithful")
    output, ctx, requests = await world.ask(method, question(users))
    assert output == "A headline"
    assert stages(requests) == {"difference": 8, "profile": 1, "answer": 1, "summary": 0}
    assert ctx.flags == {"n_eff": 8, "tier_1": 8, "k_eff": 32, "tag_stripped": 1}
    _, _, requests = await world.ask(method, question(users, "Another tale, of the brewery"))
    assert stages(requests)["difference"] == 0


def peer(name: str, response: str, similarity: float = 1.0) -> Peer:
    return Peer(name, Record(f"{name}-0", "story", response), similarity)


async def chosen(own: str, responses: Sequence[str], kind: Any = "text", settings: Settings | None = None) -> list[str]:
    peers = [peer(f"p{number:02}", response) for number, response in enumerate(responses)]
    doc = Record("d", "story", own)
    embed = Vectors()
    found = await select(doc, peers, kind, settings or PRESETS["faithful"], lambda texts: embed.embed(texts, ""))
    return [peer.person for peer in found]


async def test_acceptance_2_four_distinct_peers_are_all_taken() -> None:
    found = await chosen("@(0,0)", ["@(9,0)", "@(0,9)", "@(9,9)", "@(-9,9)"])
    assert sorted(found) == ["p00", "p01", "p02", "p03"]
    assert found == await chosen("@(0,0)", ["@(9,0)", "@(0,9)", "@(9,9)", "@(-9,9)"])


async def test_acceptance_2_of_twenty_peers_at_most_four_and_none_like_the_user() -> None:
    rng = random.Random(3)
    centres = [(0, 0), (60, 0), (0, 60), (60, 60), (-60, 60)]
    places = [(x + rng.random(), y + rng.random()) for x, y in centres for _ in range(4)]
    found = await chosen("@(0.5,0.5)", [f"@({x:.3f},{y:.3f})" for x, y in places])
    assert len(found) == 4
    assert {int(name[1:]) // 4 for name in found} == {1, 2, 3, 4}
    for name in found:
        group = [place for number, place in enumerate(places) if number // 4 == int(name[1:]) // 4]
        middle = np.mean(group, axis=0)
        nearest = min(group, key=lambda place: float(np.hypot(*(np.array(place) - middle))))
        assert places[int(name[1:])] == nearest


async def test_acceptance_2_duplicates_leave_fewer_peers_and_the_prompt_says_how_many(tmp_path: Path) -> None:
    users = crowd(items=1, others=5)
    for number in (2, 3, 4):
        history = (reviewed(users[number].id, 0, "the same words @(50,50)"),)
        users[number] = User(users[number].id, history)
    world = World(tmp_path, users)
    _, ctx, requests = await world.ask(await world.dpl(preset="faithful"), question(users))
    assert ctx.flags["k_eff"] == 3
    system, user = (message.content for message in requests[0].messages)
    assert "3 other people" in system
    assert re.findall(r"Other person (\d)", user) == ["1", "2", "3"]


@pytest.mark.parametrize("others", [0, 1, 2, 3])
async def test_acceptance_2_few_peers_are_ineligible_in_faithful_and_all_used_in_lamp(
    tmp_path: Path, others: int
) -> None:
    users = crowd(items=2, others=others)
    world = World(tmp_path, users)
    _, ctx, _ = await world.ask(await world.dpl(preset="faithful"), question(users))
    assert ctx.flags["fallback"] == 1
    assert ctx.flags["n_eff"] == 0
    _, ctx, _ = await world.ask(await world.dpl(preset="lamp"), question(users))
    if others:
        assert ctx.flags["k_eff"] == 2 * others
        assert "fallback" not in ctx.flags
    else:
        assert ctx.flags["fallback"] == 1


@pytest.mark.parametrize("items", [12, 30])
async def test_acceptance_3_ties_put_the_later_record_first(tmp_path: Path, items: int) -> None:
    users = crowd(items=items, others=4)
    world = World(tmp_path, users)
    sample = question(users, "nothing shared")
    method = await world.dpl(preset="faithful", n_docs=3)
    _, _, requests = await world.ask(method, sample)
    asked = [request.messages[1].content for request in requests if stage(request) == "difference"]
    assert [re.search(r"item(\d+)", prompt)[1] for prompt in asked] == [  # type: ignore[index]
        str(items - 1),
        str(items - 2),
        str(items - 3),
    ]


async def test_acceptance_3_no_eligible_record_falls_back_without_an_exception(tmp_path: Path) -> None:
    users = [User("ann", (Record("a", "One story", "words"),)), User("bob", ())]
    world = World(tmp_path, users)
    for sample in (question(users), question([User("ann", ())])):
        _, ctx, requests = await world.ask(await world.dpl(), sample)
        assert ctx.flags["fallback"] == 1
        assert stages(requests)["difference"] == 0


async def test_the_second_retrieval_searches_eligible_records_only(tmp_path: Path) -> None:
    users = crowd(items=2, others=4)
    alone = tuple(reviewed("ann", item, "ann alone", "A tale of the tramway") for item in range(50, 60))
    users[0] = User("ann", (*users[0].history, *alone))
    world = World(tmp_path, users)
    _, ctx, _ = await world.ask(await world.dpl(preset="faithful"), question(users, "A tale of the tramway"))
    assert ctx.flags["n_eff"] == 2


async def test_acceptance_4_prompts_do_not_depend_on_which_samples_run(tmp_path: Path) -> None:
    users = crowd()
    first = question(users)
    second = Sample("q2", "peer0", "Of a glacier", stimulus="Of a glacier", history=users[1].history)
    alone, both = World(tmp_path / "alone", users), World(tmp_path / "both", users)
    _, _, expected = await alone.ask(await alone.dpl(population_max_users=4), first)
    method = await both.dpl(population_max_users=4)
    await both.ask(method, second)
    _, _, found = await both.ask(method, first)
    assert [request.messages for request in found] == [request.messages for request in expected]


@pytest.mark.parametrize("tiers", ["T1", "T2", "T3", "T1,T2,T3,user"])
async def test_acceptance_5_the_questions_own_answer_is_never_shown(tmp_path: Path, tiers: str) -> None:
    users = crowd()
    about = "The tale of item3 and the glacier"
    leak = Record("x-3", about + "!", "SECRET @(7,7)", item="i3")
    near = Record("x-4", about + " glacier tale item3", "SECRET too @(8,8)", item="i77")
    users.append(User("mallory", (leak, near, *(reviewed("mallory", item, "fine @(3,90)") for item in range(8)))))
    world = World(tmp_path, users)
    sample = question(users, about, item="i3")
    sample = msgspec.structs.replace(sample, history=tuple(r for r in sample.history if r.item != "i3"))
    _, ctx, requests = await world.ask(await world.dpl(tiers=tiers, dup_max=0.9), sample)
    assert ctx.flags["n_eff"] > 0
    assert "SECRET" not in text(requests)
    assert "GOLD" not in text(requests)


async def test_acceptance_5_a_near_copy_of_the_question_needs_the_similarity_guard(tmp_path: Path) -> None:
    users = crowd(items=1, others=1)
    about = "The tale of item0 and the harbour light"
    users[1] = User("bob", (Record("b", about + " light", "SECRET @(4,4)"),))
    world = World(tmp_path, users)
    _, _, guarded = await world.ask(await world.dpl(dup_max=0.9), question(users, about))
    _, _, open_ = await world.ask(await world.dpl(dup_max=1.01), question(users, about))
    assert "SECRET" not in text(guarded)
    assert "SECRET" in text(open_)


@pytest.mark.parametrize(
    "leak",
    [
        Record("m-0", "Wholly unlike wording", "SECRET @(7,7)", item="i99"),
        Record("m-0", "a new tale: of ITEM0, harbour lights!", "SECRET @(7,7)", item="i0"),
    ],
)
async def test_acceptance_5_item_and_stimulus_guard_without_similarity(tmp_path: Path, leak: Record) -> None:
    about = "A new tale of item0 harbour lights"
    users = [*crowd(items=1, others=1), User("mallory", (leak,))]
    world = World(tmp_path, users)
    method = await world.dpl(dup_max=1.5, tiers="T3")
    _, _, guarded = await world.ask(method, question(users, about, item="i99"))
    _, _, shown = await world.ask(await world.dpl(dup_max=1.5, tiers="T3"), question(users, "Other", item="i98"))
    assert "SECRET" not in text(guarded)
    assert "SECRET" in text(shown)


async def test_acceptance_5_people_who_share_a_record_are_never_compared(tmp_path: Path) -> None:
    users = crowd(items=4, others=2)
    twin = User("twin", (users[0].history[0], *(reviewed("twin", item, "TWIN @(5,70)") for item in (1, 2, 3))))
    world = World(tmp_path, [*users, twin], merge=True)
    _, ctx, requests = await world.ask(await world.dpl(), question(users))
    assert ctx.flags["n_eff"] == 4
    assert "TWIN" not in text(requests)
    apart = World(tmp_path / "apart", [*users, twin])
    _, _, requests = await apart.ask(await apart.dpl(), question(users))
    assert "TWIN" in text(requests)


async def test_guard_3_a_copy_of_the_record_is_no_peer(tmp_path: Path) -> None:
    users = crowd(items=1, others=2)
    own = users[0].history[0]
    users[1] = User("peer0", (Record("copy", own.stimulus, own.response.upper(), item=own.item),))
    world = World(tmp_path, users)
    _, ctx, requests = await world.ask(await world.dpl(selector="random"), question(users))
    assert ctx.flags["k_eff"] == 1
    assert "ANN WORDS" not in text(requests)


async def test_guard_5_peers_from_the_future_are_left_out(tmp_path: Path) -> None:
    users = [
        User(person, (Record(f"{person}-0", "One story of a quarry", f"{person} wrote", time=time, item="i"),))
        for person, time in (("ann", "2020-02-01"), ("past", "2020-01-31"), ("future", "2020-3-2"))
    ]
    world = World(tmp_path, users)
    method = await world.dpl(temporal_guard=True)
    assert "dates" in method.requirements()
    for sample in (question(users, time="2020-02-20"), question(users)):
        _, _, requests = await world.ask(method, sample)
        assert "past wrote" in text(requests) or not requests
        assert "future wrote" not in text(requests)


async def test_acceptance_6_each_difference_stays_with_its_record(tmp_path: Path) -> None:
    users = crowd(items=8)
    waits = random.Random(5)

    class Shuffled(Scripted):
        async def complete(self, request: Request, group: str) -> Any:
            await asyncio.sleep(waits.random() / 50)
            return await super().complete(request, group)

    world = World(tmp_path, users)
    world.client.backend = world.backend = Shuffled(BackendOptions(model="scripted"), answer=reply)
    _, _, requests = await world.ask(await world.dpl(), question(users))
    body = next(request for request in requests if stage(request) == "profile").messages[1].content
    pairs = re.findall(r"Story: .*?(\w+)\nHow this columnist differs:\nForm: shorter about (\w+)\.", body)
    assert len(pairs) == 8
    assert all(subject == told for subject, told in pairs)


async def test_acceptance_6_a_changed_second_stage_still_pairs_cached_differences(tmp_path: Path) -> None:
    users = crowd(items=8)
    world = World(tmp_path, users)
    await world.ask(await world.dpl(), question(users))
    _, _, requests = await world.ask(await world.dpl(), question(users, "Of a quarry, a library and item2"))
    assert stages(requests)["difference"] == 0
    body = next(request for request in requests if stage(request) == "profile").messages[1].content
    pairs = re.findall(r"Story: .*?(\w+)\nHow this columnist differs:\nForm: shorter about (\w+)\.", body)
    assert len(pairs) == 8
    assert all(subject == told for subject, told in pairs)


@pytest.mark.parametrize(
    "tagged",
    [
        "Summary: Dry wit.",
        "  \n Summary: Dry wit.",
        "**Summary:** Dry wit.",
        "**Summary**: Dry wit.",
        "summary: Dry wit.",
        "SUMMARY\nDry wit.",
        "Summary Dry wit.",
        "## Summary\n\nDry wit.",
        "[Summary]: Dry wit.",
        "<Summary> Dry wit.",
    ],
)
def test_acceptance_7_tag_variants_parse_alike(tagged: str) -> None:
    assert untagged(tagged) == ("Dry wit.", True)


@pytest.mark.parametrize("plain", ["Dry wit.", "Summaries bore this columnist.", "Summary-like headlines."])
def test_acceptance_7_no_tag_leaves_the_text(plain: str) -> None:
    assert untagged(f" {plain}") == (plain, False)


async def test_acceptance_8_categories_are_compared_by_label() -> None:
    lamp = PRESETS["lamp"]
    labels = ["drama", "Drama", "noir", "comedy", "war", "war", "farce", "war", "comedy", "epic"]
    assert await chosen("drama", labels, "category", lamp) == ["p04", "p03", "p02", "p06"]
    assert await chosen("drama", ["DRAMA "], "category", lamp) == []
    assert agree(Record("d", "s", "drama"), [peer("a", "Drama"), peer("b", "drama ")], "category")


async def test_acceptance_8_the_nearest_stimulus_stands_for_a_label() -> None:
    peers = [peer("far", "war", 0.2), peer("near", "war", 0.9), peer("same", "drama", 1.0)]
    found = await select(Record("d", "s", "drama"), peers, "category", PRESETS["lamp"], lambda texts: None)  # type: ignore[arg-type, return-value]
    assert [peer.person for peer in found] == ["near"]


async def test_acceptance_8_scores_are_compared_as_numbers() -> None:
    lamp = resolve("lamp", {"k_peers": 3})
    scores = ["5", "3.0", "1", "3", "4", "2", "5", "1"]
    assert await chosen("3", scores, "ordinal", lamp) == ["p02", "p04", "p00"]
    assert agree(Record("d", "s", "3"), [peer("a", "3.0")], "ordinal")


@pytest.mark.parametrize("task", [Tags(), Stars()])
async def test_acceptance_8_agreement_is_a_fixed_line_without_a_call(tmp_path: Path, task: Task) -> None:
    users = [User(person, (reviewed(person, 0, "4"),)) for person in ("ann", "bob", "cem")]
    world = World(tmp_path, users, task)
    _, ctx, requests = await world.ask(await world.dpl(), question(users))
    assert stages(requests) == {"difference": 0, "profile": 1, "answer": 1, "summary": 0}
    assert "2 of 2 other people gave the same headline as this columnist." in text(requests)
    assert ctx.flags == {"n_eff": 1, "tier_1": 1, "k_eff": 0, "agreement_lines": 1, "tag_stripped": 1}


async def test_acceptance_9_without_a_population_the_prompts_are_those_of_summary(tmp_path: Path) -> None:
    users = crowd()
    samples = [question(users), question([User("nobody", ())])]
    ours, theirs = World(tmp_path / "dpl", users), World(tmp_path / "summary", users)
    method = await ours.dpl(prepared=False)
    for sample in samples:
        output, ctx, requests = await ours.ask(method, sample)
        expected, _, wanted = await theirs.ask(Summary(Summary.Params(k=8)), sample)
        assert requests == wanted
        assert output == expected
        assert ctx.flags["fallback"] == 1


@pytest.mark.parametrize("change", ["model", "k", "seed", "axes"])
async def test_acceptance_10_what_changes_a_difference_misses_the_cache(tmp_path: Path, change: str) -> None:
    users = crowd(items=8)
    world = World(tmp_path, users)
    await world.ask(await world.dpl(), question(users))
    task = Headlines()
    if change == "axes":
        task.words = msgspec.structs.replace(WORDS, axes=WORDS.axes[:2])  # type: ignore[misc]
    again = World(tmp_path, users, task, model="another" if change == "model" else "scripted")
    again.seed = 1 if change == "seed" else 0
    method = await again.dpl(k_peers=2) if change == "k" else await again.dpl()
    _, _, requests = await again.ask(method, question(users))
    assert stages(requests)["difference"] == 8


async def test_acceptance_10_fewer_records_need_no_new_differences(tmp_path: Path) -> None:
    users = crowd()
    world = World(tmp_path, users)
    await world.ask(await world.dpl(n_docs=8), question(users))
    _, ctx, requests = await world.ask(await world.dpl(n_docs=4), question(users))
    assert stages(requests) == {"difference": 0, "profile": 1, "answer": 1, "summary": 0}
    assert ctx.flags["n_eff"] == 4


def long_crowd() -> list[User]:
    return [
        User(
            user.id,
            tuple(
                msgspec.structs.replace(record, stimulus=f"{record.stimulus} " + "and on " * 90)
                for record in user.history
            ),
        )
        for user in crowd(items=8)
    ]


async def test_acceptance_11_the_lowest_ranked_records_go_first(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    users = long_crowd()
    world = World(tmp_path, users, window=3200)
    about = "A tale of the tramway " + "and more " * 40
    with caplog.at_level("INFO"):
        _, ctx, requests = await world.ask(await world.dpl(), question(users, about))
    body = next(request for request in requests if stage(request) == "profile").messages[1].content
    cases, _, records = body.partition("Earlier records")
    dropped = int(ctx.flags["profile_records_dropped"])
    ranked = [str(record.item)[1:] for record in await world.context().retrieve(question(users, about), 8)]
    assert 0 < dropped < 8
    assert re.findall(r"of item(\d+) and", records) == ranked[: 8 - dropped]
    assert cases.count("Case ") == 8
    assert f"profile_records_dropped: {dropped}" in caplog.text
    assert about in requests[-1].messages[1].content


async def test_acceptance_11_then_stimuli_are_shortened_then_cases_dropped(tmp_path: Path) -> None:
    users = long_crowd()
    world = World(tmp_path, users, window=1400)
    _, ctx, requests = await world.ask(
        await world.dpl(profile_max_tokens=64, difference_max_tokens=64), question(users)
    )
    assert ctx.flags["profile_records_dropped"] == 8
    assert ctx.flags["stimuli_shortened"] > 0
    assert "cases_dropped" not in ctx.flags
    narrow = World(tmp_path, users, window=640)
    method = await narrow.dpl(profile_max_tokens=64, difference_max_tokens=64)
    _, ctx, requests = await narrow.ask(method, question(users))
    body = next(request for request in requests if stage(request) == "profile").messages[1].content
    assert ctx.flags["cases_dropped"] == 8 - body.count("Case ")
    assert 0 < body.count("Case ") < 8
    assert "Story: A new tale of the tramway and the orchard" in requests[-1].messages[1].content


async def test_acceptance_12_dashes_and_newlines_survive_and_the_counts_are_there(tmp_path: Path) -> None:
    users = crowd()
    awkward = "First\n--------\n\nSecond\u2028line \u2014 --- end"
    world = World(tmp_path, users, answer=lambda request: awkward if stage(request) == "answer" else reply(request))
    output, ctx, _ = await world.ask(await world.dpl(), question(users))
    line = to_json(Prediction("q1", "ann", output, output, ctx.flags, tuple(ctx.calls), Usage()))
    assert "\n" not in line
    read = from_json(line, Prediction)
    assert read.output == awkward
    assert {name: read.flags[name] for name in ("n_eff", "k_eff", "tier_1")} == {"n_eff": 8, "k_eff": 32, "tier_1": 8}
    assert all(isinstance(call, Call) for call in read.calls)


@pytest.mark.parametrize("retriever", ["bm25", "dense", "random"])
async def test_the_records_shown_are_those_of_rag(tmp_path: Path, retriever: str) -> None:
    users = crowd(items=20)
    world = World(tmp_path, users)
    shown = []
    for method in (await world.dpl(n_docs=4, retriever=retriever), Rag(Rag.Params(k=4, retriever=retriever))):
        _, _, requests = await world.ask(method, question(users))
        shown.append(re.findall(r"<(ann-\d+)>", requests[-1].messages[1].content))
    assert len(shown[0]) == 4
    assert shown[0] == shown[1]


async def test_nobody_is_named_in_a_prompt(tmp_path: Path) -> None:
    users = [
        User(
            f"person-{number}",
            tuple(Record(f"r{number}-{item}", f"Item{item} story", f"text @({number},{item})") for item in range(3)),
        )
        for number in range(5)
    ]
    world = World(tmp_path, users)
    _, ctx, requests = await world.ask(await world.dpl(), question(users))
    assert ctx.flags["tier_2"] == 3
    assert "person-" not in text(requests)


async def test_near_stimuli_are_compared_when_none_is_shared(tmp_path: Path) -> None:
    users = [
        User(person, (Record(f"{person}-0", f"A walk along the {topic} at {hour}", f"{person} says"),))
        for person, topic, hour in (
            ("ann", "harbour wall", "noon"),
            ("bob", "harbour wall", "dusk"),
            ("cem", "zoo", "nine"),
        )
    ]
    world = World(tmp_path, users)
    _, ctx, requests = await world.ask(await world.dpl(), question(users))
    assert (ctx.flags["tier_3"], ctx.flags["k_eff"]) == (1, 2)
    assert 0 < ctx.flags["t3_similarity"] < 1
    assert "Story: A walk along the harbour wall at dusk" in requests[0].messages[1].content
    _, ctx, _ = await world.ask(await world.dpl(tau=0.8), question(users))
    assert ctx.flags["k_eff"] == 1
    _, ctx, _ = await world.ask(await world.dpl(tau=0.99), question(users))
    assert ctx.flags["fallback"] == 1


async def test_own_records_do_not_crowd_out_near_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("personabench.methods.dpl.peers._NEAREST", 3)
    own = tuple(Record(f"a{number}", f"A walk by the quarry {number}", "words") for number in range(9))
    users = [User("ann", own), User("bob", (Record("b", "A walk in town", "bob says"),))]
    world = World(tmp_path, users)
    _, ctx, _ = await world.ask(await world.dpl(), question(users))
    assert ctx.flags["n_eff"] == 8


async def test_records_without_a_stimulus_are_compared_by_their_text(tmp_path: Path) -> None:
    users = [User(p, (Record(f"{p}-0", None, f"lovely day at the quarry {p}"),)) for p in ("ann", "bob", "cem")]
    world = World(tmp_path, users, Tags())
    sample = Sample("q", "ann", "Reword: a day out", history=users[0].history)
    _, ctx, requests = await world.ask(await world.dpl(), sample)
    assert (ctx.flags["tier_3"], ctx.flags["k_eff"]) == (1, 2)
    assert "Story:" not in requests[0].messages[1].content
    assert requests[0].messages[1].content.count("lovely day at the quarry bob") == 1


async def test_user_scope_compares_with_the_medoids_of_other_clusters(tmp_path: Path) -> None:
    places = {"ann": (0, 0), "near": (1, 0), "b1": (90, 0), "b2": (91, 0), "b3": (92, 0), "c": (0, 90)}
    users = [
        User(person, (Record(f"{person}-0", f"unlike {person}", f"{person} @({x},{y})"),))
        for person, (x, y) in places.items()
    ]
    world = World(tmp_path, users)
    _, ctx, requests = await world.ask(await world.dpl(tiers="user", k_peers=2), question(users))
    assert (ctx.flags["tier_user"], ctx.flags["k_eff"]) == (1, 2)
    others = requests[0].messages[1].content
    assert "b2 @" in others
    assert "c @" in others
    assert "near @" not in others


async def test_a_pool_has_one_record_per_person_and_at_most_max_pool() -> None:
    history = {p: tuple(Record(f"{p}{n}", "same tale", f"{p}{n} says") for n in range(3)) for p in "abcdef"}
    users = [User(person, records) for person, records in history.items()]
    peers = Peers(users, resolve("lamp", {"max_pool": 3}), "text")
    embed = Vectors()
    pool = await peers.pool(users[0].history[0], Asker("a", None, "asked"), lambda texts: embed.embed(texts, ""))
    assert pool is not None
    assert pool.tier == "T2"
    assert [peer.person for peer in pool.peers] == ["b", "c", "d"]


async def test_an_empty_difference_is_a_failed_record(tmp_path: Path) -> None:
    users = crowd(items=3)
    mute = World(
        tmp_path / "one",
        users,
        answer=lambda request: " " if "item1 " in request.messages[1].content.split("\n")[0] else reply(request),
    )
    _, ctx, requests = await mute.ask(await mute.dpl(), question(users))
    assert (ctx.flags["n_eff"], ctx.flags["failed_docs"]) == (2, 1)
    body = next(request for request in requests if stage(request) == "profile").messages[1].content
    assert body.count("Case ") == 2
    silent = World(tmp_path / "all", users, answer=lambda r: "" if stage(r) == "difference" else reply(r))
    _, ctx, requests = await silent.ask(await silent.dpl(), question(users))
    assert (ctx.flags["fallback"], ctx.flags["failed_docs"]) == (1, 3)
    assert stages(requests)["summary"] == 1


@pytest.mark.parametrize(
    ("selector", "expected"),
    [("most_similar", ["p00", "p01"]), ("least_similar", ["p03", "p02"])],
)
async def test_similarity_selectors_order_by_likeness(selector: str, expected: list[str]) -> None:
    settings = resolve("lamp", {"selector": selector, "k_peers": 2})
    assert await chosen("@(1,0)", ["@(9,1)", "@(9,4)", "@(1,9)", "@(-5,1)"], "text", settings) == expected


@pytest.mark.parametrize("selector", ["random", "kmeans_random"])
async def test_random_selectors_follow_the_seed(selector: str) -> None:
    places = [f"@({10 * (number // 5)},{number % 5 / 9:.2f})" for number in range(30)]
    draws = [
        await chosen("@(0,0)", places, "text", resolve("lamp", {"selector": selector, "seed": seed}))
        for seed in (1, 1, 2, 3, 4)
    ]
    assert draws[0] == draws[1]
    assert any(draw != draws[0] for draw in draws[2:])
    assert all(0 < len(set(draw)) == len(draw) <= 4 for draw in draws)


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ({"preset": "lmap"}, "lmap"),
        ({"selector": "best"}, "kmeans_closest"),
        ({"tiers": "T1,T9"}, "T9"),
        ({"n_docs": 0}, "n_docs"),
        ({"max_pool": -1}, "max_pool"),
        ({"retriever": "ranked"}, "ranked"),
    ],
)
def test_settings_that_cannot_work_are_refused(given: dict[str, Any], named: str) -> None:
    with pytest.raises(UsageError, match=named):
        Dpl(Dpl.Params(**given))


def test_presets_and_what_is_given_on_top() -> None:
    faithful = Dpl(Dpl.Params(preset="faithful", k_peers=3)).settings
    assert (faithful.min_peers, faithful.tiers, faithful.dup_max, faithful.difference_max_tokens) == (
        3,
        ("T1",),
        0,
        2048,
    )
    lamp = Dpl(Dpl.Params(tiers="T1, user", tau=0.5)).settings
    assert (lamp.min_peers, lamp.tiers, lamp.tau, lamp.max_pool) == (1, ("T1", "user"), 0.5, 32)
