"""Run shards as Ray tasks, on an existing cluster or on this machine.

Ray schedules the shards and restarts lost ones. A shard works in its own results folder (`shards`);
if the results are at a URL (anything fsspec supports), it works on a copy, which is uploaded when
the shard ends. Finally the shards are merged on this machine, so the result is the run that the
command without Ray would have made.
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
from personabench.models.environment import OFFLINE, is_offline
from personabench.run import runner
from personabench.run.merge import find_shards, merge_shards
from personabench.run.options import Options
from personabench.run.runner import Outcome
from personabench.run.shards import Shard

# Seconds that shards get to finish calls in flight after an interrupt.
GRACE = 60.0


@dataclass(frozen=True)
class ShardReport:
    """The outcome of a shard.

    Attributes:
        runs: paths of its runs in the results folder, `runs/<task>/...`.
        done, pending: number of samples.
        error, exit_code: the message and the exit code of an error.
    """

    runs: tuple[Path, ...] = ()
    done: int = 0
    pending: int = 0
    interrupted: bool = False
    error: str = ""
    exit_code: int = 0


@dataclass
class RayExecutor:
    """Runs all shards of a command as Ray tasks.

    Attributes:
        shards: number of shards.
        results: the results folder, or its URL.
        task_options: options of each shard's Ray task, such as `num_gpus`.
        local_results: the folder of the merged runs: the results folder, or a copy of the URL's.
    """

    shards: int
    results: str
    task_options: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if is_offline():
            raise UsageError(
                f"--executor ray cannot be used offline ({OFFLINE}): its workers may be on other "
                "machines; use --shard i/n and `personabench merge`, or repeat without --offline"
            )
        if is_url(self.results):
            # Raises before the first call if the URL cannot be used.
            open_url(self.results)
            self._temporary = tempfile.TemporaryDirectory(prefix="personabench-")
            self.local_results = Path(self._temporary.name)
        else:
            self.results = str(Path(self.results).resolve())
            self.local_results = Path(self.results)

    def locate(self, folder: Path) -> str:
        """Return the path or URL at which others find a run folder of `local_results`."""
        relative = folder.relative_to(self.local_results).as_posix()
        return f"{self.results.rstrip('/')}/{relative}"

    def run(
        self, options_by_seed: Sequence[Options], report_line: Callable[[str], None]
    ) -> list[Outcome]:
        """Run every shard, then merge.

        Args:
            report_line: prints a line for each shard that ends.

        Raises:
            UsageError: Ray is not installed, or the options are wrong.
            RunError: a shard failed; finished samples are kept.
            KeyboardInterrupt: interrupted; calls in flight were finished and are kept.
        """
        try:
            import ray
        except ImportError as error:
            raise UsageError(
                "--executor ray needs Ray: pip install 'personabench-harness[ray]'"
            ) from error

        started = not ray.is_initialized()
        if started:
            ray.init(log_to_driver=False, logging_level=logging.WARNING)
        try:
            tasks = self._submit(
                ray, [_with_absolute_paths(options) for options in options_by_seed]
            )
            reports = self._collect(ray, tasks, report_line)
        finally:
            if started:
                ray.shutdown()

        _raise_errors(reports)
        runs = dict.fromkeys(run for report in reports.values() for run in report.runs)
        return self._merge(list(runs), options_by_seed)

    def _submit(self, ray: Any, options_by_seed: Sequence[Options]) -> dict[Any, Shard]:
        try:
            task = ray.remote(run_shard).options(**self.task_options)
        except (TypeError, ValueError) as error:
            raise UsageError(f"--ray-options: {error}") from error
        shards = [Shard(number, self.shards) for number in range(1, self.shards + 1)]
        return {task.remote(options_by_seed, shard, self.results): shard for shard in shards}

    def _collect(
        self, ray: Any, tasks: Mapping[Any, Shard], report_line: Callable[[str], None]
    ) -> dict[Shard, ShardReport]:
        """Wait for all shards and return their reports, in the order of shards."""
        reports: dict[Shard, ShardReport] = {}
        pending = list(tasks)
        try:
            while pending:
                (ended,), pending = ray.wait(pending, num_returns=1)
                report = _get_report(ray, ended)
                reports[tasks[ended]] = report
                outcome = f", {report.done} samples done, {report.pending} owed"
                if report.error:
                    outcome = f": {report.error}"
                report_line(f"shard {tasks[ended]}{outcome}")
        except KeyboardInterrupt:
            report_line("stopping when calls in flight are finished; the same command continues")
            for task in pending:
                ray.cancel(task)
            ray.wait(pending, num_returns=len(pending), timeout=GRACE)
            raise

        if any(report.interrupted for report in reports.values()):
            raise KeyboardInterrupt
        return dict(sorted(reports.items(), key=lambda item: item[0].number))

    def _merge(self, runs: Sequence[Path], options_by_seed: Sequence[Options]) -> list[Outcome]:
        options = options_by_seed[0]
        # A task from a file is registered under its name, by which shards refer to it.
        for name in options.tasks:
            registry.load_class("task", name)

        shared = ["cache.sqlite", *(run.as_posix() for run in runs)]
        if is_url(self.results):
            shard_folders = [
                Shard(number, self.shards).results(Path()).as_posix()
                for number in range(1, self.shards + 1)
            ]
            file_system, root = open_url(self.results)
            for name in (*shared, *shard_folders):
                _download(file_system, f"{root}/{name}", self.local_results / name)

        shards_by_run = find_shards(self.local_results)
        outcomes = [
            merge_shards(
                self.local_results,
                run,
                shards_by_run[run],
                of=self.shards,
                partial=True,
                data=None,
                metrics=options.metrics,
            )
            for run in runs
        ]
        if is_url(self.results):
            for name in shared:
                _upload(file_system, self.local_results / name, f"{root}/{name}")
        return outcomes


def _raise_errors(reports: Mapping[Shard, ShardReport]) -> None:
    """Raise one error for all shards that failed.

    Raises:
        UsageError: all of them have wrong options or data.
        RunError: at least one failed otherwise.
    """
    failed = {shard: report for shard, report in reports.items() if report.error}
    if not failed:
        return
    messages = dict.fromkeys(report.error for report in failed.values())
    text = (
        f"shard {', '.join(map(str, failed))}: {'; '.join(messages)}\n"
        "Finished samples are kept; repeat the command to go on"
    )
    if all(report.exit_code == UsageError.exit_code for report in failed.values()):
        raise UsageError(text)
    raise RunError(text)


def is_url(results: str) -> bool:
    """Whether results are at a URL."""
    return "://" in results


def run_shard(options_by_seed: Sequence[Options], shard: Shard, results: str) -> ShardReport:
    """Run one shard, on the machine that Ray chose."""
    try:
        with _shard_results(results, shard) as folder:
            shard_options = [_for_shard(options, shard, folder) for options in options_by_seed]
            outcomes = asyncio.run(runner.run(*shard_options))
            return ShardReport(
                tuple(outcome.folder.relative_to(folder) for outcome in outcomes),
                sum(outcome.summary.n for outcome in outcomes),
                sum(outcome.summary.owed for outcome in outcomes),
                any(outcome.interrupted for outcome in outcomes),
            )
    except PersonabenchError as error:
        return ShardReport(error=str(error), exit_code=error.exit_code)
    except KeyboardInterrupt:
        return ShardReport(interrupted=True)


def _for_shard(options: Options, shard: Shard, folder: Path) -> Options:
    """The options of one shard, with everything it writes in its own folder."""
    backend_options = options.backend_options
    if backend_options.batch:
        batch = folder / backend_options.batch.name
        backend_options = dataclasses.replace(backend_options, batch=batch)
    return dataclasses.replace(
        options, results=folder, shard=shard, backend_options=backend_options
    )


@contextmanager
def _shard_results(results: str, shard: Shard) -> Iterator[Path]:
    """Yield the shard's results folder on this machine; of a URL, a copy that is uploaded."""
    if not is_url(results):
        yield shard.results(Path(results))
        return

    file_system, root = open_url(results)
    remote = f"{root}/{shard.results(Path()).as_posix()}"
    with tempfile.TemporaryDirectory(prefix="personabench-") as temporary:
        local = Path(temporary, "results")
        _download(file_system, remote, local)
        try:
            yield local
        finally:
            # Also after an error: finished samples were paid for.
            _upload(file_system, local, remote)


def _get_report(ray: Any, task: Any) -> ShardReport:
    try:
        report: ShardReport = ray.get(task)
    except ray.exceptions.TaskCancelledError:
        return ShardReport(interrupted=True)
    except ray.exceptions.RayError as error:
        return ShardReport(error=str(error).strip(), exit_code=RunError.exit_code)
    return report


def _with_absolute_paths(options: Options) -> Options:
    """Make local paths absolute, since workers have another current folder."""
    roles = {
        role: (backend, _with_absolute_model(role_options))
        for role, (backend, role_options) in options.roles.items()
    }
    return dataclasses.replace(
        options,
        methods=[_absolute_method(name) for name in options.methods],
        tasks=[_absolute_plugin(name) for name in options.tasks],
        data=options.data and options.data.resolve(),
        backend_options=_with_absolute_model(options.backend_options),
        roles=roles,
    )


def _absolute_method(name: str) -> str:
    parts = registry.split_composed("method", name)
    return "+".join(map(_absolute_plugin, parts or [name]))


def _absolute_plugin(name: str) -> str:
    return str(Path(name).absolute()) if ".py" in name else name


def _with_absolute_model(options: BackendOptions) -> BackendOptions:
    # A name that is no file here is the name of a model.
    if options.model is None or not Path(options.model).exists():
        return options
    return dataclasses.replace(options, model=str(Path(options.model).absolute()))


def open_url(url: str) -> tuple[Any, str]:
    """Return the fsspec file system of a URL, and the path in it.

    Raises:
        UsageError: the URL's protocol is unknown, or needs a package that is not installed.
    """
    import fsspec

    try:
        file_system, root = fsspec.core.url_to_fs(url)
    except (ImportError, ValueError) as error:
        raise UsageError(f"--results {url}: {error}") from error
    return file_system, root.rstrip("/")


def _download(file_system: Any, remote: str, local: Path) -> None:
    if file_system.isdir(remote):
        local.mkdir(parents=True, exist_ok=True)
        file_system.get(f"{remote}/", f"{local}/", recursive=True)
    elif file_system.exists(remote):
        file_system.get_file(remote, str(local))


def _upload(file_system: Any, local: Path, remote: str) -> None:
    if local.is_dir():
        file_system.makedirs(remote, exist_ok=True)
        file_system.put(f"{local}/", f"{remote}/", recursive=True)
    elif local.exists():
        file_system.put_file(str(local), remote)
