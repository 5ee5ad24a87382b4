"""What goes into a board: runs on disk, published results, and several seeds of one method as one entry.

An entry's *setting* is everything of a run but the method: only rows of one setting answer the same question under
the same conditions, so only they are tested against each other.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from personabench.errors import DataError
from personabench.hashing import digest

SCORER = "official"
Run = Mapping[str, Any]


def summaries(results: Path) -> list[dict[str, Any]]:
    """Every run's summary under a results folder, oldest first.

    Raises:
        DataError: a summary is damaged; the message names the file.
    """
    return _read(sorted(results.glob("runs/*/*/*/*/summary.json")), "repeat the run's command to write it again")


def references(results: Path) -> list[dict[str, Any]]:
    """The summaries of all published results under a results folder, oldest first; `folder` is the file.

    Raises:
        DataError: a file is damaged; the message names it.
    """
    return _read(sorted(results.glob("reference/*.json")), "publish the run again")


def everything(results: Path) -> list[dict[str, Any]]:
    """Runs and published results, oldest first; of a run that was published only the run."""
    runs = summaries(results)
    here = {run["fingerprint"] for run in runs}
    both = [*(each for each in references(results) if each["fingerprint"] not in here), *runs]
    return sorted(both, key=_time)


def _time(run: Run) -> str:
    return str(run.get("time", ""))


def _read(paths: Iterable[Path], remedy: str) -> list[dict[str, Any]]:
    found = []
    for path in paths:
        published = path.name != "summary.json"
        try:
            content = msgspec.json.decode(path.read_bytes(), type=dict[str, Any])
            if published:
                content = {**content["summary"], "spec": content["spec"]}
        except (msgspec.MsgspecError, KeyError) as error:
            raise DataError(f"{path} is damaged ({error}); {remedy}") from error
        found.append({**content, "folder": str(path if published else path.parent)})
    return sorted(found, key=_time)


def spec(run: Run) -> dict[str, Any]:
    """A run's `spec.json`; empty where only its summary is known."""
    if "spec" in run:
        return dict(run["spec"])
    path = Path(run["folder"]) / "spec.json"
    try:
        return msgspec.json.decode(path.read_bytes(), type=dict[str, Any])
    except FileNotFoundError:
        return {}
    except msgspec.MsgspecError as error:
        raise DataError(f"{path} is damaged ({error}); move the run's folder away and repeat its command") from error


CONDITIONS = ("task", "task_version", "task_params", "separation", "split", "data_hash", "model", "sampling", "window")


def conditions(run: Run) -> dict[str, Any]:
    """Everything of a run but method, history control and seed: what two runs must share to be compared."""
    known = spec(run) or {"task_params": run.get("task_changed", {}), **run}
    played = {"simulator": known.get("simulator"), "judge": run.get("judge")}
    return {name: known.get(name) for name in CONDITIONS} | {name: who for name, who in played.items() if who}


@dataclass(frozen=True)
class Entry:
    """The runs behind one row: one, or one for each seed of the same method on the same number of samples.

    Attributes:
        runs: by seed.
        name: method, parameters, history control and, of a single run, its seed unless 0.
        label: the name, and what the setting has that is not at its default.
        setting: digest of `conditions`.
    """

    runs: Sequence[Run]
    name: str
    label: str
    setting: str

    @property
    def first(self) -> Run:
        """The run with the lowest seed, whose facts the row shows."""
        return self.runs[0]

    @property
    def calls(self) -> int:
        """Model calls of all runs and phases."""
        return sum(phase["calls"] for run in self.runs for phase in run["usage"].values())


def entries(runs: Sequence[Run]) -> list[Entry]:
    """Runs as rows, seeds pooled; of runs of the same name, model and setting the newest counts."""
    newest = {(label(run), run["model"]): run for run in runs}
    pooled: dict[tuple[Any, ...], list[Run]] = {}
    for run in newest.values():
        key = (digest(conditions(run))[:8], _label(run, False, True), run["model"], run["n"], run["users"])
        pooled.setdefault(key, []).append(run)
    made = []
    for (setting, *_), members in pooled.items():
        members.sort(key=lambda run: run["seed"])
        alone = len(members) == 1
        made.append(Entry(members, _label(members[0], alone, False), _label(members[0], alone, True), setting))
    return made


def label(run: Run) -> str:
    """A run's name on a board: its method, and every setting that is not at its default."""
    return _label(run, True, True)


def _label(run: Run, seed: bool, setting: bool) -> str:
    parts = [f"{key}={value}" for key, value in run.get("changed", {}).items()]
    if setting:
        parts += [f"task.{key}={value}" for key, value in run.get("task_changed", {}).items()]
    if run["history"] != "own":
        parts.append(f"history={run['history']}")
    if setting:
        defaults = {"temperature": 0.0, "top_p": 1.0, "max_tokens": None}
        sampling = run.get("sampling", defaults)
        parts += [f"{key}={sampling[key]}" for key, usual in defaults.items() if sampling[key] != usual]
    if seed and run["seed"]:
        parts.append(f"seed={run['seed']}")
    return f"{run['method']} ({', '.join(parts)})" if parts else str(run["method"])
