"""Which samples a run takes: whole users, in an order that a seed decides."""

from __future__ import annotations

import random

from personabench.api.dataset import Dataset


def select(dataset: Dataset, limit: int | None, seed: int) -> list[int]:
    """Positions of the samples to run, whole users together, in an order that depends on the seed alone.

    With a limit, users are taken from the permutation until at least `limit` samples are in, so that a smaller
    limit's samples are always the first ones of a larger limit's.
    """
    users: dict[str, list[int]] = {}
    for position, (_, user) in enumerate(dataset.index()):
        users.setdefault(user, []).append(position)
    order = sorted(users)
    random.Random(seed).shuffle(order)
    chosen: list[int] = []
    for user in order:
        if limit is not None and len(chosen) >= limit:
            break
        chosen += users[user]
    return chosen
