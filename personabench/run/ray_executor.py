"""Shards as Ray tasks: a run spread over a cluster that exists, or over this machine.

Ray does the scheduling and starts lost shards again.  A shard works in its own results folder (`shards`); where the
results are a URL (anything fsspec knows), it works on a copy that goes back when it ends.  When all shards are done
they are merged here, so the result is the run that the command without Ray would have made.
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from personabench.api import registry
from personabench.errors import PersonabenchError, RunError, UsageError
from personabench.models.backends.base import BackendOptions
from personabench.run import runner
from personabench.run.merge import find_shards, merge_shards
from personabench.run.options import Options
from personabench.run.runner import Outcome
from personabench.run.shards import Shard

GRACE = 60.0


@dataclass(frozen=True)
class Report:
    """How a shard ended: its runs (`runs/<task>/...`), samples done and owed, and the error with its exit code."""

    runs: tuple[Path, ...] = ()
    done: int = 0
    owed: int = 0
    interrupted: bool = False
    error: str = ""
    code: int = 0


@dataclass
class OnRay:
    """Where shards go: how many, the results' folder or URL, and the options of each shard's Ray task.

    `here` is a local folder that holds the merged runs: the results folder itself, or a copy of a URL's.
    """

    shards: int
    results: str
    task_options: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if remote(self.results):
            _reached(self.results)
            self._scratch = tempfile.TemporaryDirectory(prefix="personabench-")
            self.here = Path(self._scratch.name)
        else:
            self.results = str(Path(self.results).resolve())
            self.here = Path(self.results)

    def place(self, folder: Path) -> str:
        """Where a run folder under `here` is for everybody else."""
        return f"{self.results.rstrip('/')}/{folder.relative_to(self.here).as_posix()}"

    def run(self, several: Sequence[Options], say: Callable[[str], None]) -> list[Outcome]:
        """Run every shard, then merge; `say` is told of each shard that ends.

        Raises:
            UsageError: Ray is not installed, or nothing could be run as asked.
            RunError: a shard failed; what is finished is kept.
            KeyboardInterrupt: interrupted; what was in flight was let finish and is kept.
        """
        try:
            import ray
        except ImportError as error:
            raise UsageError(
                "--executor ray needs Ray: pip install 'personabench-harness[ray]'"
            ) from error
        asked = [_everywhere(each) for each in several]
        shards = [Shard(number, self.shards) for number in range(1, self.shards + 1)]
        started = not ray.is_initialized()
        if started:
            ray.init(log_to_driver=False, logging_level=logging.WARNING)
        try:
            try:
                task = ray.remote(work).options(**self.task_options)
            except (TypeError, ValueError) as error:
                raise UsageError(f"--ray-options: {error}") from error
            reports = self._gather(
                ray, {task.remote(asked, shard, self.results): shard for shard in shards}, say
            )
        finally:
            if started:
                ray.shutdown()
        wrong = {shard: report for shard, report in reports.items() if report.error}
        if wrong:
            kind = (
                UsageError
                if all(report.code == UsageError.exit_code for report in wrong.values())
                else RunError
            )
            said = dict.fromkeys(report.error for report in wrong.values())
            which = ", ".join(map(str, sorted(wrong, key=lambda shard: shard.number)))
            raise kind(
                f"shard {which}: {'; '.join(said)}\nWhat is finished is kept; repeat the command to go on"
            )
        return self._merge(
            list(dict.fromkeys(run for report in reports.values() for run in report.runs)), several
        )

    def _gather(
        self, ray: Any, tasks: Mapping[Any, Shard], say: Callable[[str], None]
    ) -> dict[Shard, Report]:
        reports: dict[Shard, Report] = {}
        pending = list(tasks)
        try:
            while pending:
                (ended,), pending = ray.wait(pending, num_returns=1)
                report = reports[tasks[ended]] = _heard(ray, ended)
                how = (
                    f": {report.error}"
                    if report.error
                    else f", {report.done} samples done, {report.owed} owed"
                )
                say(f"shard {tasks[ended]}{how}")
        except KeyboardInterrupt:
            say("stopping when what is in flight is done; the same command goes on")
            for each in pending:
                ray.cancel(each)
            ray.wait(pending, num_returns=len(pending), timeout=GRACE)
            raise
        if any(report.interrupted for report in reports.values()):
            raise KeyboardInterrupt
        return dict(sorted(reports.items(), key=lambda item: item[0].number))

    def _merge(self, runs: Sequence[Path], several: Sequence[Options]) -> list[Outcome]:
        for name in several[0].tasks:
            registry.load_class("task", name)
        if remote(self.results):
            system, root = _reached(self.results)
            for name in ("cache.sqlite", *map(Path.as_posix, runs)):
                _fetch(system, f"{root}/{name}", self.here / name)
            for number in range(1, self.shards + 1):
                shard = Shard(number, self.shards).results(Path())
                _fetch(system, f"{root}/{shard.as_posix()}", self.here / shard)
        parts = find_shards(self.here)
        how: Any = {"of": self.shards, "partial": True, "data": None, "metrics": several[0].metrics}
        outcomes = [merge_shards(self.here, run, parts[run], **how) for run in runs]
        if remote(self.results):
            for name in ("cache.sqlite", *map(Path.as_posix, runs)):
                _store(system, self.here / name, f"{root}/{name}")
        return outcomes


def remote(results: str) -> bool:
    """Whether results are at a URL."""
    return "://" in results


def work(several: Sequence[Options], shard: Shard, results: str) -> Report:
    """One shard, on whatever machine this is."""
    try:
        with _workplace(results, shard) as place:
            own = [_in(place, each, shard) for each in several]
            outcomes = asyncio.run(runner.run(*own))
            return Report(
                tuple(outcome.folder.relative_to(place) for outcome in outcomes),
                sum(outcome.summary.n for outcome in outcomes),
                sum(outcome.summary.owed for outcome in outcomes),
                any(outcome.interrupted for outcome in outcomes),
            )
    except PersonabenchError as error:
        return Report(error=str(error), code=error.exit_code)
    except KeyboardInterrupt:
        return Report(interrupted=True)


def _in(place: Path, options: Options, shard: Shard) -> Options:
    """What one shard is asked for, kept in its own folder."""
    backend = options.backend_options
    batches = backend.batch and place / backend.batch.name
    return dataclasses.replace(
        options,
        results=place,
        shard=shard,
        backend_options=dataclasses.replace(backend, batch=batches),
    )


@contextmanager
def _workplace(results: str, shard: Shard) -> Iterator[Path]:
    """The shard's results folder on this machine; what is at a URL is fetched before, stored after."""
    if not remote(results):
        yield shard.results(Path(results))
        return
    system, root = _reached(results)
    there = f"{root}/{shard.results(Path()).as_posix()}"
    with tempfile.TemporaryDirectory(prefix="personabench-") as scratch:
        here = Path(scratch, "results")
        _fetch(system, there, here)
        try:
            yield here
        finally:
            _store(system, here, there)


def _heard(ray: Any, task: Any) -> Report:
    try:
        report: Report = ray.get(task)
    except ray.exceptions.TaskCancelledError:
        return Report(interrupted=True)
    except ray.exceptions.RayError as error:
        return Report(error=str(error).strip(), code=RunError.exit_code)
    return report


def _everywhere(options: Options) -> Options:
    """Options whose local paths are whole, so that they mean the same in another folder."""

    def whole(name: str) -> str:
        return str(Path(name).absolute()) if ".py" in name else name

    def model(own: BackendOptions) -> BackendOptions:
        there = own.model is not None and Path(own.model).exists()
        return (
            dataclasses.replace(own, model=str(Path(str(own.model)).absolute())) if there else own
        )

    return dataclasses.replace(
        options,
        methods=[whole(name) for name in options.methods],
        tasks=[whole(name) for name in options.tasks],
        data=options.data and options.data.resolve(),
        backend_options=model(options.backend_options),
        roles={role: (name, model(own)) for role, (name, own) in options.roles.items()},
    )


def _reached(url: str) -> tuple[Any, str]:
    """The file system of a URL and the path in it."""
    import fsspec

    try:
        system, root = fsspec.core.url_to_fs(url)
    except (ImportError, ValueError) as error:
        raise UsageError(f"--results {url}: {error}") from error
    return system, root.rstrip("/")


def _fetch(system: Any, there: str, here: Path) -> None:
    if system.isdir(there):
        here.mkdir(parents=True, exist_ok=True)
        system.get(f"{there}/", f"{here}/", recursive=True)
    elif system.exists(there):
        system.get_file(there, str(here))


def _store(system: Any, here: Path, there: str) -> None:
    if here.is_dir():
        system.makedirs(there, exist_ok=True)
        system.put(f"{here}/", f"{there}/", recursive=True)
    elif here.exists():
        system.put_file(str(here), there)
