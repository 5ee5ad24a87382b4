"""Pools of peers: other users' records that are comparable with one record of the user's.

Built once per run over the histories of all users.  For a record, tiers are tried from the closest
comparison to the loosest, and guards keep out the user's own records and any that could reveal the
question's reference.  Records are found with one sparse BM25 index; only the few that may enter a
pool are embedded, for the similarity that `tau` and `dup_max` are thresholds of: the cosine of two
stimuli, 1 for the same text.
"""

from __future__ import annotations

from array import array
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from personabench import Population, Record, Sample, User
from personabench.api.wording import ResponseKind
from personabench.methods.dpl.selectors import (
    Embed,
    Peer,
    cluster_vectors,
    draw_rank,
    find_least,
)
from personabench.methods.dpl.settings import Settings
from personabench.methods.vectors import Floats, compute_cosines
from personabench.retrieval.bm25 import BM25, top
from personabench.retrieval.tokenizers import Tokenize
from personabench.types import moment, normalized

# Search results in T3: enough for several chunks after the guards and one record per user.
_NEAREST = 512
# Chunks of a pool's size that are embedded before a tier is given up.
_CHUNKS = 4
# Share of the records from which a token counts as common, and records surveyed to find such
# tokens.
_COMMON = 0.05
_SURVEYED = 2000


class Pool(NamedTuple):
    """Peers comparable with one record, sorted by user, and the tier they were found in."""

    tier: str
    peers: tuple[Peer, ...]


@dataclass(frozen=True)
class Question:
    """A question as the guards see it: its users, subject and time.

    `user_ids` are the users who are no peers: the user and the history owner; `text` is the text
    that the question responds to; `before` the latest time a peer's record may have, or None for
    any; `medoids` the users of the user scope.
    """

    user_ids: frozenset[str]
    item: str | None
    text: str
    before: tuple[int, ...] | None = None
    medoids: tuple[str, ...] = ()


class Peers:
    """The records of all users, by item, by stimulus and by similarity.

    Args:
        users: the users of the population; `settings`: tiers, guards and limits; `kind`: of the
            task's responses; `tokenizer`: of its retrieval texts.
    """

    def __init__(
        self,
        users: Sequence[User],
        settings: Settings,
        kind: ResponseKind,
        tokenizer: str,
    ) -> None:
        self._settings = settings
        self._kind = kind
        # Records are addressed by their index in one list, with a parallel list of their users.
        self._records: list[Record] = []
        self._user_ids: list[str] = []
        self._ranges: dict[str, range] = {}
        for user in users:
            start = len(self._records)
            self._records += user.history
            self._user_ids += [user.id] * len(user.history)
            self._ranges[user.id] = range(start, len(self._records))

        # Arrays, because lists in a dictionary would take more memory than the texts' index.
        self._keys = array("q", (_text_key(subject(record)) for record in self._records))
        keys = np.frombuffer(self._keys, np.int64)
        self._key_order = np.argsort(keys, kind="stable").astype(np.int32)
        self._sorted_keys = keys[self._key_order]

        self._by_item: dict[str, list[int]] = defaultdict(list)
        for index, record in enumerate(self._records):
            if record.item is not None:
                self._by_item[record.item].append(index)

        if "T3" in settings.tiers:
            subjects = [subject(record) for record in self._records]
            self._bm25 = BM25(subjects, tokenizer=tokenizer)
            self._common = _common_tokens(self._records, self._bm25.tokenize)
            self._search_cached = lru_cache(maxsize=2048)(self._search)
        self._scope: list[str] = []

    async def cluster_users(self, embed: Embed) -> None:
        """For the user scope: cluster the users' mean responses and find each cluster's medoid."""
        self._scope = [user_id for user_id, indices in self._ranges.items() if indices]
        if not self._scope:
            return

        means = []
        for user_id in self._scope:
            records = [self._records[index] for index in self._ranges[user_id]]
            means.append(await _mean_response(records, embed))
        matrix = np.stack(means)

        labels, self._centroids = cluster_vectors(matrix, self._settings)
        self._medoids = []
        for cluster in range(len(self._centroids)):
            members = np.flatnonzero(labels == cluster)
            spreads = [
                np.linalg.norm(matrix[members] - matrix[member], axis=1).sum() for member in members
            ]
            medoid = members[find_least(np.array(spreads))]
            self._medoids.append(self._scope[medoid])

    async def describe_question(
        self,
        user_ids: frozenset[str],
        sample: Sample,
        text: str,
        embed: Embed,
    ) -> Question:
        """Describe a question for the guards; the newest record dates one without a date."""
        before: tuple[int, ...] | None = None
        if self._settings.temporal_guard:
            times = (moment(record.time) for record in sample.history)
            before = moment(sample.time) or max(times, default=())

        medoids: tuple[str, ...] = ()
        if self._scope and sample.history:
            mean = await _mean_response(sample.history, embed)
            distances = np.linalg.norm(self._centroids - mean, axis=1)
            own_cluster = find_least(distances)
            medoids = tuple(
                user_id for cluster, user_id in enumerate(self._medoids) if cluster != own_cluster
            )
        return Question(user_ids, sample.item, text, before, medoids)

    def may_have_pool(self, record: Record, question: Question) -> bool:
        """Whether a pool may exist, without a search; exact if only T1 and T2 are tried."""
        min_peers = self._settings.min_peers
        peer_count = len(self._ranges) - len(question.user_ids & self._ranges.keys())
        searchable = "T3" in self._settings.tiers or len(question.medoids) >= min_peers
        if searchable and peer_count >= min_peers:
            return True

        for tier in ("T1", "T2"):
            if tier not in self._settings.tiers:
                continue
            candidates = self._candidates(tier, record, question)
            user_ids = {self._user_ids[index] for index in candidates}
            if len(user_ids) >= min_peers:
                return True
        return False

    async def find_pool(
        self,
        record: Record,
        question: Question,
        embed: Embed,
    ) -> Pool | None:
        """The first tier with `min_peers` users after the guards, one record each; None without."""
        for tier in self._settings.tiers:
            candidates: Iterable[int] = self._candidates(tier, record, question)
            if tier in ("T1", "T2"):
                candidates = self._draw(record, candidates)
            peers: list[Peer] = []
            for chunk in self._chunks(tier, candidates):
                peers += await self._measure(tier, chunk, record, question, embed)
                if len(peers) >= self._settings.min_peers:
                    peers = peers[: self._settings.max_pool or None]
                    return Pool(tier, tuple(sorted(peers, key=lambda peer: peer.user_id)))
        return None

    def _candidates(
        self,
        tier: str,
        record: Record,
        question: Question,
    ) -> Iterator[int]:
        return self._apply_guards(self._look_up(tier, record, question), record, question)

    def _draw(self, record: Record, indices: Iterable[int]) -> list[int]:
        """The indices of records on one item or stimulus, in drawn order of their users."""
        own_key = _text_key(subject(record))
        seed = self._settings.seed

        def order(index: int) -> tuple[bool, bytes]:
            # An item may have several stimuli; those equal to the user's are the closer comparison.
            return self._keys[index] != own_key, draw_rank(seed, record, self._user_ids[index])

        return sorted(indices, key=order)

    def _look_up(
        self,
        tier: str,
        record: Record,
        question: Question,
    ) -> Sequence[int]:
        """The indices of a tier's records; in T3 the most comparable first."""
        if tier == "T3":
            return self._search_cached(subject(record), question.user_ids)
        if tier == "user":
            return [index for user_id in question.medoids for index in self._ranges[user_id]]

        own_key = _text_key(subject(record))
        indices: list[int] = []
        if tier == "T1" and record.item is not None:
            indices = self._by_item.get(record.item, [])
        if tier == "T2" and record.stimulus is not None and own_key:
            start = np.searchsorted(self._sorted_keys, own_key, "left")
            end = np.searchsorted(self._sorted_keys, own_key, "right")
            same_text = self._key_order[start:end].tolist()
            indices = [index for index in same_text if self._records[index].stimulus is not None]
        return indices

    def _apply_guards(
        self,
        indices: Sequence[int],
        record: Record,
        question: Question,
    ) -> Iterator[int]:
        """The indices that pass the guards which need no similarity.

        Left out are the user's own records, those on the question's subject, copies, and records
        from the future.
        """
        question_key = 0
        if self._settings.dup_max or question.item is None:
            question_key = _text_key(question.text)

        for index in indices:
            peer_record = self._records[index]
            if self._user_ids[index] in question.user_ids:
                continue
            if peer_record.item is not None and peer_record.item == question.item:
                continue
            if question_key and self._keys[index] == question_key:
                continue
            if self._is_copy(index, record):
                continue
            # An undated record has the moment (), which is before any time but not known to be.
            if question.before is not None and not () < moment(peer_record.time) <= question.before:
                continue
            yield index

    def _is_copy(self, index: int, record: Record) -> bool:
        """Whether a peer's record is the user's own, published under another user."""
        if self._keys[index] != _text_key(subject(record)):
            return False
        peer_record = self._records[index]
        if normalized(peer_record.response) != normalized(record.response):
            return False
        # The same label on the same stimulus is agreement, which labels are compared for, unless it
        # is the record itself.
        return self._kind == "text" or record.stimulus is None or peer_record.id == record.id

    def _chunks(
        self,
        tier: str,
        indices: Iterable[int],
    ) -> Iterator[list[int]]:
        """Candidates in chunks of a pool's size, one record per user.

        In the user scope all records come at once, since a user's record is chosen by similarity.
        """
        if tier == "user":
            yield list(indices)
            return

        first: dict[str, int] = {}
        for index in indices:
            first.setdefault(self._user_ids[index], index)
        candidates = list(first.values())
        size = self._settings.max_pool or max(len(candidates), 1)
        for start in range(0, min(len(candidates), _CHUNKS * size), size):
            yield candidates[start : start + size]

    async def _measure(
        self,
        tier: str,
        indices: Sequence[int],
        record: Record,
        question: Question,
        embed: Embed,
    ) -> list[Peer]:
        """The candidates within the thresholds, the most similar record of each user."""
        settings = self._settings
        records = [self._records[index] for index in indices]
        user_ids = [self._user_ids[index] for index in indices]
        if not settings.dup_max and tier in ("T1", "T2"):
            # The same item or stimulus needs no measure, so nothing is embedded.
            return [
                Peer(user_id, peer_record, 1.0)
                for user_id, peer_record in zip(user_ids, records, strict=True)
            ]

        vectors = await embed(
            [
                question.text,
                subject(record),
                *map(subject, records),
            ]
        )
        to_question = compute_cosines(np.delete(vectors, 1, axis=0))
        to_record = compute_cosines(vectors[1:])
        best: dict[str, Peer] = {}
        for index, user_id in enumerate(user_ids):
            similarity = to_record[index]
            if settings.dup_max and to_question[index] >= settings.dup_max:
                continue
            if tier == "T3" and similarity < settings.tau:
                continue
            if user_id not in best or similarity > best[user_id].similarity:
                best[user_id] = Peer(user_id, records[index], float(similarity))
        return list(best.values())

    def _search(
        self,
        text: str,
        user_ids: frozenset[str],
    ) -> tuple[int, ...]:
        """The indices of the nearest records by BM25, without those of `user_ids`."""
        rare = [token for token in self._bm25.tokenize(text) if token not in self._common]
        scores = self._bm25.scores(" ".join(rare) or text)
        for user_id in user_ids:
            indices = self._ranges.get(user_id, range(0))
            scores[indices.start : indices.stop] = -np.inf
        return tuple(top(scores, _NEAREST))


def index_users(
    population: Population,
    users: Sequence[User],
    settings: Settings,
    kind: ResponseKind,
    tokenizer: str,
) -> Peers:
    """Index the records of some users of a population, which may take seconds: once for all runs
    with the same settings."""
    user_ids = tuple(user.id for user in users)
    key = ("dpl.peers", settings, kind, tokenizer, user_ids)
    return population.derive(key, lambda: Peers(users, settings, kind, tokenizer))


def subject(record: Record) -> str:
    """The text that makes two records comparable: the stimulus, or the response without one."""
    return record.response if record.stimulus is None else record.stimulus


@lru_cache(maxsize=4096)
def _text_key(text: str) -> int:
    # A hash per record instead of the text keeps the index of a large population small.
    normal = normalized(text)
    return hash(normal) if normal else 0


def _common_tokens(records: Sequence[Record], tokenize: Tokenize) -> frozenset[str]:
    """Tokens in more than a twentieth of a sample of the records.

    They make a search slow and contribute little to its ranking.
    """
    surveyed = records[:: max(1, len(records) // _SURVEYED)]
    counts: Counter[str] = Counter()
    for record in surveyed:
        counts.update(set(tokenize(subject(record))))
    # In a small population a twentieth would be a handful of records, and rare words common.
    threshold = max(20, _COMMON * len(surveyed))
    return frozenset(token for token, count in counts.items() if count > threshold)


async def _mean_response(records: Sequence[Record], embed: Embed) -> Floats:
    vectors = await embed([record.response for record in records])
    mean: Floats = vectors.mean(axis=0, dtype=np.float64)
    return mean
