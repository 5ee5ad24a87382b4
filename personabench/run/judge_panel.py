"""Have several judges assess the stored answers of runs; the model under test is never called.

Judgements are kept in the run folders as those of any judge, so a repeated command calls nothing,
and `run` with one of these judges uses them.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import math
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

import numpy as np

from personabench.api.dataset import Dataset
from personabench.api.judged import JudgedTask, judge_params, judged_metrics
from personabench.errors import BackendError, UsageError
from personabench.metrics.judges.panel import (
    PASS,
    PEOPLE,
    Column,
    Cost,
    Panel,
    Vague,
    Verdicts,
    compare_judges,
    write_vague_answer,
)
from personabench.metrics.metric import Metric
from personabench.models import backends
from personabench.models.backends.base import BackendOptions
from personabench.models.cache import Cache, Policy
from personabench.models.client import Client
from personabench.models.journal import Journal
from personabench.models.probe import Dialects, probe_request
from personabench.models.roles import Role
from personabench.results.index import label
from personabench.results.locate import explain_missing_data, find_dataset, find_task
from personabench.results.run_folder import RunFolder
from personabench.run import judging
from personabench.run.progress import Progress
from personabench.types import Call, Judgement, Sample


@dataclasses.dataclass(frozen=True)
class PanelOptions:
    """The judges and wordings of a panel, and the answers that it judges.

    Attributes:
        judges: backend and options of each judge; the first also writes the vague answers.
        prompts: values of the task's option for the judge's wording; empty for the run's own.
        vague: judge vague answers as well.
        limit: the number of answers of each run, in file order; None for all.
        labels: human scores of answers, 0 to 1, by fingerprint and sample id, beside the judges.
    """

    judges: Sequence[tuple[str, BackendOptions]]
    prompts: Sequence[str]
    results: Path
    cache: Policy = "use"
    concurrency: int | None = None
    limit: int | None = None
    vague: bool = False
    labels: Mapping[str, Mapping[str, float]] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass
class _Answers:
    """The answers of a run with their task and data."""

    folder: RunFolder
    name: str
    task: JudgedTask
    dataset: Dataset
    positions: Sequence[int]


async def judge_panel(folders: Sequence[RunFolder], options: PanelOptions) -> Panel:
    """Judge the answers of runs by every judge and wording, and compare the judges.

    Raises:
        UsageError: the runs are not of one judged task, or a judge or wording cannot be used.
        BackendDown: no call succeeds any more; finished judgements are on disk.
        KeyboardInterrupt: interrupted; finished judgements are on disk.
    """
    runs = [_open_run(folder, options.limit) for folder in folders]
    people = [_read_labels(run, options.labels) for run in runs if options.labels]
    if len({run.task.name for run in runs}) > 1:
        raise UsageError("a panel needs runs of one task")
    variants = _list_variants(runs[0].task, options.prompts)
    metric = (*judged_metrics(runs[0].task), *runs[0].task.metrics)[0]

    verdicts: list[Verdicts] = []
    costs: dict[Column, list[Call]] = {}
    vague: list[Vague] = []
    vague_answers: dict[str, str] = {}
    vague_calls: dict[Column, list[Call]] = {}
    writing: Cost | None = None
    async with contextlib.AsyncExitStack() as stack:
        cache = None
        if options.cache != "off":
            cache = Cache(options.results / "cache.sqlite", writing=True)
            stack.callback(cache.close)
        for backend_name, backend_options in options.judges:
            client = await stack.enter_async_context(
                _open_judge(backend_name, backend_options, options, cache)
            )
            if options.vague and not vague_answers:
                vague_answers, calls = await _write_vague_answers(runs[0], client)
                writing = _add_up(Column(client.backend.identity["name"]), calls)
            for prompt in variants:
                column = Column(client.backend.identity["name"], prompt)
                calls = costs.setdefault(column, [])
                for run in runs:
                    variant = _with_prompt(run.task, prompt)
                    verdicts.append(await _judge_run(run, variant, client, column, metric, calls))
                if vague_answers:
                    variant = _with_prompt(runs[0].task, prompt)
                    counts, calls = await _judge_vague(
                        runs[0], variant, vague_answers, client, column, metric
                    )
                    vague.append(counts)
                    vague_calls[column] = calls

    verdicts += people
    written = [answer for answer in vague_answers.values() if answer]
    return Panel(
        metric.name,
        metric.higher_is_better,
        verdicts,
        compare_judges(verdicts),
        [_add_up(column, calls) for column, calls in costs.items()],
        vague,
        len(vague_answers) - len(written),
        [_add_up(column, calls) for column, calls in vague_calls.items()],
        writing,
    )


def _read_labels(run: _Answers, labels: Mapping[str, Mapping[str, float]]) -> Verdicts:
    """Human labels of a run's answers as the verdicts of one more judge.

    Raises:
        UsageError: a label is no score from 0 to 1.
    """
    index = run.dataset.index()
    answered = [index[position][0] for position in run.positions]
    scores = labels.get(run.folder.spec().fingerprint, {})
    for sample_id, score in scores.items():
        if not 0 <= score <= 1:
            raise UsageError(f"--labels: the label of {sample_id} is {score:g}, expected 0 to 1")
    known = {name: scores[name] for name in answered if name in scores}
    mean = sum(known.values()) / len(known) if known else None
    return Verdicts(run.name, Column(PEOPLE), mean, known, len(answered) - len(known))


def _open_run(folder: RunFolder, limit: int | None) -> _Answers:
    spec, summary = folder.spec(), folder.summary()
    task = find_task(spec.task, spec.task_params, spec.task_hash)
    dataset = find_dataset(task, summary, summary.data) if task else None
    if task is None or dataset is None:
        raise UsageError(f"{folder.path}: {explain_missing_data(task, summary)}")
    if not isinstance(task, JudgedTask):
        raise UsageError(
            f"{folder.path}: {task.name} has no judge of its own; the judge of a rubric file is "
            "compared with labels by `personabench judge-report`"
        )

    answered = {line.sample_id for line in folder.iter_predictions() if line.error is None}
    positions = [
        position for position, (sample_id, _) in enumerate(dataset.index()) if sample_id in answered
    ]
    name = f"{label(summary)} · {summary.model}"
    return _Answers(folder, name, task, dataset, positions[:limit])


def _list_variants(task: JudgedTask, prompts: Sequence[str]) -> Sequence[str]:
    """The wordings to judge with; an empty one is that of the run.

    Raises:
        UsageError: the task's judge has no such wording.
    """
    choices = list(_prompt_choices(task).values())
    all_choices = [choice for option_choices in choices for choice in option_choices]
    for prompt in prompts:
        if prompt not in all_choices:
            raise UsageError(
                f"--prompts {prompt}: the judge of {task.name} has "
                f"{'the wordings ' + ', '.join(all_choices) if all_choices else 'one wording'}"
            )
    return prompts or [""]


def _prompt_choices(task: JudgedTask) -> Mapping[str, Sequence[str]]:
    """The options of the judge that are a choice of texts, with their choices."""
    hints = get_type_hints(type(task.params))
    return {
        name: get_args(hints[name])
        for name in judge_params(task)
        if get_origin(hints[name]) is Literal and isinstance(get_args(hints[name])[0], str)
    }


def _with_prompt(task: JudgedTask, prompt: str) -> JudgedTask:
    for name, choices in _prompt_choices(task).items():
        if prompt in choices:
            return type(task)(dataclasses.replace(task.params, **{name: prompt}))
    return task


@contextlib.asynccontextmanager
async def _open_judge(
    name: str, options: BackendOptions, panel: PanelOptions, cache: Cache | None
) -> AsyncIterator[Client]:
    backend = backends.create(name, options)
    try:
        await backend.identify()
        dialects, probe = Dialects(panel.results), probe_request(0.0, 1.0, judging.JUDGE_SEED)
        dialects.adopt_stored(backend, probe)
        log = panel.results / "judgements" / "panel.log"
        log.parent.mkdir(parents=True, exist_ok=True)
        # Only a model that runs on this machine has messages of its own.
        await backend.open(log if name in ("local", "vllm") else None)
        concurrency = panel.concurrency or backend.concurrency
        if panel.cache != "only":
            await dialects.settle(backend, concurrency, probe)
        journal = Journal(cache, f"panel {backend.identity['name']}") if cache else None
        yield Client(backend, cache, panel.cache, concurrency, journal=journal)
    finally:
        await backend.aclose()


async def _judge_run(
    run: _Answers,
    task: JudgedTask,
    client: Client,
    column: Column,
    metric: Metric,
    calls: list[Call],
) -> Verdicts:
    key = judging.judge_key(task, client.backend.identity)
    run.folder.start(run.folder.spec())
    try:
        missing = judging.unjudged(run.folder, run.dataset, run.positions, key)
        progress = Progress()
        await judging.judge(run.folder, task, run.dataset, missing, key, client, progress)
    finally:
        run.folder.close()
    if progress.stopping:
        raise KeyboardInterrupt

    judgements = run.folder.judgements(key)
    scores: dict[str, float] = {}
    values: list[Any] = []
    unjudged = failed = 0
    for position in run.positions:
        sample = run.dataset.load(position)
        judgement = judgements.get(sample.id)
        if judgement is None:
            failed += 1
            continue
        calls += judgement.calls
        value = _measure(task, judgement, sample, metric)
        if value is None:
            unjudged += 1
            continue
        score = _aggregate(metric, [value])
        # The metric leaves some samples out, such as questions that cannot be answered.
        if score is not None:
            scores[sample.id] = score
            values.append(value)
    return Verdicts(run.name, column, _aggregate(metric, values), scores, unjudged, failed)


def _measure(
    task: JudgedTask, judgement: Judgement, sample: Sample, metric: Metric
) -> float | list[float] | None:
    if judgement.values is None:
        return None
    return task.measure_interaction({}, judgement.values, sample).get(metric.name)


def _aggregate(metric: Metric, values: Sequence[float | list[float]]) -> float | None:
    if not values:
        return None
    score = float(metric.aggregate(np.array(values, dtype=float)))
    return None if math.isnan(score) else score


async def _write_vague_answers(run: _Answers, client: Client) -> tuple[dict[str, str], list[Call]]:
    """A vague answer for each sample, empty for one that holds its gold, and the calls."""
    calls: list[Call] = []

    async def write(position: int) -> tuple[str, str]:
        sample = run.dataset.load(position)
        writer = Role("judge", client, sample.user_id, judging.JUDGE_SEED, sample.id)
        answer = await write_vague_answer(
            writer, sample.stimulus or sample.input, sample.references
        )
        calls.extend(writer.calls)
        return sample.id, answer

    return dict(await asyncio.gather(*map(write, run.positions))), calls


async def _judge_vague(
    run: _Answers,
    task: JudgedTask,
    answers: Mapping[str, str],
    client: Client,
    column: Column,
    metric: Metric,
) -> tuple[Vague, list[Call]]:
    calls: list[Call] = []

    async def judge(sample: Sample, answer: str) -> float | list[float] | None:
        role = Role("judge", client, sample.user_id, judging.JUDGE_SEED, sample.id)
        try:
            values = await task.assess(sample, answer, {}, role)
        except BackendError:
            return None
        finally:
            calls.extend(role.calls)
        if values is None:
            return None
        return task.measure_interaction({}, values, sample).get(metric.name)

    samples = map(run.dataset.load, run.positions)
    pairs = [(sample, answers.get(sample.id, "")) for sample in samples]
    values = await asyncio.gather(*(judge(sample, text) for sample, text in pairs if text))
    judged = [value for value in values if value is not None]
    # None for samples that the metric leaves out.
    results = [_aggregate(metric, [value]) for value in judged]
    scores = [score for score in results if score is not None]
    passed = sum(score >= PASS for score in scores)
    return Vague(column, passed, len(scores), missing=len(values) - len(judged)), calls


def _add_up(column: Column, calls: Sequence[Call]) -> Cost:
    return Cost(
        column,
        len(calls),
        sum(call.input_tokens for call in calls),
        sum(call.output_tokens for call in calls),
    )
