"""`shard.json`: which part of a run a shard folder holds, and the options that made it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import msgspec

from personabench.api import registry
from personabench.api.task import Task
from personabench.results.run_folder import RunFolder
from personabench.types import to_json

if TYPE_CHECKING:
    from personabench.run.options import Options


SHARD_FILE = "shard.json"


class ShardOptions(msgspec.Struct, frozen=True):
    """The content of `shard.json`: the options of a shard that the run's spec does not hold.

    Attributes:
        shard, of: the shard is number `shard` (from 1) of `of`.
        task, params: the task (for a file its whole path) and all its parameters.
        split, data: the split, and the folder given with `--data`, or None for the example data.
        limit, users, draw: the requested number of samples or of users, and the seed that selects
            the users.
        longest: users are selected by the length of their histories.
        metrics: the metrics of `--metric`.
    """

    shard: int
    of: int
    task: str
    params: Mapping[str, Any]
    split: str
    data: str | None
    limit: int | None
    draw: int
    metrics: tuple[str, ...] = ()
    users: int | None = None
    longest: bool = False


def write_shard_file(folder: RunFolder, options: Options, task: Task) -> None:
    """Write `shard.json` into a started run folder, if the run is a shard."""
    if options.shard is None:
        return

    shard_options = ShardOptions(
        shard=options.shard.number,
        of=options.shard.of,
        task=registry.class_reference(type(task)),
        params=asdict(task.params),
        split=options.split or task.default_split,
        data=str(options.data.resolve()) if options.data else None,
        limit=options.limit,
        users=options.users,
        longest=options.longest,
        draw=options.selection_seed,
        metrics=tuple(options.metrics),
    )
    with folder.replacing(folder.path / SHARD_FILE) as file:
        file.write(to_json(shard_options) + "\n")
