"""Conformance without a model: what `personabench check` looks at before anybody trusts a number."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from personabench.api.data_sources import Audited
from personabench.api.dataset import Dataset
from personabench.api.method import Method
from personabench.api.task import Task, Wrapped
from personabench.api.users import open_split
from personabench.models.backends.scripted import echo
from personabench.models.tokens import EstimatedTokens
from personabench.run.scoring import Tally, measure
from personabench.testing.trial import trial
from personabench.types import Sample, moment

CANARY = "zqxv-canary"
HIDDEN = "zqxv-hidden"


@dataclass(frozen=True)
class Finding:
    """One thing looked at: what, whether it holds (None: nobody can tell), and details where it does not."""

    what: str
    holds: bool | None
    detail: str = ""


def check_task(task: Task, split: str, data: Path | None) -> Iterator[Finding]:
    """Look at a task's data, wording and metrics.

    Raises:
        DataError, UsageError: the data cannot be opened.
    """
    dataset = open_split(task, split, data)
    index = dataset.index()
    yield Finding(
        "the data opens and has samples", bool(index), f"{dataset.source}: {len(index)} samples"
    )
    if dataset.lacking:
        yield Finding("what a run needs is installed", None, dataset.lacking)
    ids = [sample_id for sample_id, _ in index]
    yield Finding("sample ids are unique", len(set(ids)) == len(ids))
    gold, empty = Tally(task), Tally(task)
    unread, quoted, later, dated = [], [], [], 0
    for sample in dataset.samples():
        dated += bool(sample.time and any(record.time for record in sample.history))
        if sample.time and any(
            moment(record.time) > moment(sample.time) for record in sample.history
        ):
            later.append(sample.id)
        if not sample.references:
            continue
        values, failed = measure(task, sample.references[0], sample)
        gold.add(values)
        unread += [sample.id] if failed else []
        empty.add(measure(task, "", sample)[0])
        prompt = task.render(sample.view(), (), "", EstimatedTokens()).messages
        if not sample.choices and any(
            sample.references[0] in message.content for message in prompt
        ):
            quoted.append(sample.id)
    late = "nothing later than its sample is visible"
    if dated:
        yield Finding(late, not later, _some(later) or f"{dated} of {len(index)} samples are dated")
    else:
        yield Finding(late, None, "not dated: not checkable")
    yield Finding("every gold answer can be read by every scorer", not unread, _some(unread))
    for scorer, metrics in gold.metrics().items():
        worst = empty.metrics()[scorer]
        for metric in task.metrics:
            if metric.name not in metrics:
                yield Finding(
                    f"gold beats the empty answer: {metric.name} ({scorer})",
                    None,
                    "it takes a judge",
                )
                continue
            best, low = metrics[metric.name], worst[metric.name]
            better = best > low if metric.higher_is_better else best < low
            yield Finding(
                f"gold beats the empty answer: {metric.name} ({scorer})",
                better,
                f"{best:.4f} against {low:.4f}",
            )
    yield Finding("no request quotes its gold answer", not quoted, _some(quoted))
    leaks = task.audit(dataset) if isinstance(task, Audited) else []
    yield Finding("no answer can be looked up in the data", not leaks, "; ".join(leaks))


def check_method(method: Method, task: str, limit: int = 6) -> Iterator[Finding]:
    """Run a method on a bundled sample with scripted answers and look at what it does.

    Raises:
        UsageError: the method refuses the task.
    """
    first = trial(method, task, limit=limit, concurrency=1)
    failed = [f"{line.sample_id}: {line.error}" for line in first.predictions if line.error]
    yield Finding("every sample gets an answer", not failed, _some(failed))
    again = trial(type(method)(method.params), task, limit=limit, concurrency=16)
    same = [
        a.sample_id
        for a, b in zip(first.predictions, again.predictions, strict=True)
        if a.output != b.output
    ]
    yield Finding("concurrency does not change answers", not same, _some(same))
    emptied = trial(type(method)(method.params), task, limit=limit, history="none")
    failed = [f"{line.sample_id}: {line.error}" for line in emptied.predictions if line.error]
    yield Finding("users without history get an answer", not failed, _some(failed))
    marked = _Planted(*_opened(task), privileged=method.privileged)
    planted = trial(
        type(method)(method.params),
        task,
        limit=limit,
        dataset=marked,
        scored=False,
        roles={"simulator": echo},
    )
    for mark, what in ((CANARY, "a reference"), (HIDDEN, "anything hidden")):
        if mark == HIDDEN and method.privileged:
            continue
        leaked = [
            r for r in planted.requests if any(mark in message.content for message in r.messages)
        ]
        yield Finding(
            f"no prompt contains {what}", not leaked, f"{len(leaked)} prompts" if leaked else ""
        )
    cut = trial(type(method)(method.params), task, limit=limit, window=2048)
    failed = [f"{line.sample_id}: {line.error}" for line in cut.predictions if line.error]
    yield Finding("prompts fit a window of 2,048 tokens", not failed, _some(failed))


class _Planted(Wrapped):
    """A dataset whose references carry a mark that nobody may see, and what is hidden one that few may.

    What a simulated user reads keeps its text, and the mark stands beside it.
    """

    def __init__(self, task: Task, inner: Dataset, *, privileged: bool) -> None:
        super().__init__(inner)
        self.privileged, self.read = privileged, task.protocol != "static"

    def load(self, position: int) -> Sample:
        sample = self.inner.load(position)
        hidden = sample.hidden
        if not self.privileged:
            hidden = {**(hidden if self.read else dict.fromkeys(hidden, HIDDEN)), "canary": HIDDEN}
        return msgspec.structs.replace(sample, references=(CANARY,), hidden=hidden)


def _opened(task: str) -> tuple[Task, Dataset]:
    from personabench.api.registry import load

    found: Task = load("task", task)()
    return found, open_split(found, found.default_split, None)


def _some(items: Sequence[str]) -> str:
    more = f" and {len(items) - 3} more" if len(items) > 3 else ""
    return ", ".join(items[:3]) + more
