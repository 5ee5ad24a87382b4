"""Who can be compared with the user: pools of other people's records beside one record of the user's.

Built once per run over everybody's histories.  For a record, tiers are tried from the closest comparison to the
loosest, and guards keep out the user's own records and whatever could show the question's answer.  Records are found
with one sparse BM25 index; embeddings are made only of the few that may enter a pool and give the similarity that
`tau` and `dup_max` are thresholds of: the cosine of two stimuli, 1 for the same text.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from personabench import Record, Sample, User
from personabench.api.wording import ResponseKind
from personabench.methods.dpl.selectors import Embed, Floats, Peer, clusters, cosines
from personabench.methods.dpl.settings import Settings
from personabench.retrieval.bm25 import BM25, top
from personabench.types import moment, normalized

_NEAREST = 512
_CHUNKS = 4
_COMMON = 0.05
_SURVEYED = 2000


class Pool(NamedTuple):
    """Peers comparable with one record, sorted by person, and the tier they were found in."""

    tier: str
    peers: tuple[Peer, ...]


@dataclass(frozen=True)
class Asker:
    """What the guards need to know of a question: who asks it, about what, and when.

    `people` are those of the population who are nobody else: the user and whoever lent them a history; `text` what the
    question responds to; `before` the latest time a peer's record may have, or None for any; `medoids` the people of
    the user scope.
    """

    people: frozenset[str]
    item: str | None
    text: str
    before: tuple[int, ...] | None = None
    medoids: tuple[str, ...] = ()


class Peers:
    """Everybody's records, by item, by stimulus and by nearness.

    Args:
        users: the population's people; `settings`: tiers, guards and bounds; `kind`: of the task's responses.
    """

    def __init__(self, users: Sequence[User], settings: Settings, kind: ResponseKind) -> None:
        self._settings = settings
        self._kind = kind
        self._records: list[Record] = []
        self._people: list[str] = []
        self._own: dict[str, range] = {}
        for user in users:
            start = len(self._records)
            self._records += user.history
            self._people += [user.id] * len(user.history)
            self._own[user.id] = range(start, len(self._records))
        self._keys = [_key(subject(record)) for record in self._records]
        self._by_item: dict[str, list[int]] = defaultdict(list)
        self._by_stimulus: dict[int, list[int]] = defaultdict(list)
        for position, record in enumerate(self._records):
            if record.item is not None:
                self._by_item[record.item].append(position)
            if record.stimulus is not None and self._keys[position]:
                self._by_stimulus[self._keys[position]].append(position)
        if "T3" in settings.tiers:
            self._bm25 = BM25([subject(record) for record in self._records])
            self._common = _common_tokens(self._records)
            self._nearest = lru_cache(maxsize=2048)(self._search)
        self._scope: list[str] = []

    async def cluster(self, embed: Embed) -> None:
        """For the user scope: each person's mean response, clustered, and the medoid person of each cluster."""
        self._scope = [user for user, own in self._own.items() if own]
        if not self._scope:
            return
        means = np.stack(
            [
                await _mean([self._records[i] for i in self._own[user]], embed)
                for user in self._scope
            ]
        )
        labels, self._centroids = clusters(means, self._settings)
        self._medoids = []
        for number in range(len(self._centroids)):
            members = np.flatnonzero(labels == number)
            spread = [
                np.linalg.norm(means[members] - means[member], axis=1).sum() for member in members
            ]
            self._medoids.append(self._scope[members[int(np.argmin(spread))]])

    async def asker(self, people: frozenset[str], sample: Sample, text: str, embed: Embed) -> Asker:
        """A question as the guards see it; an undated one is asked at the time of the user's newest record."""
        before: tuple[int, ...] | None = None
        medoids: tuple[str, ...] = ()
        if self._settings.temporal_guard:
            before = moment(sample.time) or max(
                (moment(record.time) for record in sample.history), default=()
            )
        if self._scope and sample.history:
            mean = await _mean(sample.history, embed)
            own = int(np.linalg.norm(self._centroids - mean, axis=1).argmin())
            medoids = tuple(name for number, name in enumerate(self._medoids) if number != own)
        return Asker(people, sample.item, text, before, medoids)

    def possible(self, doc: Record, asker: Asker) -> bool:
        """Whether a pool may exist, without a search: exact where only items and equal stimuli are compared."""
        enough = self._settings.min_peers
        others = len(self._own) - len(asker.people & self._own.keys())
        if others >= enough and ("T3" in self._settings.tiers or len(asker.medoids) >= enough):
            return True
        return any(
            len({self._people[i] for i in self._allowed(self._found(tier, doc, asker), doc, asker)})
            >= enough
            for tier in self._settings.tiers
            if tier in ("T1", "T2")
        )

    async def pool(self, doc: Record, asker: Asker, embed: Embed) -> Pool | None:
        """The first tier that gives `min_peers` people after the guards, one record each; None when no tier does."""
        for tier in self._settings.tiers:
            allowed = self._allowed(self._found(tier, doc, asker), doc, asker)
            peers: list[Peer] = []
            for chunk in self._chunks(tier, allowed):
                peers += await self._near(tier, chunk, doc, asker, embed)
                if len(peers) >= self._settings.min_peers:
                    peers = peers[: self._settings.max_pool or None]
                    return Pool(tier, tuple(sorted(peers, key=lambda peer: peer.person)))
        return None

    def _found(self, tier: str, doc: Record, asker: Asker) -> Sequence[int]:
        if tier == "T3":
            return self._nearest(subject(doc), asker.people)
        if tier == "user":
            return [position for person in asker.medoids for position in self._own[person]]
        own = _key(subject(doc))
        if tier == "T1":
            found = self._by_item.get(doc.item, []) if doc.item is not None else []
        else:
            found = self._by_stimulus.get(own, []) if doc.stimulus is not None and own else []
        return sorted(
            found, key=lambda position: (self._keys[position] != own, self._people[position])
        )

    def _allowed(self, positions: Sequence[int], doc: Record, asker: Asker) -> Iterator[int]:
        """The positions past the guards that need no similarity: own records, the question's, copies, the future."""
        asked = _key(asker.text) if self._settings.dup_max or asker.item is None else 0
        for position in positions:
            record = self._records[position]
            if self._people[position] in asker.people:
                continue
            if record.item is not None and record.item == asker.item:
                continue
            if asked and self._keys[position] == asked:
                continue
            if self._copy(position, doc):
                continue
            if asker.before is not None and not () < moment(record.time) <= asker.before:
                continue
            yield position

    def _copy(self, position: int, doc: Record) -> bool:
        record = self._records[position]
        if self._keys[position] != _key(subject(doc)) or normalized(record.response) != normalized(
            doc.response
        ):
            return False
        # The same label on the same stimulus is agreement, which labels are compared for, unless it is the record.
        return self._kind == "text" or doc.stimulus is None or record.id == doc.id

    def _chunks(self, tier: str, positions: Iterator[int]) -> Iterator[list[int]]:
        """Candidates in the size of a pool, one per person; the user scope picks each person's record by nearness."""
        if tier == "user":
            yield list(positions)
            return
        first: dict[str, int] = {}
        for position in positions:
            first.setdefault(self._people[position], position)
        candidates = list(first.values())
        size = self._settings.max_pool or max(len(candidates), 1)
        for start in range(0, min(len(candidates), _CHUNKS * size), size):
            yield candidates[start : start + size]

    async def _near(
        self, tier: str, positions: Sequence[int], doc: Record, asker: Asker, embed: Embed
    ) -> list[Peer]:
        settings = self._settings
        records = [self._records[position] for position in positions]
        people = [self._people[position] for position in positions]
        if not settings.dup_max and tier in ("T1", "T2"):
            return [
                Peer(person, record, 1.0) for person, record in zip(people, records, strict=True)
            ]
        vectors = await embed([asker.text, subject(doc), *map(subject, records)])
        to_asked, to_doc = cosines(np.delete(vectors, 1, axis=0)), cosines(vectors[1:])
        best: dict[str, Peer] = {}
        for person, record, asked, near in zip(people, records, to_asked, to_doc, strict=True):
            if (settings.dup_max and asked >= settings.dup_max) or (
                tier == "T3" and near < settings.tau
            ):
                continue
            if person not in best or near > best[person].similarity:
                best[person] = Peer(person, record, float(near))
        return list(best.values())

    def _search(self, text: str, people: frozenset[str]) -> tuple[int, ...]:
        rare = [token for token in text.split() if token not in self._common]
        scores = self._bm25.scores(" ".join(rare) or text)
        for own in (self._own.get(person, range(0)) for person in people):
            scores[own.start : own.stop] = -np.inf
        return tuple(top(scores, _NEAREST))


def subject(record: Record) -> str:
    """What makes two records comparable: the stimulus, or the response where there is none."""
    return record.response if record.stimulus is None else record.stimulus


@lru_cache(maxsize=4096)
def _key(text: str) -> int:
    normal = normalized(text)
    return hash(normal) if normal else 0


def _common_tokens(records: Sequence[Record]) -> frozenset[str]:
    """Tokens in more than a twentieth of the records, by a survey: they make a search long and say little."""
    surveyed = records[:: max(1, len(records) // _SURVEYED)]
    counts = Counter(token for record in surveyed for token in set(subject(record).split()))
    return frozenset(
        token for token, count in counts.items() if count > max(20, _COMMON * len(surveyed))
    )


async def _mean(records: Sequence[Record], embed: Embed) -> Floats:
    vectors = await embed([record.response for record in records])
    mean: Floats = vectors.mean(axis=0, dtype=np.float64)
    return mean
