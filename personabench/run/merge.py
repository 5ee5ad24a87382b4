"""Shards become the run folder that the command without `--shard` would have written.

Lines are copied byte for byte, in the order in which one worker would have written them: the drawn order of users.
Scores and summary are made anew from them, as every run's are.  What is not the same is what was not the same: seconds,
attempts, and `cached` where shards paid for a call that one process makes once.
"""

from __future__ import annotations

import contextlib
import logging
import shutil
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import IO, Any, NamedTuple

import msgspec
from filelock import FileLock, Timeout

from personabench.api import registry
from personabench.api.dataset import Dataset
from personabench.api.task import Task
from personabench.api.users import open_split
from personabench.errors import DataError, UsageError
from personabench.models.cache import Cache
from personabench.results.run_folder import RunFolder
from personabench.results.spec import RunSpec
from personabench.results.summary import Summary
from personabench.run.controls import controlled
from personabench.run.runner import Outcome, external_metrics
from personabench.run.scoring import score_run
from personabench.run.selection import select
from personabench.run.shard_record import RECORD, Record
from personabench.run.shards import Shard, partition
from personabench.types import from_json, to_json

_log = logging.getLogger("personabench.merging")

ADDED = ("seconds", "spent", "prefix_cache", "judge_errors")
"""What of a summary beside the scores is a sum over the shards."""


class Head(msgspec.Struct):
    """What a line is known by: a sample, or the key of a user's state."""

    sample_id: str = ""
    key: str = ""
    error: str | None = None
    profile: str | None = None


class Line(NamedTuple):
    """A line of JSON: its file, where it starts there, and what it is known by."""

    path: Path
    offset: int
    head: Head


@dataclass(frozen=True)
class Part:
    """One shard of one run: its folder and what was asked for."""

    folder: RunFolder
    record: Record

    def __str__(self) -> str:
        return f"{self.record.shard}/{self.record.of}"

    @property
    def summarised(self) -> bool:
        """Whether the shard got as far as a summary."""
        return self.folder.summary_path.exists()


def sharded(results: Path) -> dict[Path, list[Part]]:
    """The shards under a results folder by run (`runs/<task>/<method>/<model>/<fingerprint8>`), in order.

    Raises:
        DataError: a `shard.json` is damaged.
    """
    found: dict[Path, list[Part]] = {}
    for path in sorted(results.glob(f"shards/*-of-*/runs/*/*/*/*/{RECORD}")):
        try:
            record = from_json(path.read_bytes(), Record)
        except msgspec.MsgspecError as error:
            raise DataError(f"{path} is damaged ({error}); repeat the shard's command") from error
        found.setdefault(Path(*path.parent.parts[-5:]), []).append(
            Part(RunFolder(path.parent), record)
        )
    return {
        run: sorted(found[run], key=lambda part: (part.record.of, part.record.shard))
        for run in sorted(found)
    }


def merge(
    results: Path,
    run: Path,
    parts: Sequence[Part],
    *,
    of: int | None = None,
    partial: bool = False,
    data: Path | None,
    metrics: Sequence[str] = (),
) -> Outcome:
    """Write the run that `parts` are shards of, scored, into `results / run`.

    `of` chooses among several numbers of shards, `partial` allows shards and samples to be missing, `data` is where
    the data is now, if it was moved.  `metrics` are those beside the task's own; a metric's name may be a script, so
    names that only the shards give are left out.

    Raises:
        UsageError: the shards do not belong together, or are not all there, or one is still at work.
        DataError: a file is missing or damaged, or the data is not what the shards were made from.
    """
    parts = _chosen(run, parts, of)
    with contextlib.ExitStack() as stack:
        for part in parts:
            try:
                stack.enter_context(FileLock(part.folder.path / "lock", timeout=0))
            except Timeout as error:
                raise UsageError(f"shard {part} of {run} is at work; wait for it") from error
        spec, record = _agreed(run, parts)
        task, dataset = _opened(to_json(record), to_json(spec), str(data) if data else record.data)
        if left := sorted(set(record.metrics) - set(metrics)):
            _log.warning(
                "%s: left out are metrics that the shards were asked for: --metric %s",
                run,
                ", ".join(left),
            )
        index = dataset.index()
        positions = select(dataset, record.limit, record.draw)
        owner = {
            index[at][0]: number for at, number in partition(dataset, positions, record.of).items()
        }
        lines = _lines(parts, Path("predictions.jsonl"), owner)
        finished = {name for name, line in lines.items() if line.head.error is None}
        if not partial:
            _complete(run, parts, owner, finished)
        target = RunFolder(results / run)
        _nothing_lost(target, finished)
        combined = _combine(
            run, [part.folder.summary() for part in parts if part.summarised or not partial]
        )
        target.start(spec)
        stack.callback(target.close)
        chosen = set(owner)
        order = [*owner, *(name for name, _ in index if name in lines and name not in chosen)]
        _copy(target, parts, lines, order)
        _judgements(target, parts, [name for name, _ in index], owner)
        scored = [at for at, (name, _) in enumerate(index) if name in chosen or name in finished]
        summary = score_run(
            target,
            task,
            dataset,
            spec,
            scored,
            seconds=combined.seconds,
            facts=msgspec.structs.replace(
                combined, extra_metrics=external_metrics(target, dataset, scored, metrics)
            ),
        )
        caches = [
            path
            for part in parts
            if (path := part.folder.path.parents[4] / "cache.sqlite").exists()
        ]
        if caches:
            with contextlib.closing(Cache(results / "cache.sqlite", writing=True)) as cache:
                for path in caches:
                    try:
                        cache.absorb(path)
                    except DataError as error:
                        _log.warning("%s; the run is merged without it", error)
    return Outcome(target.path, summary)


def _chosen(run: Path, parts: Sequence[Part], of: int | None) -> list[Part]:
    """The parts of one way to split the run."""
    numbers = sorted({part.record.of for part in parts})
    if of is None and len(numbers) > 1:
        raise UsageError(
            f"{run} was split by {' and by '.join(map(str, numbers))}; choose one with --shards"
        )
    chosen = [part for part in parts if of in (None, part.record.of)]
    if not chosen:
        raise UsageError(f"{run} was not split by {of} but by {' and by '.join(map(str, numbers))}")
    return chosen


def _agreed(run: Path, parts: Sequence[Part]) -> tuple[RunSpec, Record]:
    """What all parts say alike."""
    first = parts[0]
    spec = first.folder.spec()
    for part in parts[1:]:
        if part.folder.spec() != spec:
            raise UsageError(
                f"{run}: shards {first} and {part} are of different runs; move one of them away"
            )
        for name, asked, other in (
            ("--limit", first.record.limit, part.record.limit),
            ("the seed that draws users", first.record.draw, part.record.draw),
            ("--metric", first.record.metrics, part.record.metrics),
            ("the task's parameters", first.record.params, part.record.params),
        ):
            if asked != other:
                raise UsageError(
                    f"{run}: shards {first} and {part} differ in {name} ({asked}, {other}); "
                    "give both commands again, alike"
                )
    return spec, first.record


@lru_cache(maxsize=1)
def _opened(asked: str, said: str, data: str | None) -> tuple[Task, Dataset]:
    """The task of a record and a spec, both as JSON, and its data as the run saw it."""
    record, spec = from_json(asked, Record), from_json(said, RunSpec)
    cls = registry.load_recorded("task", spec.task, spec.task_hash)
    task = cls(msgspec.convert(record.params, cls.Params))
    if data is not None and not Path(data).exists():
        raise DataError(
            f"the data of {spec.task} is no longer in {data}; say where it is with --data"
        )
    dataset = controlled(
        open_split(task, record.split, None if data is None else Path(data)),
        spec.history,
        spec.seed,
    )
    sources = registry.source_hash(cls), spec.task_hash
    if dataset.hash != spec.data_hash or task.version != spec.task_version or len(set(sources)) > 1:
        changed = "task" if dataset.hash == spec.data_hash else "data"
        raise DataError(
            f"the {changed} of {spec.task} has changed since its shards ran; they can only be run again"
        )
    return task, dataset


def _lines(parts: Sequence[Part], name: Path, owner: Mapping[str, int]) -> dict[str, Line]:
    """The latest line of each sample or key in the file of that name, from the shard that owns it where it has one."""
    found: dict[str, Line] = {}
    for part in parts:
        path = part.folder.path / name
        if not path.exists():
            continue
        offset, mine = 0, dict[str, Line]()
        with path.open("rb") as file:
            for number, text in enumerate(file, 1):
                if text.endswith(b"\n"):
                    try:
                        head = from_json(text, Head)
                    except msgspec.MsgspecError as error:
                        raise DataError(
                            f"{path}, line {number} is damaged ({error}); delete it and repeat"
                        ) from error
                    mine[head.sample_id or head.key] = Line(path, offset, head)
                offset += len(text)
        for key, line in mine.items():
            if key not in found or owner.get(key) == part.record.shard:
                found[key] = line
    return found


def _complete(
    run: Path, parts: Sequence[Part], owner: Mapping[str, int], finished: set[str]
) -> None:
    """Refuse while a shard is missing or owes samples."""
    of = parts[0].record.of
    there = {part.record.shard for part in parts}
    owed = dict.fromkeys(there, 0)
    for name, number in owner.items():
        if number in there and name not in finished:
            owed[number] += 1
    absent = [str(Shard(number, of)) for number in range(1, of + 1) if number not in there]
    wrong = [
        f"shard {number}/{of} owes {amount} samples" for number, amount in owed.items() if amount
    ]
    if absent:
        wrong.insert(
            0, f"{'shards' if len(absent) > 1 else 'shard'} {', '.join(absent)} did not run"
        )
    if wrong:
        raise UsageError(
            f"{run} is not whole: {'; '.join(wrong)}. "
            "Give their commands (again), or merge what is there with --partial"
        )


def _nothing_lost(target: RunFolder, finished: set[str]) -> None:
    """Refuse to replace predictions that no shard has."""
    own = {line.sample_id for line in target.iter_predictions() if line.error is None} - finished
    if own:
        raise UsageError(
            f"{target.path} has {len(own)} samples that its shards do not have, such as {min(own)}; move it away, "
            "or go on with it without --shard"
        )


def _copy(
    target: RunFolder, parts: Sequence[Part], lines: Mapping[str, Line], order: Iterable[str]
) -> None:
    """Predictions, users' states and logs, in the order in which one worker would have come to them."""
    order = [name for name in order if name in lines]
    _write(target, target.predictions_path, (lines[name] for name in order))
    states = _lines(parts, target.profiles_path.relative_to(target.path), {})
    used = dict.fromkeys(["", *(lines[name].head.profile or "" for name in order), *states])
    if states:
        _write(target, target.profiles_path, (states[key] for key in used if key in states))
    for part in parts:
        for path in sorted(part.folder.path.glob("states/*")):
            (target.path / "states").mkdir(exist_ok=True)
            shutil.copyfile(path, target.path / "states" / path.name)
        for path in sorted(part.folder.path.glob("attempts/*.log")):
            name = f"{part.record.shard}-of-{part.record.of}-{path.name}"
            shutil.copyfile(path, target.path / "attempts" / name)


def _judgements(
    target: RunFolder, parts: Sequence[Part], order: Iterable[str], owner: Mapping[str, int]
) -> None:
    """What each judge said, in the order of the data, which is that of judging."""
    for path in sorted(
        {path.relative_to(part.folder.path) for part in parts for path in _judged(part)}
    ):
        (target.path / path.parent).mkdir(exist_ok=True)
        judged = _lines(parts, path, owner)
        _write(target, target.path / path, (judged[name] for name in order if name in judged))


def _judged(part: Part) -> Iterable[Path]:
    return part.folder.path.glob("judgements/*.jsonl")


def _write(target: RunFolder, path: Path, lines: Iterable[Line]) -> None:
    with contextlib.ExitStack() as stack:
        file = stack.enter_context(target.replacing(path))
        sources: dict[Path, IO[bytes]] = {}
        for line in lines:
            if line.path not in sources:
                sources[line.path] = stack.enter_context(line.path.open("rb"))
            sources[line.path].seek(line.offset)
            file.write(sources[line.path].readline().decode())


def _combine(run: Path, summaries: Sequence[Summary]) -> Summary:
    """The first shard's summary, with the amounts of all shards added up."""
    if not summaries:
        raise DataError(
            f"no shard of {run} has a summary.json: none got that far; repeat their commands"
        )
    combined = summaries[0]
    for summary in summaries[1:]:
        if summary.judge != combined.judge:
            raise UsageError(
                f"{run}: its shards had different judges; give their commands again, alike"
            )
        sums = {name: _sum(getattr(combined, name), getattr(summary, name)) for name in ADDED}
        combined = msgspec.structs.replace(
            combined, provenance=combined.provenance | summary.provenance, **sums
        )
    now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    return msgspec.structs.replace(combined, time=now)


def _sum(one: Any, other: Any) -> Any:
    """Numbers, or mappings to numbers, added; None is nothing."""
    if one is None or other is None:
        return other if one is None else one
    if isinstance(one, Mapping):
        return {name: _sum(one.get(name), other.get(name)) for name in one | other}
    return one + other
