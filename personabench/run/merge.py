"""Join shards into the run folder that the command without `--shard` would have written.

Lines are copied byte for byte, in the order in which a single process would have written them:
that of the selected users. Scores and summary are computed from them as for every run. The merged
run differs from the unsplit one only in times, in its attempts, and in `cached`, if several shards
paid for a call that a single process makes once.
"""

from __future__ import annotations

import contextlib
import logging
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import msgspec
from filelock import FileLock, Timeout

from personabench.api import registry
from personabench.api.dataset import Dataset
from personabench.api.task import Task
from personabench.api.users import open_split
from personabench.errors import DataError, UsageError
from personabench.models.cache import Cache
from personabench.results.run_folder import RUN_FILE, RunFolder
from personabench.results.spec import RunSpec
from personabench.results.summary import Summary
from personabench.run.controls import apply_control
from personabench.run.run_facts import external_metrics
from personabench.run.runner import Outcome
from personabench.run.scoring import score_run
from personabench.run.selection import select
from personabench.run.shard_file import SHARD_FILE, ShardOptions
from personabench.run.shard_lines import Line, ShardRun, index_lines, write_lines
from personabench.run.shards import Shard, partition
from personabench.types import from_json, to_json

_log = logging.getLogger("personabench.merging")

# Fields of a summary, beside the scores, that are sums over the shards.
_SUMMED_FIELDS = ("seconds", "durations", "spent", "prefix_cache", "judge_errors")


def find_shards(results: Path) -> dict[Path, list[ShardRun]]:
    """Find the shards under a results folder, by run (`runs/<task>/<method>/<model>/<hash>`).

    Raises:
        DataError: a `shard.json` is damaged.
    """
    shards_by_run: dict[Path, list[ShardRun]] = {}
    for path in sorted(results.glob(f"shards/*-of-*/runs/*/*/*/*/{SHARD_FILE}")):
        try:
            options = from_json(path.read_bytes(), ShardOptions)
        except msgspec.MsgspecError as error:
            raise DataError(f"{path} is damaged ({error}); repeat the shard's command") from error
        # The run's path in the shard's results folder is its path in the whole one.
        run = Path(*path.parent.parts[-5:])
        shards_by_run.setdefault(run, []).append(ShardRun(RunFolder(path.parent), options))

    for shards in shards_by_run.values():
        shards.sort(key=lambda shard: (shard.options.of, shard.options.shard))
    return dict(sorted(shards_by_run.items()))


def merge_shards(
    results: Path,
    run: Path,
    shards: Sequence[ShardRun],
    *,
    of: int | None = None,
    partial: bool = False,
    data: Path | None,
    metrics: Sequence[str] = (),
) -> Outcome:
    """Write and score the run that was split, in `results / run`.

    Args:
        of: the number of shards, if the run was split in several ways.
        partial: merge even if shards or samples are missing.
        data: the folder of the data, if it was moved.
        metrics: metrics beside the task's own. Those of the shards are not computed unless they are
            named here: a metric's name may be a script, and files in a results folder are never
            executed.

    Raises:
        UsageError: the shards do not belong together, are incomplete, or one is still running.
        DataError: a file is missing or damaged, or the data or the task has changed.
    """
    shards = _choose_split(run, shards, of)
    with contextlib.ExitStack() as stack:
        for shard in shards:
            stack.enter_context(_locked(run, shard))

        spec, options = _shared_options(run, shards)
        data_folder = str(data) if data else options.data
        task, dataset = _open_data(to_json(options), to_json(spec), data_folder)
        _warn_about_metrics(run, options.metrics, metrics)

        owners = _assign_samples(dataset, options)
        lines = index_lines(shards, Path("predictions.jsonl"), owners)
        finished = {sample_id for sample_id, line in lines.items() if line.head.error is None}
        target = RunFolder(results / run)
        if not partial:
            _require_complete(run, shards, owners, finished)
        _require_no_loss(target, finished)
        # Without --partial a shard that was never scored is an error.
        scored_shards = [shard for shard in shards if shard.has_summary or not partial]
        combined = _add_up(run, [shard.folder.summary() for shard in scored_shards])

        target.start(spec)
        stack.callback(target.close)
        sample_ids = [sample_id for sample_id, _ in dataset.index()]
        # Samples of an earlier, larger limit come last.
        earlier = [name for name in sample_ids if name in lines and name not in owners]
        _copy_run_file(target, shards[0].folder)
        _copy_predictions(target, shards, lines, [*owners, *earlier])
        _copy_judgements(target, shards, sample_ids, owners)

        positions = [
            position
            for position, sample_id in enumerate(sample_ids)
            if sample_id in owners or sample_id in finished
        ]
        extra_metrics = external_metrics(target, dataset, positions, metrics)
        summary = score_run(
            target,
            task,
            dataset,
            spec,
            positions,
            seconds=combined.seconds,
            facts=msgspec.structs.replace(combined, extra_metrics=extra_metrics),
        )
        _merge_caches(results, shards)
    return Outcome(target.path, summary)


def _choose_split(run: Path, shards: Sequence[ShardRun], of: int | None) -> list[ShardRun]:
    """Choose the shards of one way to split the run."""
    splits = sorted({shard.options.of for shard in shards})
    described = " and by ".join(map(str, splits))
    if of is None and len(splits) > 1:
        raise UsageError(f"{run} was split by {described}; choose one with --shards")

    chosen = [shard for shard in shards if of in (None, shard.options.of)]
    if not chosen:
        raise UsageError(f"{run} was not split by {of} but by {described}")
    return chosen


@contextlib.contextmanager
def _locked(run: Path, shard: ShardRun) -> Iterator[None]:
    """Keep a shard from being changed while it is merged."""
    lock = FileLock(shard.folder.path / "lock", timeout=0)
    try:
        lock.acquire()
    except Timeout as error:
        raise UsageError(f"shard {shard} of {run} is still running; wait for it") from error
    try:
        yield
    finally:
        lock.release()


def _shared_options(run: Path, shards: Sequence[ShardRun]) -> tuple[RunSpec, ShardOptions]:
    """Read the spec and the options that all shards must share."""
    first = shards[0]
    spec = first.folder.spec()
    for shard in shards[1:]:
        if shard.folder.spec() != spec:
            raise UsageError(
                f"{run}: shards {first} and {shard} are of different runs; move one of them away"
            )
        compared = (
            ("--limit", first.options.limit, shard.options.limit),
            ("--users", first.options.users, shard.options.users),
            ("the order of users", first.options.longest, shard.options.longest),
            ("the seed that draws users", first.options.draw, shard.options.draw),
            ("--metric", first.options.metrics, shard.options.metrics),
            ("the task's parameters", first.options.params, shard.options.params),
        )
        for name, first_value, value in compared:
            if first_value != value:
                raise UsageError(
                    f"{run}: shards {first} and {shard} differ in {name} ({first_value}, {value}); "
                    "repeat both commands with the same options"
                )
    return spec, first.options


# Runs of one task share its data. JSON serves as the key, since structs with mappings have no hash.
@lru_cache(maxsize=1)
def _open_data(options_json: str, spec_json: str, data: str | None) -> tuple[Task, Dataset]:
    """Open a run's task, and its data as the run saw it.

    Raises:
        DataError: the data was moved, or the data or the task has changed.
    """
    options = from_json(options_json, ShardOptions)
    spec = from_json(spec_json, RunSpec)
    cls = registry.load_recorded("task", spec.task, spec.task_hash)
    task = cls(msgspec.convert(options.params, cls.Params))
    if data is not None and not Path(data).exists():
        raise DataError(
            f"the data of {spec.task} is no longer in {data}; name its folder with --data"
        )

    split = open_split(task, options.split, None if data is None else Path(data))
    dataset = apply_control(split, spec.history, spec.seed)
    same_task = task.version == spec.task_version and registry.source_hash(cls) == spec.task_hash
    if dataset.hash != spec.data_hash or not same_task:
        changed = "task" if dataset.hash == spec.data_hash else "data"
        raise DataError(
            f"the {changed} of {spec.task} has changed since its shards ran; they can only be run "
            f"again{spec.version_note}"
        )
    return task, dataset


def _warn_about_metrics(run: Path, requested: Sequence[str], computed: Sequence[str]) -> None:
    omitted = sorted(set(requested) - set(computed))
    if omitted:
        _log.warning(
            "%s: metrics of the shards are left out unless they are named again: --metric %s",
            run,
            ", ".join(omitted),
        )


def _assign_samples(dataset: Dataset, options: ShardOptions) -> dict[str, int]:
    """Map the selected samples to their shards, in the order of a single process."""
    index = dataset.index()
    positions = select(dataset, options.limit, options.draw, options.users, longest=options.longest)
    shard_of = partition(dataset, positions, options.of)
    return {index[position][0]: number for position, number in shard_of.items()}


def _require_complete(
    run: Path, shards: Sequence[ShardRun], owners: Mapping[str, int], finished: set[str]
) -> None:
    """Refuse shards that did not run or have pending samples."""
    of = shards[0].options.of
    pending = {shard.options.shard: 0 for shard in shards}
    for sample_id, number in owners.items():
        if number in pending and sample_id not in finished:
            pending[number] += 1

    problems = []
    absent = [str(Shard(number, of)) for number in range(1, of + 1) if number not in pending]
    if absent:
        noun = "shards" if len(absent) > 1 else "shard"
        problems.append(f"{noun} {', '.join(absent)} did not run")
    for number, count in pending.items():
        if count:
            problems.append(f"shard {number}/{of} has {count} pending samples")
    if problems:
        raise UsageError(
            f"{run} is not complete: {'; '.join(problems)}. Repeat their commands, or merge "
            "incomplete shards with --partial"
        )


def _require_no_loss(target: RunFolder, finished: set[str]) -> None:
    """Refuse to replace predictions that no shard has."""
    predictions = target.iter_predictions()
    answered = {prediction.sample_id for prediction in predictions if prediction.error is None}
    lost = answered - finished
    if lost:
        raise UsageError(
            f"{target.path} has {len(lost)} samples that its shards do not have, such as "
            f"{min(lost)}; move it away, or continue it without --shard"
        )


def _copy_run_file(target: RunFolder, shard: RunFolder) -> None:
    """Copy the options of a shard without its part: all shards have the same ones."""
    path = shard.path / RUN_FILE
    # Callers of the library and earlier versions write none.
    if path.exists():
        lines = path.read_text(encoding="utf-8").splitlines()
        target.write_run_file("\n".join(line for line in lines if not line.startswith("shard =")))


def _copy_predictions(
    target: RunFolder,
    shards: Sequence[ShardRun],
    lines: Mapping[str, Line],
    sample_ids: Sequence[str],
) -> None:
    """Copy predictions, profiles, rounds and logs.

    Args:
        lines: the line of each sample that has one.
        sample_ids: in the order in which a single process would have answered them.
    """
    answered = [sample_id for sample_id in sample_ids if sample_id in lines]
    write_lines(target, target.predictions_path, (lines[sample_id] for sample_id in answered))

    profiles = index_lines(shards, target.profiles_path.relative_to(target.path), {})
    if profiles:
        # Profiles were stored in the order of their first use. The empty key is the method's
        # `prepare`, which comes first, and profiles that no prediction uses come last.
        used = [lines[sample_id].head.profile or "" for sample_id in answered]
        keys = dict.fromkeys(["", *used, *profiles])
        write_lines(
            target, target.profiles_path, (profiles[key] for key in keys if key in profiles)
        )

    for shard in shards:
        for path in sorted(shard.folder.rounds.path.glob("*")):
            target.rounds.path.mkdir(exist_ok=True)
            shutil.copyfile(path, target.rounds.path / path.name)
        for path in sorted(shard.folder.path.glob("attempts/*.log")):
            name = f"{shard.options.shard}-of-{shard.options.of}-{path.name}"
            shutil.copyfile(path, target.path / "attempts" / name)


def _copy_judgements(
    target: RunFolder,
    shards: Sequence[ShardRun],
    sample_ids: Sequence[str],
    owners: Mapping[str, int],
) -> None:
    """Copy the judgements of every judge, in file order, which is the order of judging."""
    judge_files = set()
    for shard in shards:
        for path in shard.folder.path.glob("judgements/*.jsonl"):
            judge_files.add(path.relative_to(shard.folder.path))

    for judge_file in sorted(judge_files):
        path = target.path / judge_file
        path.parent.mkdir(exist_ok=True)
        judgements = index_lines(shards, judge_file, owners)
        ordered = [judgements[name] for name in sample_ids if name in judgements]
        write_lines(target, path, ordered)


def _add_up(run: Path, summaries: Sequence[Summary]) -> Summary:
    """Return the first shard's summary with the amounts of all shards added up."""
    if not summaries:
        raise DataError(
            f"no shard of {run} has a summary.json, so none was scored; repeat their commands"
        )

    combined = summaries[0]
    for summary in summaries[1:]:
        if summary.judge != combined.judge:
            raise UsageError(
                f"{run}: the shards have different judges; repeat their commands with the same one"
            )
        sums = {
            name: _add(getattr(combined, name), getattr(summary, name)) for name in _SUMMED_FIELDS
        }
        provenance = combined.provenance | summary.provenance
        combined = msgspec.structs.replace(combined, provenance=provenance, **sums)

    now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    return msgspec.structs.replace(combined, time=now)


def _add(a: Any, b: Any) -> Any:
    """Add two numbers, or two mappings to numbers; None counts as nothing."""
    if a is None or b is None:
        return b if a is None else a
    if isinstance(a, Mapping):
        return {name: _add(a.get(name), b.get(name)) for name in a | b}
    return a + b


def _merge_caches(results: Path, shards: Sequence[ShardRun]) -> None:
    """Add the shards' stored responses to the common cache."""
    paths = [shard.folder.path.parents[4] / "cache.sqlite" for shard in shards]
    paths = [path for path in paths if path.exists()]
    if not paths:
        return
    with contextlib.closing(Cache(results / "cache.sqlite", writing=True)) as cache:
        for path in paths:
            try:
                cache.absorb(path)
            except DataError as error:
                _log.warning("%s; the run is merged without it", error)
