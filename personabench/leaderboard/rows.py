"""What goes into a board: runs on disk, published results, and several seeds of one method as one entry.

An entry's *setting* is everything of a run but the method: only rows of one setting answer the same question under
the same conditions, so only they are tested against each other.
"""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from personabench.api.judged import metrics_added_by_judge
from personabench.hashing import digest
from personabench.results.index import Run, _label, label, spec

CONDITIONS: tuple[str, ...] = (
    "task",
    "task_version",
    "task_hash",
    "task_params",
    "separation",
    "split",
    "data_hash",
)
CONDITIONS += ("model", "sampling", "window")


PLAYED = ("model", "window", "simulator", "judge")
"""Of the conditions, those that a label does not tell."""


def conditions(run: Run) -> dict[str, Any]:
    """Everything of a run but method, history control and seed: what two runs must share to be compared.

    An optional judge is none of it: it adds metrics and leaves the others as they are.
    """
    known = spec(run) or {"task_params": run.get("task_changed", {}), **run}
    played = {
        "simulator": known.get("simulator"),
        "judge": run.get("judge") if _added(run) is None else None,
    }
    return {name: known.get(name) for name in CONDITIONS} | {
        name: who for name, who in played.items() if who
    }


def metric_directions(runs: Iterable[Run]) -> dict[str, bool]:
    """Every metric of some runs with its direction, but variants that say nothing of their own."""
    runs = list(runs)
    found: dict[str, bool] = {}
    for run in runs:
        found |= run["higher_is_better"]
    hidden = silent(runs)
    return {name: higher for name, higher in found.items() if name not in hidden}


def silent(runs: Iterable[Run]) -> set[str]:
    """The variants of metrics, such as one for every script, that have the metric's own value in every run."""
    variants: dict[str, str] = {}
    speaking = set()
    for run in runs:
        variants |= run.get("variants", {})
        for name, metric in run.get("variants", {}).items():
            if any(values.get(name) != values.get(metric) for values in run["metrics"].values()):
                speaking.add(name)
    return variants.keys() - speaking


def judge_of(run: Run, metric: str) -> str | None:
    """The key of the optional judge that a metric of a run is by; None where the run has it without one."""
    return run["judge"] if metric in (_added(run) or ()) else None


def _added(run: Run) -> Sequence[str] | None:
    """The metrics that an optional judge adds; None without a judge, or with one that the task always has."""
    if not run.get("judge"):
        return None
    who = run.get("roles", {}).get("judge", {})
    if "adds" in who:
        found: Sequence[str] | None = who["adds"]
        return found
    known = spec(run)
    return _adds(
        run["task"], msgspec.json.encode(known.get("task_params", {})), known.get("task_hash", "")
    )


@functools.cache
def _adds(task: str, params: bytes, source: str) -> tuple[str, ...] | None:
    """What an optional judge adds to a task, for runs that do not tell; None where that is not installed."""
    from personabench.results.locate import find_task

    known = find_task(task, msgspec.json.decode(params), source)
    return None if known is None else metrics_added_by_judge(known)


@dataclass(frozen=True)
class Entry:
    """The runs behind one row: one, or one for each seed of the same method on the same number of samples.

    Attributes:
        runs: by seed.
        name: method, parameters, history control and, of a single run, its seed unless 0.
        label: the name, and what the setting has that is not at its default and not common to the board.
        setting: digest of `conditions`.
        apart: of `PLAYED`, what tells it from rows that had the same label.
        common: the task settings that all rows of the board share, which labels leave to the board's notes.
        seeds: the seeds in words, where another row has the same name and other seeds.
    """

    runs: Sequence[Run]
    name: str
    label: str
    setting: str
    apart: Sequence[str] = ()
    common: Collection[str] = ()
    seeds: Sequence[str] = ()

    @property
    def first(self) -> Run:
        """The run with the lowest seed, whose facts the row shows."""
        return self.runs[0]

    @property
    def calls(self) -> int:
        """Model calls of all runs and phases."""
        return sum(phase["calls"] for run in self.runs for phase in run["usage"].values())

    def label_of(self, run: Run) -> str:
        """What one of the runs is called: the label, with the run's own seed."""
        return _label(run, True, True, self.apart, self.common)

    def label_without(self, over: str) -> str:
        """The label but for one parameter, or for the history: what the points of a curve have in common."""
        run = self.first
        changed = {name: value for name, value in run.get("changed", {}).items() if name != over}
        kept = {
            **run,
            "changed": changed,
            "history": "own" if over == "history" else run["history"],
        }
        return _label(kept, len(self.runs) == 1, True, (*self.apart, *self.seeds), self.common)


def entries(runs: Sequence[Run]) -> list[Entry]:
    """Runs as rows, seeds pooled; of runs of the same label and `PLAYED` conditions the newest counts."""
    newest = {digest([label(run), _played(run)]): run for run in runs}
    pooled: dict[tuple[Any, ...], list[Run]] = {}
    for run in newest.values():
        key = (
            digest(conditions(run))[:8],
            _label(run, False, True),
            run["model"],
            run["n"],
            run["users"],
        )
        pooled.setdefault(key, []).append(run)
    alike: dict[tuple[str, str], list[Run]] = {}
    for members in pooled.values():
        members.sort(key=lambda run: run["seed"])
        alike.setdefault(
            (_label(members[0], len(members) == 1, True), members[0]["model"]), []
        ).append(members[0])
    settings = [run.get("task_changed", {}) for run in newest.values()]
    common = {
        name
        for name, value in (settings[0] if settings else {}).items()
        if all(each.get(name) == value for each in settings)
    }
    names = Counter(key[:3] for key in pooled)
    made = []
    for key, members in pooled.items():
        first, alone = members[0], len(members) == 1
        more = _apart(first, alike[_label(first, alone, True), first["model"]])
        several = names[key[:3]] > 1 and not alone
        seeds = [f"seeds={','.join(str(run['seed']) for run in members)}"] if several else []
        called = _label(first, alone, True, (*more, *seeds), common)
        made.append(
            Entry(members, _label(first, alone, False), called, key[0], more, common, seeds)
        )
    return made


def _played(run: Run) -> dict[str, Any]:
    """A run's `PLAYED` conditions, flat: the keys of a model's identity after a dot, but for its name."""
    found: dict[str, Any] = {}
    for name, value in conditions(run).items():
        if name in PLAYED:
            each = value.items() if isinstance(value, Mapping) else [("name", value)]
            found |= {
                name if key == "name" else f"{name}.{key}": part
                for key, part in each
                if part is not None
            }
    return found


def _apart(run: Run, alike: Sequence[Run]) -> list[str]:
    """What a run has that others of the same label have not."""
    mine, others = _played(run), [_played(other) for other in alike]
    differing = [name for name in mine if any(other.get(name) != mine[name] for other in others)]
    return [f"{name}={_short(mine[name])}" for name in differing]


def _short(value: Any) -> str:
    """A value for a label; of a digest its first characters."""
    text = str(value)
    return text[:8] if len(text) == 64 else text
