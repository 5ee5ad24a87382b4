"""Select the peers of a pool that represent it: few, unlike the user, and unlike each other.

Texts are clustered by content; labels and scores are their own clusters.  The result is a function
of the record, the pool and the settings, in the pool's order, so that the same seed gives the same
peers in the same order.
"""

from __future__ import annotations

import hashlib
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
from personabench.methods.vectors import Floats, compute_cosines

# Distances that agree to so many decimals are equal.
DECIMALS = 6

Embed = Callable[[Sequence[str]], Awaitable[npt.NDArray[np.float32]]]


class Peer(NamedTuple):
    """A peer's comparable record, with the similarity of its stimulus to the user's (default 1)."""

    user_id: str
    record: Record
    similarity: float


def draw_rank(seed: int, record: Record, user_id: str) -> bytes:
    """The rank of a peer in a draw for a record; the lowest are drawn.

    Ranks decide among peers that compare equally well: the order of ids would let a few users stand
    for all others.
    """
    text = f"{seed}\x1f{record.id}\x1f{user_id}"
    return hashlib.blake2b(text.encode(), digest_size=8).digest()


def mean_similarity(peers: Sequence[Peer]) -> float:
    """The mean similarity of at least one peer."""
    return sum(peer.similarity for peer in peers) / len(peers)


def all_agree(record: Record, peers: Sequence[Peer], kind: ResponseKind) -> bool:
    """Whether all peers gave the user's own label or score; texts never agree."""
    if kind == "text":
        return False
    own_label = _label_of(record, kind)
    return all(_label_of(peer.record, kind) == own_label for peer in peers)


async def select_peers(
    record: Record,
    peers: Sequence[Peer],
    kind: ResponseKind,
    settings: Settings,
    embed: Embed,
) -> tuple[Peer, ...]:
    """At most `k_peers` representatives of a pool, in a fixed order; none if all are alike."""
    if settings.selector == "auto" and kind != "text":
        return _select_by_label(record, peers, kind, settings.k_peers)

    # Seeded by the record, so that the selection does not depend on the order of the calls.
    rng = random.Random(f"{settings.seed}\x1f{record.id}")
    if settings.selector == "random":
        count = min(settings.k_peers, len(peers))
        return tuple(rng.sample(list(peers), count))

    vectors = await embed([record.response, *(peer.record.response for peer in peers)])
    if settings.selector in ("least_similar", "most_similar"):
        return _select_by_similarity(peers, vectors, settings)
    return _select_by_cluster(peers, vectors, settings, rng)


def cluster_vectors(
    vectors: npt.NDArray[Any], settings: Settings
) -> tuple[npt.NDArray[np.int32], Floats]:
    """K-means labels (n,) and centroids (c, d) for `k_peers` + 1 clusters, or as many as differ."""
    from sklearn.cluster import KMeans

    # Faster than `numpy.unique`, which sorts; adding 0 makes negative zeros equal positive ones.
    distinct = {vector.tobytes() for vector in vectors + 0.0}
    count = min(settings.k_peers + 1, len(distinct))
    model = KMeans(
        n_clusters=count,
        n_init=settings.n_init,
        random_state=settings.seed,
    )
    # Threads sum in changing order, and a centroid's last digits can decide which peer is closest.
    with _threads().limit(limits=1):
        model.fit(vectors.astype(np.float64))
    return model.labels_, model.cluster_centers_


def find_least(distances: npt.NDArray[Any]) -> int:
    """The index of the least distance, the first of those equal to six decimals.

    The two members of a pair are equally far from their centroid, and their last digits differ
    between machines.
    """
    return int(np.round(distances, DECIMALS).argmin())


@cache
def _threads() -> Any:
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController()


def _select_by_label(
    record: Record,
    peers: Sequence[Peer],
    kind: ResponseKind,
    limit: int,
) -> tuple[Peer, ...]:
    """The nearest peer of each of the commonest labels that are not the user's."""
    own_label = _label_of(record, kind)
    counts = Counter(_label_of(peer.record, kind) for peer in peers)
    nearest: dict[str | float, Peer] = {}
    for peer in sorted(peers, key=lambda peer: -peer.similarity):
        nearest.setdefault(_label_of(peer.record, kind), peer)

    labels = [label for label in nearest if label != own_label]
    labels = sorted(labels, key=lambda label: -counts[label])[:limit]
    if kind == "ordinal":
        # Scores in their order; the few that are no numbers come last.
        labels.sort(key=lambda label: (isinstance(label, str), label))
    return tuple(nearest[label] for label in labels)


def _select_by_similarity(
    peers: Sequence[Peer],
    vectors: npt.NDArray[Any],
    settings: Settings,
) -> tuple[Peer, ...]:
    similarities = compute_cosines(vectors)
    sign = 1 if settings.selector == "least_similar" else -1
    order = sorted(range(len(peers)), key=lambda index: (sign * similarities[index], index))
    return tuple(peers[index] for index in order[: settings.k_peers])


def _select_by_cluster(
    peers: Sequence[Peer],
    vectors: npt.NDArray[Any],
    settings: Settings,
    rng: random.Random,
) -> tuple[Peer, ...]:
    """One peer of every cluster but the user's: the closest to its centroid, or a random one."""
    labels, centroids = cluster_vectors(vectors, settings)
    own_cluster = labels[0]
    selected = []
    for cluster, centroid in enumerate(centroids):
        members = np.flatnonzero(labels[1:] == cluster)
        if cluster == own_cluster or not len(members):
            continue
        if settings.selector == "kmeans_random":
            index = rng.choice(members.tolist())
        else:
            distances = np.linalg.norm(vectors[1:][members] - centroid, axis=1)
            index = members[find_least(distances)]
        selected.append(peers[index])
    return tuple(selected)


def _label_of(record: Record, kind: ResponseKind) -> str | float:
    text = record.response.strip().casefold()
    if kind != "ordinal":
        return text
    try:
        return float(text)
    except ValueError:
        return text
