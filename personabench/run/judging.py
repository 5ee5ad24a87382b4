"""Judgements: what a judge makes of the answers of a run, kept apart from the answers.

A judge is named by its model and by the task's options that only it reads.  Each judge has a file of its own in the run
folder, so another judge judges anew without a new answer, and the same one is never asked twice about an answer.
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from personabench.api.dataset import Dataset
from personabench.api.judged import JudgedTask, judge_params
from personabench.api.source import source_hash
from personabench.api.task import Task
from personabench.errors import BackendError, RunError, UsageError
from personabench.hashing import digest
from personabench.models.client import Client
from personabench.models.roles import Role, RoleName
from personabench.results.run_folder import RunFolder
from personabench.run.attempt import plain
from personabench.run.interrupts import GRACE, on_interrupt
from personabench.run.progress import Progress
from personabench.types import Judgement, Prediction

JUDGE_SEED = 0
_log = logging.getLogger("personabench.judging")


def active_roles(task: Task, named: Sequence[RoleName]) -> tuple[RoleName, ...]:
    """The roles of a run of a task: those it always has, and of the optional ones those that the run names."""
    return (
        *task.roles,
        *(role for role in task.optional_roles if role in named and role not in task.roles),
    )


def judge_key(task: Task, identity: Mapping[str, str]) -> str:
    """The name of a judge: SHA-256 over its model, the task's source and version, and the options only it reads."""
    params = dataclasses.asdict(task.params)
    options = {name: params[name] for name in judge_params(task)}
    source = [task.name, source_hash(type(task)), task.version]
    return digest({"judge": dict(identity), "task": source, "params": options})


def answer_key(prediction: Prediction) -> str:
    """The name of what is judged."""
    return digest([prediction.output, prediction.interaction])[:16]


def unjudged(
    folder: RunFolder,
    dataset: Dataset,
    positions: Sequence[int],
    key: str,
    anew: Collection[int] = (),
) -> list[int]:
    """The positions whose answers a judge has not seen yet, in file order.

    Of those to judge `anew`, what the judge said before the refresh that is under way does not count.
    """
    index, wanted = dataset.index(), sorted(positions)
    renewal = folder.read_refresh() if anew else None
    older = renewal.judgements.get(folder.judgements_path(key).name, 0) if renewal else 0
    seen = {name: line.answer for name, line in folder.judgements(key).items()}
    if older:
        seen |= dict.fromkeys((index[position][0] for position in anew), "")
        seen |= {name: line.answer for name, line in folder.judgements(key, older).items()}
    lines = folder.ordered_predictions(index[position][0] for position in wanted)
    return [
        position
        for position, line in zip(wanted, lines, strict=True)
        if line is not None and line.error is None and seen.get(line.sample_id) != answer_key(line)
    ]


async def judge(
    folder: RunFolder,
    task: Task,
    dataset: Dataset,
    positions: Sequence[int],
    key: str,
    client: Client,
    progress: Progress | None = None,
) -> None:
    """Have answers judged, as many at once as the judge takes.

    `progress` counts those that could not be, which are owed, and says whether an interrupt cut it short: the first one
    lets what is under way finish.

    Raises:
        BackendDown: no call succeeds any more; what was judged is on disk.
        RunError: the disk is full.
        KeyboardInterrupt: interrupted twice; what was judged is on disk.
    """
    if not isinstance(task, JudgedTask):
        raise UsageError(f"task {task.name} has a judge but no method `assess`")
    index, progress = dataset.index(), progress or Progress()
    progress.total = len(positions)
    lines = folder.ordered_predictions(index[position][0] for position in positions)
    pending: Iterator[tuple[int, Prediction | None]] = zip(positions, lines, strict=True)

    async def work() -> None:
        for position, line in pending:
            if progress.stopping:
                return
            if line is None:
                continue
            sample = dataset.load(position)
            role = Role("judge", client, sample.user_id, JUDGE_SEED)
            try:
                values: Any = await task.assess(sample, line.output or "", line.interaction, role)
            except (RunError, UsageError):
                raise
            except Exception as failure:
                if not isinstance(failure, BackendError):
                    _log.exception("judging %s", sample.id)
                _log.warning("%s could not be judged: %s", sample.id, failure)
                progress.failed += 1
                progress.first_failure = progress.first_failure or str(failure)
                continue
            found = None if values is None else plain(values)
            judged = Judgement(sample.id, answer_key(line), found, tuple(role.calls), role.flags)
            folder.append(folder.judgements_path(key), judged)
            progress.done += 1

    workers = [asyncio.create_task(work()) for _ in range(min(client.concurrency, len(positions)))]

    def drop() -> None:
        for worker in workers:
            worker.cancel()

    def wind_down() -> None:
        progress.stopping = True
        asyncio.get_running_loop().call_later(GRACE, drop)

    def leave() -> None:
        progress.dropped = True
        drop()

    try:
        with on_interrupt(wind_down, leave):
            await asyncio.gather(*workers)
    except asyncio.CancelledError:
        if not progress.stopping:
            raise
    finally:
        drop()
        await asyncio.gather(*workers, return_exceptions=True)
    if progress.dropped:
        raise KeyboardInterrupt
