"""The runs behind the rows of a board: several seeds of one method are pooled into one entry.

An entry's *setting* is everything of a run except its method: only rows of one setting were
measured under the same conditions, so only they are tested against each other.
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
from personabench.results.index import USERS, Run, label, make_label
from personabench.results.summary import Summary, to_dict

CONDITIONS: tuple[str, ...] = (
    "task",
    "task_version",
    "task_hash",
    "task_params",
    "separation",
    "split",
    "data_hash",
    "model",
    "sampling",
    "window",
    "tokenizer",
)

# The conditions that a label does not show by itself.
UNLABELLED = ("model", "window", "simulator", "judge")

# Phases whose calls are the method's own; judging and simulating are the benchmark's.
METHOD_PHASES = ("prepare", "profile", "predict", "update")

# Length of a SHA-256 digest in hex; labels shorten values of this length.
DIGEST_LENGTH = 64


def conditions(run: Run) -> dict[str, Any]:
    """Collect everything of a run except method, history control and seed.

    Two runs must share these to be compared. An optional judge is not a condition: it adds metrics
    and leaves the others as they are.
    """
    summary = run.summary
    if run.spec is None:
        # Without its spec a run is known only by the options that were changed.
        fields = {"task_params": summary.task_changed, **to_dict(summary)}
    else:
        fields = msgspec.to_builtins(run.spec)

    values = {name: fields.get(name) for name in CONDITIONS}
    if fields.get("selection"):
        values["selection"] = fields["selection"]
    if fields.get("simulator"):
        values["simulator"] = fields["simulator"]
    if summary.judge and _added_metrics(run) is None:
        values["judge"] = summary.judge
    return values


def is_imported(run: Run) -> bool:
    """Whether a run's answers were made elsewhere; `provenance` holds their card."""
    return "card" in run.summary.provenance


def lacks_donors(entry: Entry) -> bool:
    """Whether a run with shuffled histories got records of another user for no sample at all."""
    return any(0 < run.summary.n <= run.summary.counters.get("no_donor", 0) for run in entry.runs)


def metric_directions(runs: Iterable[Run]) -> dict[str, bool]:
    """List every metric of some runs with its direction, except redundant variants."""
    runs = list(runs)
    directions: dict[str, bool] = {}
    for run in runs:
        directions |= run.summary.higher_is_better

    redundant = silent(runs)
    return {name: higher for name, higher in directions.items() if name not in redundant}


def silent(runs: Iterable[Run]) -> set[str]:
    """Find redundant variants of metrics: those that equal the metric itself in every run.

    An example is a ROUGE that counts every script, on data in Latin script.
    """
    variants: dict[str, str] = {}
    informative = set()
    for run in runs:
        variants |= run.summary.variants
        for name, metric in run.summary.variants.items():
            if any(
                values.get(name) != values.get(metric) for values in run.summary.metrics.values()
            ):
                informative.add(name)
    return variants.keys() - informative


def judge_of(run: Run, metric: str) -> str | None:
    """Key of the optional judge behind a metric; None if the run has the metric without one."""
    return run.summary.judge if metric in (_added_metrics(run) or ()) else None


def _added_metrics(run: Run) -> Sequence[str] | None:
    """Metrics that an optional judge adds; None without a judge, or if the task always has one."""
    summary = run.summary
    if not summary.judge:
        return None

    judge = summary.roles.get("judge")
    if judge is not None and judge.adds is not msgspec.UNSET:
        return judge.adds
    return _task_judge_adds(summary.task, msgspec.json.encode(run.task_params), run.task_hash)


@functools.cache
def _task_judge_adds(task: str, params: bytes, source: str) -> tuple[str, ...] | None:
    # Summaries of earlier versions do not state what the judge adds, so the task itself is used.
    from personabench.results.locate import find_task

    installed = find_task(task, msgspec.json.decode(params), source)
    return None if installed is None else metrics_added_by_judge(installed)


@dataclass(frozen=True)
class Entry:
    """The runs behind one row: one run, or one per seed of a method on the same number of samples.

    Attributes:
        runs: by seed.
        name: method, parameters, history control and, for a single run, its seed unless 0.
        label: the name, and the settings that are neither at their default nor common to the board.
        setting: digest of `conditions`.
        distinctions: the `UNLABELLED` conditions in which it differs from rows with the same label.
        common: task settings that all rows of the board share, which labels leave to its notes.
        seeds: the seeds in words, if another row has the same name and other seeds.
        unranked: why the row has no rank (see `ranking`); empty if it has one.
    """

    runs: Sequence[Run]
    name: str
    label: str
    setting: str
    distinctions: Sequence[str] = ()
    common: Collection[str] = ()
    seeds: Sequence[str] = ()
    unranked: str = ""

    @property
    def first(self) -> Run:
        """The run with the lowest seed, whose facts the row shows."""
        return self.runs[0]

    @property
    def summary(self) -> Summary:
        """The summary of the first run."""
        return self.runs[0].summary

    @property
    def calls(self) -> int:
        """Model calls of the method, in all runs."""
        return sum(
            phase.calls
            for run in self.runs
            for usage in (run.summary.usage, run.summary.profiler_usage)
            for name, phase in usage.items()
            if name in METHOD_PHASES
        )

    @property
    def is_rule(self) -> bool:
        """Whether it is a trivial rule that methods have to beat: declared, or without a call.

        Rules that have seen golds are none, since a method cannot.
        """
        summary = self.summary
        # A run whose samples all failed makes no call either.
        answers_alone = self.calls == 0 and summary.n > 0
        is_alone = answers_alone and not is_imported(self.runs[0])
        return (summary.rule or is_alone) and not summary.privileged

    def label_of(self, run: Run) -> str:
        """Label one of the runs: the row's label, with the run's own seed."""
        return make_label(
            run.summary,
            seed=True,
            suffixes=self.distinctions,
            common=self.common,
        )

    def label_without(self, axis: str) -> str:
        """Label the row without one parameter or the history, to name a curve along that axis."""
        summary = self.summary
        changed = {name: value for name, value in summary.changed.items() if name != axis}
        history = "own" if axis == "history" else summary.history
        return make_label(
            msgspec.structs.replace(summary, changed=changed, history=history),
            seed=len(self.runs) == 1,
            suffixes=(*self.distinctions, *self.seeds),
            common=self.common,
        )


def collect_entries(runs: Sequence[Run]) -> list[Entry]:
    """Pool seeds into rows.

    Of runs with the same label and `UNLABELLED` conditions the newest counts.
    """
    newest = list(_newest(runs).values())
    pools = _pool_seeds(newest)
    common = _common_settings([run.summary.task_changed for run in newest])
    if len({run.summary.selection for run in newest}) == 1:
        common.add(USERS)

    same_label: dict[tuple[str, str], list[Run]] = {}
    for members in pools.values():
        same_label.setdefault(_label_key(members), []).append(members[0])

    # Pools that differ in model, samples or users alone need their seeds to be told apart.
    pool_counts = Counter(key[:3] for key in pools)

    pooled = []
    for key, members in pools.items():
        single = len(members) == 1
        seeds = []
        if pool_counts[key[:3]] > 1 and not single:
            listed = ",".join(str(run.summary.seed) for run in members)
            seeds = [f"seeds={listed}"]

        summary = members[0].summary
        distinctions = _distinctions(members[0], same_label[_label_key(members)])
        entry = Entry(
            runs=members,
            name=make_label(summary, seed=single, setting=False),
            label=make_label(
                summary,
                seed=single,
                suffixes=(*distinctions, *seeds),
                common=common,
            ),
            setting=key[0],
            distinctions=distinctions,
            common=common,
            seeds=seeds,
        )
        pooled.append(entry)
    return pooled


def _newest(runs: Sequence[Run]) -> dict[str, Run]:
    # Runs come oldest first, so later ones replace earlier ones of the same name.
    return {digest([label(run.summary), _unlabelled(run)]): run for run in runs}


def _pool_seeds(runs: Iterable[Run]) -> dict[tuple[str, str, str, int, int], list[Run]]:
    """Group runs that differ in nothing but their seed, each group sorted by seed."""
    pools: dict[tuple[str, str, str, int, int], list[Run]] = {}
    runs = list(runs)
    hosts = _settings_by_host(runs)
    for run in runs:
        summary = run.summary
        setting = digest(conditions(run))[:8]
        if is_imported(run):
            # Of imported answers only the name of the model is known, so they join its rows.
            candidates = hosts.get(_host(run), {setting})
            setting = min(candidates) if len(candidates) == 1 else setting
        key = (
            setting,
            make_label(summary, seed=False),
            summary.model,
            summary.n,
            summary.users,
        )
        pools.setdefault(key, []).append(run)

    for members in pools.values():
        members.sort(key=lambda run: run.summary.seed)
    return pools


def _host(run: Run) -> str:
    """Digest everything that imported answers share with runs: the data and the model's name."""
    values = conditions(run)
    data = {
        name: values[name] for name in CONDITIONS if name not in ("model", "sampling", "window")
    }
    return digest([data, run.summary.model])


def _settings_by_host(runs: Sequence[Run]) -> dict[str, set[str]]:
    """Collect the settings that imported answers may join, if there are any."""
    settings: dict[str, set[str]] = {}
    if any(is_imported(run) for run in runs):
        for run in runs:
            if not is_imported(run):
                settings.setdefault(_host(run), set()).add(digest(conditions(run))[:8])
    return settings


def _label_key(members: Sequence[Run]) -> tuple[str, str]:
    summary = members[0].summary
    return make_label(summary, seed=len(members) == 1), summary.model


def _common_settings(settings: Sequence[Mapping[str, Any]]) -> set[str]:
    if not settings:
        return set()
    return {
        name
        for name, value in settings[0].items()
        if all(setting.get(name) == value for setting in settings)
    }


def _unlabelled(run: Run) -> dict[str, Any]:
    """Flatten a run's `UNLABELLED` conditions: "model.adapters", but "model" for its name."""
    values: dict[str, Any] = {}
    for name, value in conditions(run).items():
        if name not in UNLABELLED:
            continue
        parts = value if isinstance(value, Mapping) else {"name": value}
        for key, part in parts.items():
            if part is not None:
                values[name if key == "name" else f"{name}.{key}"] = part
    return values


def _distinctions(run: Run, same_label: Sequence[Run]) -> list[str]:
    """Name the conditions in which a run differs from runs with the same label."""
    values = _unlabelled(run)
    peers = [_unlabelled(peer) for peer in same_label]
    differing = [name for name in values if any(peer.get(name) != values[name] for peer in peers)]
    return [f"{name}={shorten_digest(values[name])}" for name in differing]


def shorten_digest(value: Any) -> str:
    """Convert a value to text; a digest to its first characters."""
    text = str(value)
    return text[:8] if len(text) == DIGEST_LENGTH else text
