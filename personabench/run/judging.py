"""Judge the answers of a run; judgements are stored apart from the answers.

A judge is identified by its model and by the task options that only the judge reads. Each judge has
a file of its own in the run folder, so another judge assesses the same answers again without new
predictions, and no judge is asked twice about an answer.
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from personabench.api.dataset import Dataset
from personabench.api.judged import JudgedTask, judge_content, judge_params
from personabench.api.source import source_hash
from personabench.api.task import Task
from personabench.errors import BackendDown, BackendError, PluginError, RunError, UsageError
from personabench.hashing import digest
from personabench.models.call_order import number_tasks
from personabench.models.client import Client
from personabench.models.roles import Role, RoleName
from personabench.results.run_folder import RunFolder
from personabench.run.attempt import comes_from_models, plain
from personabench.run.controls import without_control
from personabench.run.interrupts import GRACE, cancel_all, on_interrupt
from personabench.run.progress import Progress
from personabench.run.quiet import describe, withhold
from personabench.run.watchdog import watch_loop
from personabench.types import Judgement, Prediction

JUDGE_SEED = 0

_log = logging.getLogger("personabench.judging")


def active_roles(task: Task, named: Sequence[RoleName]) -> tuple[RoleName, ...]:
    """The roles of a run: those that the task always has, and its optional ones that are named."""
    optional = [role for role in task.optional_roles if role in named and role not in task.roles]
    return (*task.roles, *optional)


def judge_key(task: Task, identity: Mapping[str, str]) -> str:
    """Identify a judge: SHA-256 of its model, its options, and the task's source and version."""
    options = judge_options(task)
    source = [task.name, source_hash(type(task)), task.version]
    content = judge_content(task)
    # Left out if it is empty, so that judges of tasks without it keep their keys.
    further = {"content": content} if content else {}
    return digest({"judge": dict(identity), "task": source, "params": options, **further})


def judge_options(task: Task) -> dict[str, Any]:
    """The options of a task that only its judge reads."""
    params = dataclasses.asdict(task.params)
    return {name: params[name] for name in judge_params(task)}


def prompt_version(task: Task) -> str:
    """The version of a judge's prompt in 8 characters: the hash of its wording or of the source.

    The source holds the prompt, so that a changed prompt is always another version.
    """
    return (judge_content(task) or source_hash(type(task)))[:8]


def answer_key(prediction: Prediction) -> str:
    """Identify an answer by its content, the recorded interaction included."""
    return digest([prediction.output, prediction.interaction])[:16]


def unjudged(
    folder: RunFolder,
    dataset: Dataset,
    positions: Sequence[int],
    key: str,
    again: Collection[int] = (),
) -> list[int]:
    """Return the positions whose answers have no judgement, in file order.

    Args:
        key: the judge.
        again: positions to judge again, unless the refresh in progress has judged them already.
    """
    judged_answers = _judged_answers(folder, dataset, key, again)
    index = dataset.index()
    positions = sorted(positions)
    predictions = folder.ordered_predictions(index[position][0] for position in positions)
    return [
        position
        for position, prediction in zip(positions, predictions, strict=True)
        if prediction is not None
        and prediction.error is None
        and judged_answers.get(prediction.sample_id) != answer_key(prediction)
    ]


def _judged_answers(
    folder: RunFolder, dataset: Dataset, key: str, again: Collection[int]
) -> dict[str, str]:
    """Map samples to the answers that a judge has assessed, without those to judge again."""
    answers = {name: line.answer for name, line in folder.judgements(key).items()}
    refresh = folder.refresh.read() if again else None
    if refresh is None:
        return answers

    older_lines = refresh.judgements.get(folder.judgements_path(key).name, 0)
    if older_lines:
        index = dataset.index()
        for position in again:
            answers.pop(index[position][0], None)
        newer = folder.judgements(key, older_lines)
        answers |= {name: line.answer for name, line in newer.items()}
    return answers


async def judge(
    folder: RunFolder,
    task: Task,
    dataset: Dataset,
    positions: Sequence[int],
    key: str,
    client: Client,
    progress: Progress | None = None,
) -> None:
    """Judge answers, as many at the same time as the judge's client allows.

    Args:
        key: the judge, which names the file of judgements.
        progress: counts judged and failed answers; `stopping` is set by the first interrupt, after
            which only judgements in flight are finished.

    Raises:
        BackendDown: no call succeeds any more; finished judgements are on disk.
        RunError: the disk is full.
        KeyboardInterrupt: interrupted twice; finished judgements are on disk.
    """
    if not isinstance(task, JudgedTask):
        raise UsageError(f"task {task.name} has a judge but no method `assess`")
    number_tasks()
    index = dataset.index()
    if getattr(task, "judge_sees_own_history", False):
        dataset = without_control(dataset)
    progress = progress or Progress()
    progress.total = len(positions)
    progress.sensitive = task.sensitive
    predictions = folder.ordered_predictions(index[position][0] for position in positions)
    pending: Iterator[tuple[int, Prediction | None]] = zip(positions, predictions, strict=True)

    async def work() -> None:
        for position, prediction in pending:
            if progress.stopping:
                return
            if prediction is None:
                continue
            judgement = await _assess(task, dataset, position, prediction, client, progress)
            if judgement is None:
                continue
            folder.append(folder.judgements_path(key), judgement)
            client.finish(judgement.sample_id)
            progress.done += 1

    worker_count = min(client.concurrency, len(positions))
    workers = [asyncio.create_task(work()) for _ in range(worker_count)]
    try:
        await _finish_workers(workers, progress)
    except BackendDown as error:
        if not task.sensitive:
            raise
        raise BackendDown(withhold(error)) from None
    if progress.dropped:
        raise KeyboardInterrupt


async def _assess(
    task: JudgedTask,
    dataset: Dataset,
    position: int,
    prediction: Prediction,
    client: Client,
    progress: Progress,
) -> Judgement | None:
    """Judge one answer; None, counted in `progress`, if a call or the task's own code failed."""
    sample = dataset.load(position)
    role = Role("judge", client, sample.user_id, JUDGE_SEED, sample.id)
    try:
        values: Any = await task.assess(
            sample, prediction.output or "", prediction.interaction, role
        )
    except (RunError, UsageError):
        raise
    except Exception as error:
        # A server's error needs no traceback, and the guard has logged that of a plugin's.
        if not isinstance(error, BackendError | PluginError):
            _log.exception("judging %s", sample.id)
        if not comes_from_models(error):
            client.finish(sample.id)
        reason = describe(error, sensitive=task.sensitive)
        _log.warning("%s could not be judged: %s", sample.id, reason)
        progress.failed += 1
        progress.first_failure = progress.first_failure or reason
        return None

    plain_values = None if values is None else plain(values)
    return Judgement(sample.id, answer_key(prediction), plain_values, tuple(role.calls), role.flags)


async def _finish_workers(workers: Sequence[asyncio.Task[None]], progress: Progress) -> None:
    """Wait for the workers; an interrupt lets judgements in flight finish, a second drops them."""

    def cancel() -> None:
        for worker in workers:
            worker.cancel()

    def wind_down() -> None:
        progress.stopping = True
        asyncio.get_running_loop().call_later(GRACE, cancel)

    def drop() -> None:
        progress.dropped = True
        cancel()

    try:
        with watch_loop(), on_interrupt(wind_down, drop):
            await asyncio.gather(*workers)
    except asyncio.CancelledError:
        if not progress.stopping:
            raise
    finally:
        await cancel_all(workers)
