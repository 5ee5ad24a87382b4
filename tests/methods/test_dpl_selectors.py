"""Selection of the peers that DPL shows, and the settings that control it."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from dpl_fixtures import (
    Vectors,
)

from personabench import (
    Record,
    UsageError,
)
from personabench.methods.dpl import Dpl
from personabench.methods.dpl.selectors import (
    Peer,
    all_agree,
    cluster_vectors,
    select_peers,
)
from personabench.methods.dpl.settings import PRESETS, Settings, resolve


def peer(name: str, response: str, similarity: float = 1.0) -> Peer:
    return Peer(name, Record(f"{name}-0", "story", response), similarity)


async def select_names(
    user_response: str,
    responses: Sequence[str],
    kind: Any = "text",
    settings: Settings | None = None,
) -> list[str]:
    # Of labels and scores the nearer peers come first, and no draw decides.
    peers = [
        peer(f"p{number:02}", response, 1 - number / 100)
        for number, response in enumerate(responses)
    ]
    doc = Record("d", "story", user_response)
    embed = Vectors()
    selected = await select_peers(
        doc, peers, kind, settings or PRESETS["faithful"], lambda texts: embed.embed(texts, "")
    )
    return [peer.user_id for peer in selected]


async def test_four_distinct_peers_are_all_taken() -> None:
    selected = await select_names("@(0,0)", ["@(9,0)", "@(0,9)", "@(9,9)", "@(-9,9)"])
    assert sorted(selected) == ["p00", "p01", "p02", "p03"]
    assert selected == await select_names("@(0,0)", ["@(9,0)", "@(0,9)", "@(9,9)", "@(-9,9)"])


async def test_at_most_four_of_twenty_peers_are_taken_and_none_like_the_user() -> None:
    rng = random.Random(3)
    centres = [
        (0, 0),
        (60, 0),
        (0, 60),
        (60, 60),
        (-60, 60),
    ]
    points = [(x + rng.random(), y + rng.random()) for x, y in centres for _ in range(4)]
    selected = await select_names("@(0.5,0.5)", [f"@({x:.3f},{y:.3f})" for x, y in points])
    assert len(selected) == 4
    assert {int(name[1:]) // 4 for name in selected} == {1, 2, 3, 4}
    for name in selected:
        group = [point for number, point in enumerate(points) if number // 4 == int(name[1:]) // 4]
        middle = np.mean(group, axis=0)
        nearest = min(group, key=lambda point: float(np.hypot(*(np.array(point) - middle))))
        assert points[int(name[1:])] == nearest


async def test_the_earlier_of_two_in_a_cluster_is_taken() -> None:
    """Both are equally far from their centroid, whatever the last digits of the distances say."""
    settings = Settings(selector="kmeans_closest", n_init=1)
    peers = [peer(f"p{number:02}", "") for number in range(12)]
    rng = np.random.default_rng(1)
    pairs = 0
    for _ in range(40):
        vectors = rng.normal(size=(13, 256)).astype(np.float32)
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)

        async def embed(texts: Sequence[str], vectors: Any = vectors) -> Any:
            return vectors

        selected = await select_peers(Record("d", "s", "r"), peers, "text", settings, embed)
        labels, _ = cluster_vectors(vectors, settings)
        for label in set(labels) - {labels[0]}:
            members = [peers[number] for number in np.flatnonzero(labels[1:] == label)]
            if len(members) == 2:
                pairs += 1
                assert members[0] in selected and members[1] not in selected
    assert pairs > 50


async def test_categories_are_compared_by_label() -> None:
    lamp = PRESETS["adapted"]
    labels = ["drama", "Drama", "noir", "comedy", "war", "war", "farce", "war", "comedy", "epic"]
    assert await select_names("drama", labels, "category", lamp) == ["p04", "p03", "p02", "p06"]
    assert await select_names("drama", ["DRAMA "], "category", lamp) == []
    assert all_agree(
        Record("d", "s", "drama"), [peer("a", "Drama"), peer("b", "drama ")], "category"
    )


async def test_the_most_similar_stimulus_represents_a_label() -> None:
    peers = [
        peer("far", "war", 0.2),
        peer("near", "war", 0.9),
        peer("same", "drama", 1.0),
    ]
    selected = await select_peers(
        Record("d", "s", "drama"), peers, "category", PRESETS["adapted"], lambda texts: None
    )  # type: ignore[arg-type, return-value]
    assert [peer.user_id for peer in selected] == ["near"]


async def test_scores_are_compared_as_numbers() -> None:
    lamp = resolve("adapted", {"k_peers": 3})
    scores = ["5", "3.0", "1", "3", "4", "2", "5", "1"]
    assert await select_names("3", scores, "ordinal", lamp) == ["p02", "p04", "p00"]
    assert all_agree(Record("d", "s", "3"), [peer("a", "3.0")], "ordinal")


@pytest.mark.parametrize(
    ("selector", "expected"),
    [("most_similar", ["p00", "p01"]), ("least_similar", ["p03", "p02"])],
)
async def test_similarity_selectors_order_by_likeness(selector: str, expected: list[str]) -> None:
    settings = resolve("adapted", {"selector": selector, "k_peers": 2})
    assert (
        await select_names("@(1,0)", ["@(9,1)", "@(9,4)", "@(1,9)", "@(-5,1)"], "text", settings)
        == expected
    )


@pytest.mark.parametrize("selector", ["random", "kmeans_random"])
async def test_random_selectors_follow_the_seed(selector: str) -> None:
    # Repeated runs must send the same requests to be served by the cache.
    points = [f"@({10 * (number // 5)},{number % 5 / 9:.2f})" for number in range(30)]
    draws = [
        await select_names(
            "@(0,0)", points, "text", resolve("adapted", {"selector": selector, "seed": seed})
        )
        for seed in (1, 1, 2, 3, 4)
    ]
    assert draws[0] == draws[1]
    assert any(draw != draws[0] for draw in draws[2:])
    assert all(0 < len(set(draw)) == len(draw) <= 4 for draw in draws)


@pytest.mark.parametrize(
    ("overrides", "named"),
    [
        ({"preset": "lmap"}, "lmap"),
        ({"selector": "best"}, "kmeans_closest"),
        ({"tiers": "T1,T9"}, "T9"),
        ({"n_docs": 0}, "n_docs"),
        ({"max_pool": -1}, "max_pool"),
        ({"retriever": "ranked"}, "ranked"),
    ],
)
def test_settings_that_cannot_work_are_refused(overrides: dict[str, Any], named: str) -> None:
    with pytest.raises(UsageError, match=named):
        Dpl(Dpl.Params(**overrides))


def test_presets_and_overrides() -> None:
    faithful = Dpl(Dpl.Params(preset="faithful", k_peers=3)).settings
    assert faithful.min_peers == 3
    assert faithful.tiers == ("T1",)
    assert faithful.dup_max == 0
    assert faithful.difference_max_tokens == 2048
    lamp = Dpl(Dpl.Params(tiers="T1, user", tau=0.5)).settings
    assert lamp.min_peers == 1
    assert lamp.tiers == ("T1", "user")
    assert lamp.tau == 0.5
    assert lamp.max_pool == 32
