"""Conformance checks without a model, for `personabench check`."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from personabench.api.compatibility import explain_misfit
from personabench.api.context import Context
from personabench.api.dataset import Dataset, Wrapped, load_sample
from personabench.api.guard import create
from personabench.api.method import Method, State
from personabench.api.registry import load_class
from personabench.api.task import Task
from personabench.api.training import TrainedMethod
from personabench.api.users import open_split
from personabench.errors import UsageError
from personabench.metrics.metric import Metric
from personabench.models.backends.scripted import echo
from personabench.models.tokens import EstimatedTokens
from personabench.run.answer_scorer import measure
from personabench.run.audit import Audit, Defect, audit
from personabench.run.scoring import Tally
from personabench.run.watchdog import watch_opening
from personabench.testing.data_access import Loaded, refuse_data_access
from personabench.testing.finding import Finding, list_some
from personabench.testing.population_check import find_answered_samples
from personabench.testing.training_check import check_training, open_training_examples
from personabench.testing.trials import TrainingData, Trial, trial
from personabench.types import Sample

# Strings that occur in no data set, so that every prompt with one is a leak.
CANARY = "zqxv-canary"
HIDDEN = "zqxv-hidden"

# A small window that any single request of the example data fits, but not every history.
SMALL_WINDOW = 2048


def check_task(
    task: Task,
    split: str | None = None,
    data: Path | None = None,
) -> Iterator[Finding]:
    """Check a task's data, wording and metrics, by default on its example data.

    Raises:
        DataError, UsageError: the data cannot be opened.
    """
    with watch_opening():
        dataset = open_split(task, split or task.default_split, data)
        index = dataset.index()
    yield Finding(
        what="the data opens and has samples",
        holds=bool(index),
        detail=f"{dataset.source}: {len(index)} samples",
    )
    for warning in dataset.warnings:
        yield Finding(warning, None)
    if dataset.missing_requirement:
        yield Finding("everything that a run needs is installed", None, dataset.missing_requirement)

    sample_ids = [sample_id for sample_id, _ in index]
    yield Finding("sample ids are unique", len(set(sample_ids)) == len(sample_ids))

    again = open_split(task, split or task.default_split, data)
    yield Finding(
        what="the data is the same when it is opened again",
        holds=again.hash == dataset.hash and list(again.index()) == list(index),
    )

    yield from _report_audit(audit(task, dataset))
    survey = _survey_samples(task, dataset)
    yield Finding(
        what="every gold answer can be read by every scorer",
        holds=not survey.unparsed,
        detail=list_some(survey.unparsed),
    )
    if not survey.gold.n:
        yield Finding("samples have references", None, "none has one: nothing can be scored")
    yield from _compare_to_empty(task, survey)
    if survey.marked:
        yield Finding(
            what="evidence marks name records of the history",
            holds=not survey.stray,
            detail=list_some(survey.stray) or f"{survey.marked} samples have evidence marks",
        )
    yield _report_quoted(task, survey)

    if "population" in task.offers:
        answered = find_answered_samples(dataset)
        yield Finding(
            what="no other history of the user answers a question",
            holds=not answered,
            detail=list_some(answered),
        )

    _call_wording(task, dataset)
    if not dataset.missing_requirement:
        result = trial(_Newest(), task, limit=2, dataset=dataset)
        yield _report_failures("a run with scripted answers has no failures", result)
        if "judge" in task.roles:
            failure = result.judge_failure
            yield Finding("a scripted judge can be called about every answer", not failure, failure)


class _Newest(Method):
    """Show all records, newest first."""

    name = "newest"

    async def predict(self, sample: Sample, state: State, ctx: Context) -> str:
        return await ctx.answer(sample, records=sample.history[::-1])


def _call_wording(task: Task, dataset: Dataset) -> None:
    """Call everything that a method may call, on the first sample and its newest record."""
    sample = dataset.load(0).view()
    task.query_text(sample)
    task.exchanges(sample)
    task.facts(sample.attributes)
    for record in sample.history[-1:]:
        task.describe(record)
        task.document_text(record)
        task.facts(record.fields)
        task.question(record, sample)


@dataclass
class _Survey:
    """Results of one pass over a data set's samples, which may be too many to keep.

    Attributes:
        gold, empty: scores of the gold answers and of empty ones.
        unparsed: ids of samples whose gold a scorer cannot read.
        quoted: ids of samples whose request contains the gold.
        marked: the number of samples with evidence marks; stray: marks of no record, by sample.
    """

    gold: Tally
    empty: Tally
    unparsed: list[str] = field(default_factory=list)
    quoted: list[str] = field(default_factory=list)
    marked: int = 0
    stray: list[str] = field(default_factory=list)


def _survey_samples(task: Task, dataset: Dataset) -> _Survey:
    survey = _Survey(gold=Tally(task), empty=Tally(task))
    index = dataset.index()
    for position in range(len(index)):
        sample = load_sample(dataset, position, index)
        survey.marked += bool(sample.evidence)
        survey.stray += _list_stray_marks(sample)

        # Hidden test sets have no gold answers to check.
        if not sample.references:
            continue
        gold = sample.references[0]

        gold_values, failed_scorers = measure(task, gold, sample)
        survey.gold.add(gold_values)
        if failed_scorers:
            survey.unparsed.append(sample.id)

        empty_values, _ = measure(task, "", sample)
        survey.empty.add(empty_values)

        if _quotes(task, sample, gold):
            survey.quoted.append(sample.id)
    return survey


def _list_stray_marks(sample: Sample) -> list[str]:
    record_ids = {record.id for record in sample.history}
    return [f"{mark} of {sample.id}" for mark in sample.evidence if mark not in record_ids]


def _quotes(
    task: Task,
    sample: Sample,
    gold: str,
) -> bool:
    # A request lists the gold among its options or labels.
    if sample.choices or task.labels:
        return False
    request = task.render(sample.view(), (), "", EstimatedTokens())
    # As whole words: the answer "art" is not quoted by "start".
    pattern = re.compile(rf"(?<!\w){re.escape(gold)}(?!\w)")
    return any(pattern.search(message.content) for message in request.messages)


def _report_quoted(task: Task, survey: _Survey) -> Finding:
    examples = list_some(survey.quoted)
    if not task.quotes_gold:
        hint = "; if that is by design, set quotes_gold = True" if examples else ""
        return Finding("no request quotes its gold answer", not examples, f"{examples}{hint}")

    count = f"{len(survey.quoted)} of {survey.gold.n} do"
    return Finding(
        what="requests may quote their gold answer, as the task declares (quotes_gold)",
        holds=True,
        detail=f"{count}: {examples}" if examples else count,
    )


def _report_audit(result: Audit) -> Iterator[Finding]:
    """Report the defects of the data that `personabench audit` counts."""
    check = "nothing later than its sample is visible"
    if not result.dated:
        yield Finding(check, None, "not dated: not checkable")
    for defect in result.defects:
        if defect.name == "future_record":
            detail = _list_cases(defect) or f"{result.dated} of {result.samples} samples are dated"
            yield Finding(check, not defect.count, detail)
        elif defect.name == "gold_in_history":
            yield Finding("no gold is in its own history", not defect.count, _list_cases(defect))
        elif defect.count:
            # Real data has these; they are no faults of the task.
            yield Finding(f"{defect.count} of {defect.of} {defect.unit} {defect.what}", None)
    leaks = "; ".join(result.leaks)
    yield Finding("the task reports no leak of its data", not result.leaks, leaks)
    for count in result.counts:
        yield Finding(count, None)


def _list_cases(defect: Defect) -> str:
    sample_ids = [example["sample"] for example in defect.examples]
    return list_some([*sample_ids, *[""] * (defect.count - len(sample_ids))])


def _compare_to_empty(
    task: Task,
    survey: _Survey,
) -> Iterator[Finding]:
    """Check each metric's direction: a gold answer must score better than an empty one."""
    empty_scores = survey.empty.metrics()
    for scorer, gold_scores in survey.gold.metrics().items():
        for metric in task.metrics:
            check = f"gold beats the empty answer: {metric.name} ({scorer})"
            if metric.name not in gold_scores:
                yield Finding(check, None, "requires a judge")
                continue

            gold, empty = gold_scores[metric.name], empty_scores[scorer][metric.name]
            is_better = _is_better(metric, gold, empty)
            # An error beside the primary metric may be one that only an answer can make.
            is_side_error = metric is not task.metrics[0] and not metric.higher_is_better
            yield Finding(
                what=check,
                holds=None if is_side_error and not is_better else is_better,
                detail=f"{gold:.4f} against {empty:.4f}",
            )


def _is_better(
    metric: Metric,
    score: float,
    baseline: float,
) -> bool:
    return score > baseline if metric.higher_is_better else score < baseline


def check_method(
    method: Method,
    task: str,
    limit: int = 6,
    refused_calls: Sequence[str] = (),
) -> Iterator[Finding]:
    """Run a method on a task's example data with scripted answers and check its behaviour.

    `refused_calls` are those of `refuse_data_access` while the method was imported.

    Raises:
        UsageError: the method cannot run on the task.
    """
    opened: Task = create(load_class("task", task))
    dataset = open_split(opened, opened.default_split, None)
    if not isinstance(method, TrainedMethod):
        yield from _check_answers(method, opened, dataset, limit, refused_calls)
        return

    misfit = explain_misfit(method, opened, dataset)
    if misfit:
        raise UsageError(misfit)
    with open_training_examples(method, opened, dataset) as examples:
        if isinstance(examples, str):
            yield Finding("the method can be trained here", None, examples)
            return
        findings = list(check_training(method, examples))
        yield from findings
        # Without artifacts there are no answers.
        if findings[0].holds is not False:
            yield from _check_answers(
                method, opened, examples.tested, limit, refused_calls, examples.data
            )


def _check_answers(
    method: Method,
    task: Task,
    dataset: Dataset,
    limit: int,
    refused_calls: Sequence[str],
    training: TrainingData | None = None,
) -> Iterator[Finding]:
    """Check the answers of a method; a trained one is trained first, for a part of the users."""

    def renew() -> Method:
        # A method may keep state on itself, which must not reach the next trial.
        renewed: Method = create(type(method), method.params)
        return renewed

    def attempt(tried: Method, dataset: Dataset = dataset, **options: Any) -> Trial:
        return trial(tried, task, limit=limit, dataset=dataset, training=training, **options)

    sequential = attempt(method, concurrency=1)
    yield _report_failures("every sample gets an answer", sequential)

    concurrent = attempt(renew(), concurrency=16)
    yield _compare_answers("concurrency does not change answers", sequential, concurrent)

    without_history = attempt(renew(), history="none")
    yield _report_failures("users without history get an answer", without_history)

    loaded = Loaded(dataset)
    with refuse_data_access() as calls:
        attempt(renew(), dataset=loaded)
    distinct = list(dict.fromkeys([*refused_calls, *calls]))
    yield Finding("the method reads no task's data", not distinct, list_some(distinct))

    planted = attempt(
        renew(),
        dataset=_Planted(task, dataset, privileged=method.privileged),
        scored=False,
        # A simulated user reads hidden facts, so its prompts must not count as the method's.
        roles={"simulator": echo},
    )
    yield _find_canary("no prompt or answer contains a reference", CANARY, planted)
    if not method.privileged:
        yield _find_canary("no prompt or answer contains anything hidden", HIDDEN, planted)

    in_small_window = attempt(renew(), window=SMALL_WINDOW)
    yield _report_failures(f"prompts fit a window of {SMALL_WINDOW:,} tokens", in_small_window)


def _report_failures(check: str, result: Trial) -> Finding:
    sample_ids: dict[str, list[str]] = {}
    for prediction in result.predictions:
        if prediction.error:
            sample_ids.setdefault(prediction.error, []).append(prediction.sample_id)

    # Most samples fail alike, so that a message is given once.
    failures = [f"{list_some(ids)}: {error}" for error, ids in sample_ids.items()]
    return Finding(check, not failures, list_some(failures))


def _compare_answers(
    check: str,
    first: Trial,
    second: Trial,
) -> Finding:
    pairs = zip(first.predictions, second.predictions, strict=True)
    changed = [before.sample_id for before, after in pairs if before.output != after.output]
    return Finding(check, not changed, list_some(changed))


def _find_canary(
    check: str,
    canary: str,
    result: Trial,
) -> Finding:
    prompts = 0
    for request in result.requests:
        prompts += any(canary in message.content for message in request.messages)
    # A method may also find a reference in a frame of the engine and answer it without a prompt.
    answers = sum(canary in (prediction.output or "") for prediction in result.predictions)

    leaks = {"prompts": prompts, "answers": answers}
    detail = ", ".join(f"{amount} {name}" for name, amount in leaks.items() if amount)
    return Finding(check, not detail, detail)


class _Planted(Wrapped):
    """A dataset with canaries in the references and, unless privileged, in the hidden facts."""

    def __init__(
        self,
        task: Task,
        inner: Dataset,
        *,
        privileged: bool,
    ) -> None:
        super().__init__(inner)
        self.privileged = privileged
        # A simulated user needs the text of its hidden facts.
        self.keeps_hidden_text = task.protocol != "static"

    def load(self, position: int) -> Sample:
        sample = self.inner.load(position)
        return msgspec.structs.replace(
            sample,
            references=(CANARY,),
            evidence=(HIDDEN,),
            hidden=self._plant_hidden(sample),
        )

    def _plant_hidden(self, sample: Sample) -> dict[str, str]:
        if self.privileged:
            return dict(sample.hidden)

        hidden = dict(sample.hidden)
        if not self.keeps_hidden_text:
            hidden = dict.fromkeys(hidden, HIDDEN)
        # Also beside facts that keep their text, and in samples without hidden facts.
        hidden["canary"] = HIDDEN
        return hidden
