"""Have a judge compare the answers of two runs, sample by sample.

Verdicts are stored one by one (`verdict_file`), so the same command judges only the pairs without
one. A verdict counts for the two answers that it was given for and for no others.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import msgspec
from filelock import FileLock, Timeout

from personabench.api.source import source_hash
from personabench.api.task import Task
from personabench.errors import BackendError, RunError, UsageError
from personabench.metrics.judges import faireval, verbal_certainty
from personabench.metrics.judges.verdict import Verdict
from personabench.models import backends
from personabench.models.backends.base import Backend, BackendOptions
from personabench.models.cache import Cache, Policy
from personabench.models.call_order import number_tasks
from personabench.models.client import Client
from personabench.models.journal import Journal
from personabench.models.probe import Dialects, probe_request
from personabench.models.roles import Role
from personabench.models.tokens import Tokens
from personabench.results.files import write_line
from personabench.results.run_folder import RunFolder
from personabench.run.answer_pairs import AnswerPair
from personabench.run.verdict_file import (
    StoredVerdict,
    explain_write_errors,
    read_verdicts,
    verdict_path,
)
from personabench.types import Sample, to_json

# Longest part of a record in the judge's prompt.
RECORD_TOKENS = 300

_log = logging.getLogger("personabench.judging")

JudgeProtocol = Literal["faireval", "verbal-certainty"]


class JudgeConfig(msgspec.Struct, frozen=True):
    """Everything beside the answers that can change a verdict.

    Attributes:
        judge: the identity of the judge's model.
        protocol: scores in both orders (`faireval`), or a choice in the user's place with a
            certainty (`verbal-certainty`).
        votes, temperature: of `faireval`: replies in each order, and their temperature.
        seed: of `verbal-certainty`: decides which answer is shown first.
        records: number of the user's newest records in the judge's prompt.
        prompt: the hash of the wording.
        task: the hash of the task's source, which puts records into words.
    """

    judge: Mapping[str, str]
    protocol: JudgeProtocol = "faireval"
    votes: int = faireval.VOTES
    temperature: float = faireval.TEMPERATURE
    seed: int = 0
    records: int = 5
    prompt: str = ""
    task: str = ""


@dataclass(frozen=True)
class JudgeOptions:
    """The options of `personabench judge`, named as on the command line."""

    backend: str
    backend_options: BackendOptions
    protocol: JudgeProtocol = "faireval"
    votes: int = faireval.VOTES
    temperature: float = faireval.TEMPERATURE
    seed: int = 0
    records: int = 5
    concurrency: int | None = None
    cache: Policy = "use"
    results: Path = Path("results")


@dataclass(frozen=True)
class JudgingResult:
    """The verdicts on two runs.

    Attributes:
        config: everything beside the answers that can change a verdict.
        path: the file that stores the verdicts.
        verdicts: of the pairs that could be judged, in their order.
        failures: the errors of pairs whose calls failed.
    """

    config: JudgeConfig
    path: Path
    verdicts: list[Verdict]
    failures: list[str]

    @property
    def failed(self) -> int:
        """Number of pairs whose calls failed."""
        return len(self.failures)

    @property
    def first_failure(self) -> str:
        """The error of the first pair whose calls failed; "" if there is none."""
        return self.failures[0] if self.failures else ""


async def judge_runs(
    a: RunFolder,
    b: RunFolder,
    task: Task,
    pairs: Sequence[AnswerPair],
    options: JudgeOptions,
    on_verdict: Callable[[], None],
) -> JudgingResult:
    """Judge the pairs of two runs' answers that have no stored verdict.

    Args:
        on_verdict: called after each new verdict.

    Raises:
        UsageError: the judge cannot be used, or another process is judging the same runs.
        BackendDown: no call succeeds any more; finished verdicts are on disk.
        RunError: the file cannot be written.
    """
    async with contextlib.AsyncExitStack() as stack:
        backend = backends.create(options.backend, options.backend_options)
        stack.push_async_callback(backend.aclose)
        await backend.identify()
        dialects = Dialects(options.results)
        probe = probe_request(0.0, 1.0, options.seed)
        dialects.adopt_stored(backend, probe)

        config = _configure(backend, task, options)
        path = verdict_path(options.results, a, b, config)
        with explain_write_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)

        # Only a model that runs on this machine has messages of its own.
        has_log = options.backend in ("local", "vllm")
        await backend.open(path.with_suffix(".log") if has_log else None)
        concurrency = options.concurrency or backend.concurrency
        if options.cache != "only":
            await dialects.settle(backend, concurrency, probe)
            # The judge's dialect is part of the configuration, which names the file.
            config = _configure(backend, task, options)
            path = verdict_path(options.results, a, b, config)

        cache = None
        if options.cache != "off":
            cache = Cache(options.results / "cache.sqlite", writing=True)
            stack.callback(cache.close)
        journal = Journal(cache, f"judge {path.stem}") if cache else None
        client = Client(backend, cache, options.cache, concurrency, journal=journal)
        verdicts, failures = await judge_pairs(
            pairs,
            task,
            config,
            path,
            lambda sample: Role("judge", client, sample.user_id, options.seed, sample.id),
            workers=client.concurrency,
            on_verdict=on_verdict,
            finish=client.finish,
        )
    return JudgingResult(config, path, verdicts, failures)


def _configure(backend: Backend, task: Task, options: JudgeOptions) -> JudgeConfig:
    return create_config(
        backend.identity,
        options.protocol,
        votes=options.votes,
        temperature=options.temperature,
        seed=options.seed,
        records=options.records,
        task=source_hash(type(task)),
    )


def create_config(
    judge: Mapping[str, str], protocol: JudgeProtocol, **settings: Any
) -> JudgeConfig:
    """Create a configuration with the wording of its protocol."""
    prompts = {"faireval": faireval.PROMPT, "verbal-certainty": verbal_certainty.PROMPT}
    return JudgeConfig(dict(judge), protocol, prompt=prompts[protocol], **settings)


async def judge_pairs(
    pairs: Sequence[AnswerPair],
    task: Task,
    config: JudgeConfig,
    path: Path,
    create_judge: Callable[[Sample], Role],
    *,
    workers: int,
    on_verdict: Callable[[], None] = lambda: None,
    finish: Callable[[str], None] = lambda sample_id: None,
) -> tuple[list[Verdict], list[str]]:
    """Judge the pairs that have no stored verdict, and append each verdict to the file.

    Args:
        path: the file of verdicts.
        create_judge: creates the judge of a sample's answers.
        workers: number of pairs judged at the same time.
        on_verdict: called after each verdict.
        finish: called with the id of each sample whose verdict is on disk.

    Returns:
        the verdicts in the order of the pairs, and the errors of pairs whose calls failed.

    Raises:
        UsageError: another process is writing to the file.
        BackendDown: no call succeeds any more; finished verdicts are on disk.
        RunError: the file cannot be written.
    """
    failures: list[str] = []
    with _locked(path):
        verdicts = _read_stored(path)
        pending = [pair for pair in pairs if (pair.sample.id, pair.key) not in verdicts]
        with explain_write_errors(path):
            file = path.open("ab", buffering=0)

        async def judge_one(pair: AnswerPair) -> None:
            judge = create_judge(pair.sample)
            try:
                verdict = await _judge_pair(pair, task, config, judge)
            except RunError:
                raise
            except BackendError as error:
                _log.warning("%s could not be judged: %s", pair.sample.id, error)
                failures.append(f"{pair.sample.id}: {error}")
                return

            verdict = msgspec.structs.replace(verdict, calls=tuple(judge.calls))
            line = to_json(StoredVerdict(pair.key, verdict)).encode() + b"\n"
            with explain_write_errors(path):
                write_line(file, line)
            finish(pair.sample.id)
            verdicts[pair.sample.id, pair.key] = verdict
            on_verdict()

        with file:
            await _run_workers(pending, judge_one, workers)

    keys = [(pair.sample.id, pair.key) for pair in pairs]
    return [verdicts[key] for key in keys if key in verdicts], failures


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Keep other processes from writing to the file of verdicts."""
    lock = FileLock(path.with_suffix(".lock"), timeout=0)
    try:
        with explain_write_errors(path):
            lock.acquire()
    except Timeout as error:
        raise UsageError(f"another process is writing to {path}; wait for it or stop it") from error
    try:
        yield
    finally:
        lock.release()


def _read_stored(path: Path) -> dict[tuple[str, str], Verdict]:
    """Read stored verdicts by sample and answers, after removing a torn last line."""
    if not path.exists():
        return {}
    with explain_write_errors(path):
        os.truncate(path, path.read_bytes().rfind(b"\n") + 1)
    stored = read_verdicts(path)
    return {(line.verdict.sample_id, line.answers): line.verdict for line in stored}


async def _run_workers(
    pairs: Sequence[AnswerPair], judge_one: Callable[[AnswerPair], Awaitable[None]], workers: int
) -> None:
    number_tasks()
    queue = iter(pairs)

    async def work() -> None:
        for pair in queue:
            await judge_one(pair)

    tasks = [asyncio.create_task(work()) for _ in range(workers)]
    try:
        await asyncio.gather(*tasks)
    finally:
        # After an error the other workers must not write to a closed file.
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _judge_pair(pair: AnswerPair, task: Task, config: JudgeConfig, judge: Role) -> Verdict:
    sample = pair.sample
    background = describe_records(sample, task, config.records, judge.tokens)
    if config.protocol == "faireval":
        return await faireval.compare(
            judge,
            sample_id=sample.id,
            user_id=sample.user_id,
            background=background,
            request=sample.input,
            a=pair.a,
            b=pair.b,
            votes=config.votes,
            temperature=config.temperature,
        )
    return await verbal_certainty.judge_preference(
        judge,
        sample_id=sample.id,
        user_id=sample.user_id,
        background=background,
        request=sample.input,
        a=pair.a,
        b=pair.b,
        tie=True,
        seed=config.seed,
    )


def describe_records(sample: Sample, task: Task, count: int, tokens: Tokens) -> str:
    """Describe the user's newest records, oldest first, each cut to 300 tokens."""
    newest = sample.history[-count:] if count else ()
    texts = [tokens.truncate(task.describe(record), RECORD_TOKENS) for record in newest]
    return "\n\n".join(texts)
