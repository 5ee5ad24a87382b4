"""Find and read the runs under a results folder, published results included."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from personabench.errors import DataError
from personabench.results import published
from personabench.results.run_folder import RunFolder
from personabench.results.spec import RunSpec
from personabench.types import from_json


def find(name: str, results: Path) -> Run:
    """The summary, with its `folder`, of a run or of a published file.

    Raises:
        UsageError: no run, or several, fit.
        DataError: a file is damaged.
    """
    path = Path(name)
    if path.suffix == ".json" and path.is_file():
        from personabench.results.published import read

        content = read(path)
        return {**content.summary, "spec": content.spec, "folder": str(path)}
    fitting = [
        run for run in references(results) if len(name) >= 4 and run["fingerprint"].startswith(name)
    ]
    if len(fitting) == 1 and not list(results.glob(f"runs/*/*/*/{name[:8]}*")):
        return fitting[0]
    folder = find_run(name, results)
    return {**folder.summary(), "folder": str(folder.path)}


def find_run(name: str, results: Path) -> RunFolder:
    """The run a person means by a folder, the start of a fingerprint, or "last".

    Raises:
        UsageError: no run, or several, fit.
    """
    from personabench.errors import UsageError
    from personabench.results.run_folder import RunFolder

    if (Path(name) / "spec.json").is_file():
        return RunFolder(Path(name))
    found = sorted(results.glob("runs/*/*/*/*/spec.json"), key=lambda path: path.stat().st_mtime)
    if name == "last":
        found = [path for path in found if path.with_name("summary.json").is_file()]
        if not found:
            raise UsageError(f"no runs under {results}/runs; make one with `personabench run`")
        return RunFolder(found[-1].parent)
    fitting = [
        path.parent for path in found if len(name) >= 4 and path.parent.name.startswith(name[:8])
    ]
    if len(fitting) != 1:
        what = "several runs fit" if fitting else "no run fits"
        raise UsageError(
            f"{what} '{name}' under {results}/runs; `personabench list runs` names them"
        )
    return RunFolder(fitting[0])


SCORER = "official"


Run = Mapping[str, Any]


def summaries(results: Path) -> list[dict[str, Any]]:
    """Every run's summary under a results folder, oldest first.

    Raises:
        DataError: a summary is damaged; the message names the file and the field.
    """
    folders = [path.parent for path in sorted(results.glob("runs/*/*/*/*/summary.json"))]
    return sorted(
        ({**RunFolder(folder).summary(), "folder": str(folder)} for folder in folders), key=_time
    )


def references(results: Path) -> list[dict[str, Any]]:
    """The summaries of all published results under a results folder, oldest first; `folder` is the file.

    Raises:
        DataError: a file is damaged; the message names the file and the field.
    """
    files = [(path, published.read(path)) for path in sorted(results.glob("reference/*.json"))]
    return sorted(
        ({**found.summary, "spec": found.spec, "folder": str(path)} for path, found in files),
        key=_time,
    )


def everything(results: Path) -> list[dict[str, Any]]:
    """Runs and published results, oldest first; of a run that was published only the run."""
    runs = summaries(results)
    here = {run["fingerprint"] for run in runs}
    both = [*(each for each in references(results) if each["fingerprint"] not in here), *runs]
    return sorted(both, key=_time)


def _time(run: Run) -> str:
    return str(run.get("time", ""))


def spec(run: Run) -> dict[str, Any]:
    """A run's `spec.json`; empty where only its summary is known."""
    if "spec" in run:
        return dict(run["spec"])
    path = Path(run["folder"]) / "spec.json"
    try:
        found = from_json(path.read_bytes(), dict[str, Any])
        msgspec.convert(found, RunSpec)
        return found
    except FileNotFoundError:
        return {}
    except msgspec.MsgspecError as error:
        raise DataError(
            f"{path} is damaged ({error}); move the run's folder away and repeat its command"
        ) from error


def label(run: Run) -> str:
    """A run's name on a board: its method, and every setting that is not at its default."""
    return _label(run, True, True)


def _label(
    run: Run, seed: bool, setting: bool, more: Sequence[str] = (), common: Collection[str] = ()
) -> str:
    parts = [f"{key}={value}" for key, value in run.get("changed", {}).items()]
    if setting:
        changed = run.get("task_changed", {})
        parts += [f"task.{key}={value}" for key, value in changed.items() if key not in common]
    if run["history"] != "own":
        parts.append(f"history={run['history']}")
    if setting:
        defaults = {"temperature": 0.0, "top_p": 1.0, "max_tokens": None}
        sampling = run.get("sampling", defaults)
        parts += [
            f"{key}={sampling[key]}" for key, usual in defaults.items() if sampling[key] != usual
        ]
    parts += more
    if seed and run["seed"]:
        parts.append(f"seed={run['seed']}")
    return f"{run['method']} ({', '.join(parts)})" if parts else str(run["method"])
