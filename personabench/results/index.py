"""Find and read the runs under a results folder, published results included."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path

import msgspec

from personabench.errors import UsageError
from personabench.results import published
from personabench.results.run import Run as Run
from personabench.results.run_folder import RunFolder
from personabench.results.summary import Summary
from personabench.types import Sampling

SCORER = "official"

# A shorter prefix of a fingerprint is more likely a typing error than the name of a run.
MIN_PREFIX = 4


def read_run(folder: Path) -> Run:
    """Read the summary of a run folder.

    Raises:
        DataError: there is none, or it is damaged.
    """
    return Run(RunFolder(folder).summary(), folder)


def read_published(path: Path) -> Run:
    """Read a published result.

    Raises:
        DataError: the file is damaged.
    """
    content = published.read(path)
    return Run(content.summary, path, content.spec)


def find_any_run(name: str, results: Path) -> Run:
    """Find a run by its folder, the start of its fingerprint, "last" or its published file.

    Raises:
        UsageError: no run, or more than one, fits.
        DataError: a file is damaged.
    """
    path = Path(name)
    if path.suffix == ".json" and path.is_file():
        return read_published(path)

    matches = []
    if len(name) >= MIN_PREFIX:
        matches = [
            run for run in read_published_runs(results) if run.summary.fingerprint.startswith(name)
        ]

    # A run on disk has more to show than the published result of the same run.
    on_disk = list(results.glob(f"runs/*/*/*/{name[:8]}*"))
    if len(matches) == 1 and not on_disk:
        return matches[0]
    return read_run(find_run(name, results).path)


def find_run(name: str, results: Path) -> RunFolder:
    """Find a run folder by its path, the start of its fingerprint, or "last".

    Raises:
        UsageError: no run, or more than one, fits.
    """
    if (Path(name) / "spec.json").is_file():
        return RunFolder(Path(name))

    specs = results.glob("runs/*/*/*/*/spec.json")
    folders = [path.parent for path in sorted(specs, key=lambda path: path.stat().st_mtime)]

    if name == "last":
        finished = [folder for folder in folders if (folder / "summary.json").is_file()]
        if not finished:
            raise UsageError(f"no runs under {results}/runs; make one with `personabench run`")
        return RunFolder(finished[-1])

    matches = []
    if len(name) >= MIN_PREFIX:
        matches = [folder for folder in folders if folder.name.startswith(name[:8])]
    if len(matches) != 1:
        problem = "several runs match" if matches else "no run matches"
        raise UsageError(
            f"{problem} '{name}' under {results}/runs; `personabench list runs` lists them"
        )
    return RunFolder(matches[0])


def read_runs(results: Path) -> list[Run]:
    """Read every run under a results folder, oldest first.

    Raises:
        DataError: a summary is damaged; the message names the file and the field.
    """
    paths = sorted(results.glob("runs/*/*/*/*/summary.json"))
    return _sort_by_time([read_run(path.parent) for path in paths])


def read_published_runs(results: Path) -> list[Run]:
    """Read every published result under a results folder, oldest first.

    Raises:
        DataError: a file is damaged; the message names the file and the field.
    """
    paths = sorted(results.glob("reference/*.json"))
    return _sort_by_time([read_published(path) for path in paths])


def read_chosen(results: Path, *, with_reference: bool) -> list[Run]:
    """Read the runs of a results folder, with its published results only on request.

    Raises:
        DataError: a file is damaged; the message names the file and the field.
    """
    return read_all(results) if with_reference else read_runs(results)


def suggest_runs(results: Path) -> str:
    """Say how to get runs where there are none: run a method, or ask for published results."""
    hint = "make one with `personabench run`"
    published = len(list(results.glob("reference/*.json")))
    if published:
        results_word = "result" if published == 1 else "results"
        hint += f", or show the {published} published {results_word} with --with-reference"
    return hint


def read_all(results: Path) -> list[Run]:
    """Read runs and published results, oldest first; if a run is both, only the run."""
    runs = read_runs(results)
    fingerprints = {run.summary.fingerprint for run in runs}
    only_published = [
        run for run in read_published_runs(results) if run.summary.fingerprint not in fingerprints
    ]
    return _sort_by_time([*only_published, *runs])


def _sort_by_time(runs: Sequence[Run]) -> list[Run]:
    return sorted(runs, key=lambda run: run.summary.time)


def label(summary: Summary) -> str:
    """Name a run as boards do: its method, and every setting that is not at its default."""
    return make_label(summary, seed=True)


USERS = "--users"
"""The order of users, among the settings that the rows of a board share."""


def make_label(
    summary: Summary,
    *,
    seed: bool,
    setting: bool = True,
    suffixes: Sequence[str] = (),
    common: Collection[str] = (),
) -> str:
    """Name a run.

    Args:
        seed: name the seed, unless it is 0.
        setting: name task options and decoding.
        suffixes: further settings to name.
        common: task options, and `USERS`, to leave out, because all rows of the board share them.
    """
    parts = [f"{key}={value}" for key, value in summary.changed.items()]
    if setting:
        parts += [
            f"task.{key}={value}"
            for key, value in summary.task_changed.items()
            if key not in common
        ]
    if summary.history != "own":
        parts.append(f"history={summary.history}")
    if setting:
        if summary.selection and USERS not in common:
            parts.append(f"users={summary.selection}")
        parts += _changed_sampling(summary.sampling)
    parts += suffixes
    if seed and summary.seed:
        parts.append(f"seed={summary.seed}")

    if not parts:
        return summary.method
    return f"{summary.method} ({', '.join(parts)})"


def _changed_sampling(sampling: Sampling) -> list[str]:
    values = msgspec.structs.asdict(sampling)
    defaults = msgspec.structs.asdict(Sampling())
    return [f"{name}={values[name]}" for name in defaults if values[name] != defaults[name]]
