"""Which peers of a pool stand for the others: few, unlike the user, and unlike each other.

Texts are clustered by what they say; labels and scores are their own clusters.  Everything is a function of the
record, the pool and the settings, in the pool's order, so the same seed gives the same peers in the same order.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from functools import cache
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from personabench import Record
from personabench.api.wording import ResponseKind
from personabench.methods.dpl.settings import Settings

Floats = npt.NDArray[np.float64]
Embed = Callable[[Sequence[str]], Awaitable[npt.NDArray[np.float32]]]


class Peer(NamedTuple):
    """Another person's comparable record; `similarity` of its stimulus to the user's, 1 where not measured."""

    person: str
    record: Record
    similarity: float


def mean_similarity(peers: Sequence[Peer]) -> float:
    """The mean similarity of at least one peer."""
    return sum(peer.similarity for peer in peers) / len(peers)


def agree(doc: Record, peers: Sequence[Peer], kind: ResponseKind) -> bool:
    """Whether all peers gave the user's own label or score; texts never agree."""
    if kind == "text":
        return False
    return all(_label(peer.record, kind) == _label(doc, kind) for peer in peers)


async def select(
    doc: Record, peers: Sequence[Peer], kind: ResponseKind, settings: Settings, embed: Embed
) -> tuple[Peer, ...]:
    """At most `k_peers` representatives of a pool, in a fixed order; none when nobody responds unlike the user."""
    if settings.selector == "auto" and kind != "text":
        return _by_label(doc, peers, kind, settings.k_peers)
    rng = random.Random(f"{settings.seed}\x1f{doc.id}")
    if settings.selector == "random":
        return tuple(rng.sample(list(peers), min(settings.k_peers, len(peers))))
    vectors = await embed([doc.response, *(peer.record.response for peer in peers)])
    if settings.selector in ("least_similar", "most_similar"):
        likeness = cosines(vectors)
        sign = 1 if settings.selector == "least_similar" else -1
        order = sorted(
            range(len(peers)), key=lambda position: (sign * likeness[position], position)
        )
        return tuple(peers[position] for position in order[: settings.k_peers])
    labels, centroids = clusters(vectors, settings)
    chosen = []
    for number in range(len(centroids)):
        members = np.flatnonzero(labels[1:] == number)
        if number == labels[0] or not len(members):
            continue
        if settings.selector == "kmeans_random":
            chosen.append(peers[rng.choice(members.tolist())])
        else:
            distances = np.linalg.norm(vectors[1:][members] - centroids[number], axis=1)
            chosen.append(peers[members[int(distances.argmin())]])
    return tuple(chosen)


def clusters(vectors: npt.NDArray[Any], settings: Settings) -> tuple[npt.NDArray[np.int32], Floats]:
    """K-means with `k_peers` + 1 clusters, fewer where vectors repeat: cluster of each row (n,), centroids (c, d)."""
    from sklearn.cluster import KMeans

    count = min(settings.k_peers + 1, len(np.unique(vectors, axis=0)))
    model = KMeans(n_clusters=count, n_init=settings.n_init, random_state=settings.seed)
    with _threads().limit(limits=1):
        model.fit(vectors.astype(np.float64))
    return model.labels_, model.cluster_centers_


def cosines(vectors: npt.NDArray[Any]) -> Floats:
    """Cosine of the first vector with each other one, shape (n - 1,); 0 where a vector is zero."""
    exact = vectors.astype(np.float64)
    lengths = np.sqrt((exact**2).sum(axis=1))
    products: Floats = (exact[1:] * exact[0]).sum(axis=1)
    scale = lengths[1:] * lengths[0]
    likeness: Floats = np.divide(products, scale, out=np.zeros_like(products), where=scale > 0)
    return likeness


@cache
def _threads() -> Any:
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController()


def _by_label(
    doc: Record, peers: Sequence[Peer], kind: ResponseKind, limit: int
) -> tuple[Peer, ...]:
    own = _label(doc, kind)
    sizes = Counter(_label(peer.record, kind) for peer in peers)
    nearest: dict[str | float, Peer] = {}
    for peer in sorted(peers, key=lambda peer: -peer.similarity):
        nearest.setdefault(_label(peer.record, kind), peer)
    labels = [label for label in nearest if label != own]
    labels = sorted(labels, key=lambda label: -sizes[label])[:limit]
    if kind == "ordinal":
        labels.sort(key=lambda label: (isinstance(label, str), label))
    return tuple(nearest[label] for label in labels)


def _label(record: Record, kind: ResponseKind) -> str | float:
    text = record.response.strip().casefold()
    if kind == "ordinal":
        try:
            return float(text)
        except ValueError:
            return text
    return text
