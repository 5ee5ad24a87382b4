"""`shard.json`: which part of a run a shard folder holds."""

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


RECORD = "shard.json"


class Record(msgspec.Struct, frozen=True):
    """`shard.json`: which shard a run folder holds, and what was asked for that its spec does not say.

    Attributes:
        shard, of: the shard is number `shard` (from 1) of `of`.
        task, params: the task, a file with its whole path, and all its parameters.
        split, data: the split, and the folder given with `--data`, or None for the bundled sample.
        limit, draw: samples asked for, and the seed that draws their users.
        metrics: those of `--metric`.
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


def mark(folder: RunFolder, options: Options, task: Task) -> None:
    """Write `shard.json` into a started run folder, where the run is a shard."""
    if options.shard is None:
        return
    record = Record(
        options.shard.number,
        options.shard.of,
        registry.reference(type(task)),
        asdict(task.params),
        options.split or task.default_split,
        str(options.data.resolve()) if options.data else None,
        options.limit,
        options.seed if options.draw is None else options.draw,
        tuple(options.metrics),
    )
    with folder.replacing(folder.path / RECORD) as file:
        file.write(to_json(record) + "\n")
