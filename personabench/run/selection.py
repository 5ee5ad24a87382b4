"""Select the samples of a run: whole users, drawn by a seed or with the longest histories."""

from __future__ import annotations

import random

from personabench.api.dataset import Dataset
from personabench.errors import UsageError
from personabench.run.controls import without_control


def select(
    dataset: Dataset,
    limit: int | None,
    seed: int,
    max_users: int | None = None,
    *,
    longest: bool = False,
) -> list[int]:
    """Select the samples to run, whole users.

    Users are added from a seeded permutation until at least `limit` samples, or `max_users` users,
    are selected.

    Args:
        longest: take the users with the longest histories first, in place of a permutation.

    Raises:
        UsageError: no user has a history to be measured by.
    """
    positions_of: dict[str, list[int]] = {}
    for position, (_, user) in enumerate(dataset.index()):
        positions_of.setdefault(user, []).append(position)

    # Sorted first, so that the order of the file does not matter.  One order serves every limit: a
    # smaller limit selects the first samples of a larger one, and a run can be extended.
    users = sorted(positions_of)
    if longest:
        lengths = _measure_histories(dataset, positions_of)
        if not any(lengths.values()):
            raise UsageError(
                f"--users longest:{max_users}: no user of {dataset.source} has a history; "
                f"write --users {max_users}"
            )
        users.sort(key=lambda user: -lengths[user])
    else:
        random.Random(seed).shuffle(users)

    selected: list[int] = []
    for user in users[:max_users]:
        if limit is not None and len(selected) >= limit:
            break
        selected += positions_of[user]
    return selected


def _measure_histories(dataset: Dataset, positions_of: dict[str, list[int]]) -> dict[str, int]:
    """The records that each user's last question can see, under any history control."""
    # The users of a control have to be those of the run that it is compared with.
    inner = without_control(dataset)
    return {
        user: max(len(inner.load(position).history) for position in positions)
        for user, positions in positions_of.items()
    }
