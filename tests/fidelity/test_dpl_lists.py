"""DPL's two lists, its peers and its calls on invented reviews, restated from the page.

Every review names its user and item, so the records and peers of a request can be read off it,
whatever its wording.
"""

from __future__ import annotations

import asyncio
import json
import random
import re
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from restated_bm25 import rank

from personabench.models.backends.scripted import Scripted
from personabench.retrieval.embedders import Embedders
from personabench.run import runner
from personabench.types import Request

N, K = 8, 4
WORDS = ("oak", "tin", "wool", "glass", "paper", "salt", "moss", "clay", "rope", "felt")


def embed(texts: Sequence[str]) -> Any:
    """A fixed vector for each text."""
    rows = []
    for text in texts:
        vector = np.random.default_rng(zlib.crc32(text.encode())).normal(size=32)
        rows.append(vector / np.linalg.norm(vector))
    return np.array(rows, np.float32)


class Reviews:
    """Users with 5 to 13 past reviews of items, some of which few users have."""

    def __init__(self, folder: Path) -> None:
        rng = random.Random(41)
        items = [f"i{number:02d}" for number in range(26)]
        weights = [12.0 if number < 12 else 1.0 for number in range(26)]
        self.descriptions = {item: self._text(rng, 6) for item in items}
        self.rows = []
        for number in range(22):
            user = f"u{number:02d}"
            count = rng.randint(6, 14)
            order = sorted(items, key=lambda item: rng.random() / weights[items.index(item)])
            reviews = [self._review(rng, user, item, time) for time, item in enumerate(order)]
            *profile, target = reviews[:count]
            self.rows.append({"user_id": user, "profile": profile, "data": target})
        main, meta = folder / "DPL-main" / "Things", folder / "DPL-meta" / "Things"
        main.mkdir(parents=True)
        meta.mkdir(parents=True)
        self._write(main / "test.jsonl", self.rows)
        described = [
            {"asin": item, "title": f"thing {item}", "description": text}
            for item, text in self.descriptions.items()
        ]
        self._write(meta / "full.jsonl", described)

    @staticmethod
    def _text(rng: random.Random, length: int) -> str:
        return " ".join(rng.choices(WORDS, k=length))

    @classmethod
    def _review(cls, rng: random.Random, user: str, item: str, time: int) -> dict[str, Any]:
        return {
            "asin": item,
            "rating": float(rng.randint(1, 5)),
            # One word of few, so that many titles tie.
            "title": cls._text(rng, 1),
            "text": f"body-{user}-{item} {cls._text(rng, 12)}",
            "timestamp": 1_600_000_000_000 + time * 86_400_000,
        }

    @staticmethod
    def _write(path: Path, rows: Sequence[Any]) -> None:
        path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))

    def reviewers(self, item: str) -> dict[str, str]:
        """The text of each user who has an item in the profile, by user id."""
        texts = {}
        for row in self.rows:
            for review in row["profile"]:
                if review["asin"] == item:
                    texts[row["user_id"]] = review["text"]
        return dict(sorted(texts.items()))

    def search(self, reviews: Sequence[Any], target: Any) -> list[Any]:
        """The N best reviews for a target: review title and item description, on both sides."""
        documents = [f"{one['title']} {self.descriptions[one['asin']]}" for one in reviews]
        query = f"{target['title']} {self.descriptions[target['asin']]}"
        return [reviews[index] for index in rank(documents, query, N)]

    def lists(self, row: Any) -> tuple[list[str], list[str]]:
        """Items of A and of B."""
        others = {one["asin"]: len(self.reviewers(one["asin"])) - 1 for one in row["profile"]}
        eligible = [one for one in row["profile"] if others[one["asin"]] >= K]
        a = self.search(row["profile"], row["data"])
        b = self.search(eligible, row["data"])
        return [one["asin"] for one in a], [one["asin"] for one in b]

    def peers(self, user: str, item: str) -> list[str]:
        """The representative peers of a user on an item, in their order."""
        # Imported here, since only this test needs it.
        from sklearn.cluster import KMeans

        texts = self.reviewers(item)
        own = texts.pop(user)
        vectors = embed([own, *texts.values()]).astype(np.float64)
        count = min(K + 1, len(np.unique(vectors, axis=0)))
        model = KMeans(n_clusters=count, n_init=1, random_state=42).fit(vectors)
        names = list(texts)
        chosen = []
        for cluster in range(count):
            members = [one for one in range(len(names)) if model.labels_[one + 1] == cluster]
            if cluster == model.labels_[0] or not members:
                continue
            centre = model.cluster_centers_[cluster]
            distances = [
                round(float(np.linalg.norm(vectors[one + 1] - centre)), 6) for one in members
            ]
            chosen.append(names[members[distances.index(min(distances))]])
        return chosen


class Trace:
    """What one sample's requests showed."""

    def __init__(self) -> None:
        self.peers: dict[str, list[str]] = {}
        self.cases: list[str] = []
        self.records: list[str] = []
        self.turns: list[str] = []
        self.calls = 0


@pytest.fixture(scope="module")
def traced(tmp_path_factory: pytest.TempPathFactory) -> tuple[Reviews, dict[str, Trace]]:
    """The reviews, and the trace of each user's sample."""
    folder = tmp_path_factory.mktemp("dpl")
    reviews = Reviews(folder / "data")
    traces: dict[str, Trace] = {}

    def answer(request: Request) -> str:
        text = "\n".join(message.content for message in request.messages)
        bodies = re.findall(r"body-(u\d+)-(i\d+)", text)
        trace = traces.setdefault(bodies[0][0], Trace())
        trace.calls += 1
        if any(message.role == "assistant" for message in request.messages):
            trace.turns = [item for _, item in bodies]
            return "a review"
        if "difference-of-" in text:
            trace.cases = re.findall(r"difference-of-(i\d+)", text)
            trace.records = [item for _, item in bodies]
            return "a profile"
        (_, item), *others = bodies
        assert {other for _, other in others} == {item}
        trace.peers[item] = [user for user, _ in others]
        return f"difference-of-{item}"

    with pytest.MonkeyPatch.context() as patch:

        async def embed_texts(self: Embedders, texts: Sequence[str], name: str) -> Any:
            return embed(texts)

        patch.setattr(Embedders, "embed", embed_texts)
        options = runner.Options(
            ["dpl"],
            ["reviews"],
            data=folder / "data",
            backend="scripted",
            cache="off",
            results=folder / "results",
            assignments=["preset=faithful", "embedder=wordllama"],
        )
        (outcome,) = asyncio.run(runner.run(options, backend=Scripted(answer=answer)))
    assert outcome.summary.n == len(reviews.rows)
    return reviews, traces


def test_the_lists_are_those_of_the_page(traced: tuple[Reviews, dict[str, Trace]]) -> None:
    reviews, traces = traced
    lengths = set()
    differing = 0
    for row in reviews.rows:
        trace = traces[row["user_id"]]
        a, b = reviews.lists(row)
        assert trace.cases == b
        assert trace.records == a
        # The answer's request shows A as turns, the best one last.
        assert trace.turns == a[::-1]
        assert trace.calls == len(b) + 2
        lengths.add(len(b))
        differing += a != b
    # Lists that are cut, lists that are short, and lists without what nobody else reviewed.
    assert max(lengths) == N and min(lengths) < N and differing > 5


def test_the_peers_are_those_of_the_page(traced: tuple[Reviews, dict[str, Trace]]) -> None:
    reviews, traces = traced
    comparisons = 0
    full = 0
    for user, trace in traces.items():
        for item, peers in trace.peers.items():
            expected = reviews.peers(user, item)
            assert peers == expected, (user, item)
            comparisons += 1
            full += len(peers) == K
    assert comparisons > 100 and full > 50
