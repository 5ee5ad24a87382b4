"""Select the samples of a run: whole users, in an order that a seed decides."""

from __future__ import annotations

import random

from personabench.api.dataset import Dataset


def select(
    dataset: Dataset, limit: int | None, seed: int, max_users: int | None = None
) -> list[int]:
    """Select the samples to run, whole users, in an order that depends on the seed alone.

    Users are added from a seeded permutation until at least `limit` samples, or `max_users` users,
    are selected.
    """
    positions_of: dict[str, list[int]] = {}
    for position, (_, user) in enumerate(dataset.index()):
        positions_of.setdefault(user, []).append(position)

    # Sorted first, so that the order of the file does not matter.  One permutation serves every
    # limit: a smaller limit selects the first samples of a larger one, and a run can be extended.
    users = sorted(positions_of)
    random.Random(seed).shuffle(users)

    selected: list[int] = []
    for user in users[:max_users]:
        if limit is not None and len(selected) >= limit:
            break
        selected += positions_of[user]
    return selected
