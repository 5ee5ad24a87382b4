"""The peers that DPL compares a user with, and the guards."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from dpl_fixtures import (
    ScriptedTask,
    Tags,
    Vectors,
    crowd,
    question,
    reviewed,
    text,
)

from personabench import (
    Record,
    Sample,
    UsageError,
    User,
)
from personabench.methods.dpl.peers import Peers, Question
from personabench.methods.dpl.settings import resolve


async def test_the_second_retrieval_searches_eligible_records_only(tmp_path: Path) -> None:
    users = crowd(items=2, peers=4)
    unmatched = tuple(reviewed("ann", item, "ann alone", f"rare{item}") for item in range(50, 60))
    users[0] = User("ann", (*users[0].history, *unmatched))
    setup = ScriptedTask(tmp_path, users)
    _, ctx, _ = await setup.ask(
        await setup.dpl(preset="faithful"),
        question(users, " ".join(f"rare{item}" for item in range(50, 60))),
    )
    assert ctx.flags["n_eff"] == 2


@pytest.mark.parametrize("tiers", ["T1", "T2", "T3", "T1,T2,T3,user"])
async def test_the_questions_own_answer_is_never_shown(tmp_path: Path, tiers: str) -> None:
    # Peers may have responded to the very item of the question.
    users = crowd()
    about = "The tale of item3 and the glacier"
    leak = Record(
        "x-3",
        about + "!",
        "SECRET @(7,7)",
        item="i3",
    )
    near = Record(
        "x-4",
        about + " glacier tale item3",
        "SECRET too @(8,8)",
        item="i77",
    )
    users.append(
        User(
            "mallory",
            (
                leak,
                near,
                *(reviewed("mallory", item, "fine @(3,90)") for item in range(8)),
            ),
        )
    )
    setup = ScriptedTask(tmp_path, users)
    sample = question(users, about, item="i3")
    sample = msgspec.structs.replace(
        sample, history=tuple(r for r in sample.history if r.item != "i3")
    )
    _, ctx, requests = await setup.ask(await setup.dpl(tiers=tiers, dup_max=0.9), sample)
    assert ctx.flags["n_eff"] > 0
    assert "SECRET" not in text(requests)
    assert "GOLD" not in text(requests)


async def test_a_near_copy_of_the_question_needs_the_similarity_guard(
    tmp_path: Path,
) -> None:
    users = crowd(items=1, peers=1)
    about = "The tale of item0 and the harbour light"
    users[1] = User("bob", (Record("b", about + " light", "SECRET @(4,4)"),))
    setup = ScriptedTask(tmp_path, users)
    _, _, guarded = await setup.ask(await setup.dpl(dup_max=0.9), question(users, about))
    _, _, open_ = await setup.ask(await setup.dpl(dup_max=1.01), question(users, about))
    assert "SECRET" not in text(guarded)
    assert "SECRET" in text(open_)


@pytest.mark.parametrize(
    "leak",
    [
        Record(
            "m-0",
            "Wholly unlike wording",
            "SECRET @(7,7)",
            item="i99",
        ),
        Record(
            "m-0",
            "a new tale: of ITEM0, harbour lights!",
            "SECRET @(7,7)",
            item="i0",
        ),
    ],
)
async def test_item_and_stimulus_guard_without_similarity(tmp_path: Path, leak: Record) -> None:
    about = "A new tale of item0 harbour lights"
    users = [*crowd(items=1, peers=1), User("mallory", (leak,))]
    setup = ScriptedTask(tmp_path, users)
    method = await setup.dpl(dup_max=1.5, tiers="T3")
    _, _, guarded = await setup.ask(
        method,
        question(
            users,
            about,
            item="i99",
        ),
    )
    _, _, requests = await setup.ask(
        await setup.dpl(dup_max=1.5, tiers="T3"),
        question(
            users,
            "Other",
            item="i98",
        ),
    )
    assert "SECRET" not in text(guarded)
    assert "SECRET" in text(requests)


async def test_questions_of_one_nameless_user_are_never_compared(
    tmp_path: Path,
) -> None:
    # Data without user ids has one user per question, and joined users would be their own peers.
    users = crowd(items=4, peers=2)
    twin = User(
        "twin",
        (*users[0].history[:2], *(reviewed("twin", item, "TWIN @(5,70)") for item in (2, 3))),
    )
    setup = ScriptedTask(
        tmp_path,
        [*users, twin],
        nameless=True,
    )
    _, ctx, requests = await setup.ask(await setup.dpl(), question(users))
    assert ctx.flags["n_eff"] == 4
    assert "TWIN" not in text(requests)
    apart = ScriptedTask(tmp_path / "apart", [*users, twin])
    _, _, requests = await apart.ask(await apart.dpl(), question(users))
    assert "TWIN" in text(requests)


async def test_a_peer_with_an_equal_answer_elsewhere_is_compared(tmp_path: Path) -> None:
    users = crowd(items=4, peers=2)
    peer = User(
        "peer",
        (users[0].history[0], *(reviewed("peer", item, "PEER @(5,70)") for item in (1, 2, 3))),
    )
    setup = ScriptedTask(
        tmp_path,
        [*users, peer],
        nameless=True,
    )
    _, _, requests = await setup.ask(await setup.dpl(), question(users))
    assert "PEER" in text(requests)


async def test_a_copy_of_the_record_is_no_peer(tmp_path: Path) -> None:
    users = crowd(items=1, peers=2)
    record = users[0].history[0]
    users[1] = User(
        "peer0",
        (
            Record(
                "copy",
                record.stimulus,
                record.response.upper(),
                item=record.item,
            ),
        ),
    )
    setup = ScriptedTask(tmp_path, users)
    _, ctx, requests = await setup.ask(await setup.dpl(selector="random"), question(users))
    assert ctx.flags["k_eff"] == 1
    assert "ANN WORDS" not in text(requests)


async def test_peers_from_the_future_are_left_out(tmp_path: Path) -> None:
    # With the temporal guard, results must be obtainable at the time of the question.
    users = [
        User(
            person,
            (
                Record(
                    f"{person}-0",
                    "One story of a quarry",
                    f"{person} wrote",
                    time=time,
                    item="i",
                ),
            ),
        )
        for person, time in (
            ("ann", "2020-02-01"),
            ("past", "2020-01-31"),
            ("future", "2020-3-2"),
        )
    ]
    setup = ScriptedTask(tmp_path, users)
    method = await setup.dpl(temporal_guard=True)
    assert "dates" in method.requirements()
    for sample in (question(users, time="2020-02-20"), question(users)):
        _, _, requests = await setup.ask(method, sample)
        assert "past wrote" in text(requests) or not requests
        assert "future wrote" not in text(requests)


async def test_prompts_name_no_user(tmp_path: Path) -> None:
    # Names may be known to the model from its training data.
    users = [
        User(
            f"person-{number}",
            tuple(
                Record(f"r{number}-{item}", f"Item{item} story", f"text @({number},{item})")
                for item in range(3)
            ),
        )
        for number in range(5)
    ]
    setup = ScriptedTask(tmp_path, users)
    _, ctx, requests = await setup.ask(await setup.dpl(), question(users))
    assert ctx.flags["tier_2"] == 3
    assert "person-" not in text(requests)


async def test_similar_stimuli_are_compared_if_none_is_shared(tmp_path: Path) -> None:
    users = [
        User(
            person,
            (Record(f"{person}-0", f"A walk along the {topic} at {hour}", f"{person} says"),),
        )
        for person, topic, hour in (
            ("ann", "harbour wall", "noon"),
            ("bob", "harbour wall", "dusk"),
            ("cem", "zoo", "nine"),
        )
    ]
    setup = ScriptedTask(tmp_path, users)
    _, ctx, requests = await setup.ask(await setup.dpl(), question(users))
    assert ctx.flags["tier_3"] == 1
    assert ctx.flags["k_eff"] == 2
    assert 0 < ctx.flags["t3_similarity"] < 1
    assert "Story: A walk along the harbour wall at dusk" in requests[0].messages[1].content
    _, ctx, _ = await setup.ask(await setup.dpl(tau=0.8), question(users))
    assert ctx.flags["k_eff"] == 1
    _, ctx, _ = await setup.ask(await setup.dpl(tau=0.99), question(users))
    assert ctx.flags["fallback"] == 1


async def test_own_records_do_not_crowd_out_near_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The user's own records are the best matches of a search and would fill the result.
    monkeypatch.setattr("personabench.methods.dpl.peers._NEAREST", 3)
    records = tuple(
        Record(f"a{number}", f"A walk by the quarry {number}", "words") for number in range(9)
    )
    users = [User("ann", records), User("bob", (Record("b", "A walk in town", "bob says"),))]
    setup = ScriptedTask(tmp_path, users)
    _, ctx, _ = await setup.ask(await setup.dpl(), question(users))
    assert ctx.flags["n_eff"] == 8


async def test_records_without_a_stimulus_are_compared_by_their_text(tmp_path: Path) -> None:
    users = [
        User(p, (Record(f"{p}-0", None, f"lovely day at the quarry {p}"),))
        for p in ("ann", "bob", "cem")
    ]
    setup = ScriptedTask(tmp_path, users, Tags())
    sample = Sample(
        "q",
        "ann",
        "Reword: a day out",
        history=users[0].history,
    )
    _, ctx, requests = await setup.ask(await setup.dpl(), sample)
    assert ctx.flags["tier_3"] == 1
    assert ctx.flags["k_eff"] == 2
    assert "Story:" not in requests[0].messages[1].content
    assert requests[0].messages[1].content.count("lovely day at the quarry bob") == 1


async def test_user_scope_compares_with_the_medoids_of_other_clusters(tmp_path: Path) -> None:
    corners = {
        "ann": (0, 0),
        "near": (1, 0),
        "b1": (90, 0),
        "b2": (91, 0),
        "b3": (92, 0),
        "c": (0, 90),
    }
    users = [
        User(person, (Record(f"{person}-0", f"unlike {person}", f"{person} @({x},{y})"),))
        for person, (x, y) in corners.items()
    ]
    setup = ScriptedTask(tmp_path, users)
    _, ctx, requests = await setup.ask(await setup.dpl(tiers="user", k_peers=2), question(users))
    assert ctx.flags["tier_user"] == 1
    assert ctx.flags["k_eff"] == 2
    prompt = requests[0].messages[1].content
    assert "b2 @" in prompt
    assert "c @" in prompt
    assert "near @" not in prompt


async def test_a_pool_has_one_record_per_user_and_at_most_max_pool() -> None:
    history = {
        p: tuple(Record(f"{p}{n}", "same tale", f"{p}{n} says") for n in range(3)) for p in "abcdef"
    }
    users = [User(person, records) for person, records in history.items()]
    peers = Peers(users, resolve("adapted", {"max_pool": 3}), "text", "whitespace")
    embed = Vectors()
    question = Question(frozenset("a"), None, "asked")
    pool = await peers.find_pool(
        users[0].history[0], question, lambda texts: embed.embed(texts, "")
    )
    assert pool is not None
    assert pool.tier == "T2"
    user_ids = [peer.user_id for peer in pool.peers]
    assert user_ids == sorted(set(user_ids))
    assert len(user_ids) == 3
    assert "a" not in user_ids


async def test_a_draw_decides_who_enters_a_pool_that_is_full() -> None:
    tales = [f"tale {number}" for number in range(40)]
    users = [
        User(name, tuple(Record(f"{name}-{tale}", tale, f"{name} on {tale}") for tale in tales))
        for name in "abcdefgh"
    ]
    question = Question(frozenset("a"), None, "asked")
    settings = resolve("adapted", {"max_pool": 2})
    embed = Vectors()

    async def find_pools(population: list[User]) -> list[list[str]]:
        peers = Peers(population, settings, "text", "whitespace")
        pools = []
        for record in users[0].history:
            pool = await peers.find_pool(record, question, lambda texts: embed.embed(texts, ""))
            assert pool is not None
            pools.append([peer.user_id for peer in pool.peers])
        return pools

    pools = await find_pools(users)
    assert pools == await find_pools(users[::-1])
    counts = Counter(user_id for pool in pools for user_id in pool)
    # The two smallest ids would be in every pool if the alphabet decided.
    assert set(counts) == set("bcdefgh")
    assert max(counts.values()) < 30


async def test_the_history_owner_is_no_peer(tmp_path: Path) -> None:
    # Under --history shuffled the records are the owner's, and the owner would agree with all of
    # them.
    users = crowd(items=3, peers=3)
    setup = ScriptedTask(tmp_path, users)
    sample = msgspec.structs.replace(question(users), history=users[1].history)
    _, _, requests = await setup.ask(await setup.dpl(), sample)
    assert f"{users[1].id} " in text(
        [request for request in requests if "Other person" in request.messages[1].content]
    )
    lent = msgspec.structs.replace(sample, history_owner=users[1].id)
    _, ctx, requests = await setup.ask(await setup.dpl(), lent)
    assert ctx.flags["n_eff"] == 3
    for request in requests:
        _, mark, peer_part = request.messages[1].content.partition("Other person")
        assert not mark or f"{users[1].id} " not in peer_part


async def test_several_chunks_of_candidates_make_one_pool() -> None:
    # Records of one stimulus, most of which are too close to the question to be shown.
    users = []
    for name in "abcdefghi":
        stimulus = "the same tale" if name in "abei" else "The Same Tale"
        users.append(User(name, (Record(f"{name}0", stimulus, f"{name} says"),)))
    peers = Peers(users, resolve("adapted", {"max_pool": 4, "min_peers": 3}), "text", "whitespace")

    async def embed(texts: Sequence[str]) -> Any:
        return np.array([[1.0, 0.0] if text.islower() else [0.0, 1.0] for text in texts])

    pool = await peers.find_pool(
        users[0].history[0], Question(frozenset("a"), None, "Another Tale"), embed
    )
    assert pool is not None
    assert [peer.user_id for peer in pool.peers] == ["b", "e", "i"]
    with pytest.raises(UsageError, match="max_pool=2 leaves no room for min_peers=3"):
        resolve("adapted", {"max_pool": 2, "min_peers": 3})
