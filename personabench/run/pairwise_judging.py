"""The answers of two runs before a judge, side by side on the same samples.

What was judged stays judged: every verdict is a line of a file that is named by both runs and by the terms of judging
(model, wording, samples, what the judge is told), so the same command asks only for what is missing, and other terms
write another file.  A verdict counts for the answers it was given for and no others.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, TypeVar

import msgspec
from filelock import FileLock, Timeout

from personabench.api.dataset import Dataset
from personabench.api.task import Task
from personabench.errors import BackendError, DataError, RunError, UsageError
from personabench.hashing import digest
from personabench.metrics.judges import faireval, verbal_certainty
from personabench.metrics.judges.verdict import Pick, Verdict
from personabench.models.roles import Role
from personabench.models.tokens import Tokens
from personabench.results.run_folder import RunFolder, _cannot_write, _write_whole
from personabench.types import Judgement, Prediction, Sample, to_json

RECORD_TOKENS = 300
_log = logging.getLogger("personabench.judging")
JudgeProtocol = Literal["scores", "certainty"]
T = TypeVar("T")


class JudgeConfig(msgspec.Struct, frozen=True):
    """How two answers are judged.

    Attributes:
        judge: the judge's model, free of place and time.
        form: scores as in FairEval, or a choice in the person's place with a certainty.
        samples, temperature: of FairEval, in each order; seed: of what stands first where one order is asked.
        records: how many of the person's newest records the judge is shown.
        prompt: the hash of the wording; task: that of the source of the task, which words the records.
    """

    judge: Mapping[str, str]
    form: JudgeProtocol = "scores"
    samples: int = faireval.VOTES
    temperature: float = faireval.TEMPERATURE
    seed: int = 0
    records: int = 5
    prompt: str = ""
    task: str = ""


class Line(msgspec.Struct, frozen=True):
    """A line of the file: a verdict and the name of the two answers, by content, that it is about."""

    answers: str
    verdict: Verdict


class Pair(msgspec.Struct, frozen=True):
    """Two answers to one sample."""

    sample: Sample
    a: str
    b: str

    @property
    def answers(self) -> str:
        """The name of the two answers."""
        return digest([self.a, self.b])[:16]


def terms(judge: Mapping[str, str], form: JudgeProtocol, **changes: Any) -> JudgeConfig:
    """Terms with the wording of their form."""
    return JudgeConfig(
        dict(judge),
        form,
        prompt=(faireval if form == "scores" else verbal_certainty).PROMPT,
        **changes,
    )


def path_of(results: Path, a: RunFolder, b: RunFolder, agreed: JudgeConfig) -> Path:
    """Where the verdicts on two runs lie: `judgements/<run a>-<run b>-<terms>.jsonl`, eight characters each."""
    names = (a.spec().fingerprint, b.spec().fingerprint, digest(agreed))
    return results / "judgements" / f"{'-'.join(name[:8] for name in names)}.jsonl"


def pairs(a: RunFolder, b: RunFolder, dataset: Dataset) -> Iterator[Pair]:
    """The samples that both runs answered, in file order; an answer that is empty is told as such."""
    ids = [name for name, _ in dataset.index()]
    lines = zip(a.ordered_predictions(ids), b.ordered_predictions(ids), strict=True)
    for position, both in enumerate(lines):
        texts = [_answer(line) for line in both if line is not None and line.error is None]
        if len(texts) == 2:
            yield Pair(dataset.load(position), *texts)


def _answer(line: Prediction) -> str:
    return (line.output or "").strip() or "(an empty reply)"


def check(a: RunFolder, b: RunFolder) -> list[str]:
    """Two runs can be judged side by side when they answer the same questions.  Returns what is worth a warning.

    Raises:
        UsageError: they do not, or are one run.
        DataError: the answers of one are not those that it was scored with.
    """
    one, other = a.spec(), b.spec()
    if one.fingerprint == other.fingerprint:
        raise UsageError(f"{a.path} is judged against itself; name two runs")
    for name in ("task", "separation", "split", "data_hash"):
        left, right = getattr(one, name), getattr(other, name)
        if left != right:
            raise UsageError(
                f"the runs answer other questions: {name} is {left[:40]} and {right[:40]}"
            )
    params = one.task_params, other.task_params
    for name in sorted({*params[0], *params[1]}):
        left, right = (each.get(name) for each in params)
        if left != right:
            raise UsageError(
                f"the runs answer other questions: task.{name} is {left!s:.40} and {right!s:.40}"
            )
    for folder in (a, b):
        folder.verify(folder.predictions_path)
    if one.simulator != other.simulator:
        left, right = (
            "none" if not each.simulator else each.simulator["name"] for each in (one, other)
        )
        raise UsageError(f"the runs talked to other users: the simulator is {left} and {right}")
    doubts = []
    if one.task_hash != other.task_hash:
        doubts.append(
            "the runs differ in the source of their task, and so perhaps in what was asked"
        )
    if one.sampling != other.sampling:
        doubts.append(
            f"the runs differ in decoding: {to_json(one.sampling)} and {to_json(other.sampling)}"
        )
    return doubts


def read(path: Path) -> list[Line]:
    """The lines of a file of verdicts, the latest of each sample; a torn last line counts as missing.

    Raises:
        DataError: a line is broken.
    """
    return list({line.verdict.sample_id: line for line in _lines(path, Line)}.values())


def read_any(path: Path) -> list[Verdict] | list[Judgement]:
    """The verdicts of a file of `personabench judge`, or the judgements of one in a run folder.

    Raises:
        DataError: it is neither, or a line is broken.
    """
    with path.open("rb") as file:
        scored = b'"verdict"' not in file.readline()
    if not scored:
        return [line.verdict for line in read(path)]
    return list({line.sample_id: line for line in _lines(path, Judgement)}.values())


def _lines(path: Path, kind: type[T]) -> Iterator[T]:
    decoder = msgspec.json.Decoder(kind)
    for number, text in enumerate(path.read_bytes().split(b"\n")[:-1], 1):
        try:
            yield decoder.decode(text)
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise DataError(
                f"{path}, line {number} is not what a judge writes down: {error}"
            ) from error


def read_labels(path: Path) -> dict[str, Pick]:
    """People's picks by sample id, from JSON lines of `{"id", "label"}`, labels a, b or tie.

    Raises:
        DataError: a line is something else.
    """
    found: dict[str, Pick] = {}
    for number, text in enumerate(path.read_bytes().splitlines(), 1):
        try:
            line = (
                msgspec.json.decode(text, type=dict[str, str | None])
                if text.strip()
                else {"label": None}
            )
            if line["label"] is not None:
                found[str(line["id"])] = msgspec.convert(line["label"], Pick)
        except (msgspec.MsgspecError, UnicodeDecodeError, KeyError) as error:
            raise DataError(
                f'{path}, line {number}: expected {{"id": ..., "label": "a", "b" or "tie"}}: {error}'
            ) from error
    return found


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Say of a file of verdicts that it cannot be written, where that is so."""
    try:
        yield
    except OSError as error:
        raise _cannot_write(path, error) from error


async def duel(
    wanted: Sequence[Pair],
    task: Task,
    agreed: JudgeConfig,
    path: Path,
    role: Callable[[str], Role],
    *,
    workers: int,
    done: Callable[[], None] = lambda: None,
) -> tuple[list[Verdict], list[str]]:
    """The verdicts on pairs of answers, those of the file first asked for only where they are missing.

    `role` makes the judge of a user's sample; `done` is called after each item.

    Returns:
        the verdicts in the order of `wanted`, and the errors of samples that could not be judged because calls failed.

    Raises:
        UsageError: another process is judging the same.
        BackendDown: no call succeeds any more; what was judged is on disk.
        RunError: the file cannot be written.
    """
    lock = FileLock(path.with_suffix(".lock"), timeout=0)
    try:
        with writing(path):
            lock.acquire()
    except Timeout as error:
        raise UsageError(f"another process is writing to {path}; wait for it or stop it") from error
    try:
        return await _judged(wanted, task, agreed, path, role, workers, done)
    finally:
        lock.release()


async def _judged(
    wanted: Sequence[Pair],
    task: Task,
    agreed: JudgeConfig,
    path: Path,
    role: Callable[[str], Role],
    workers: int,
    done: Callable[[], None],
) -> tuple[list[Verdict], list[str]]:
    known: dict[tuple[str, str], Verdict] = {}
    if path.exists():
        with writing(path):
            os.truncate(path, path.read_bytes().rfind(b"\n") + 1)
        known = {(line.verdict.sample_id, line.answers): line.verdict for line in read(path)}
    owed = iter([pair for pair in wanted if (pair.sample.id, pair.answers) not in known])
    failures: list[str] = []

    async def work() -> None:
        for pair in owed:
            judge = role(pair.sample.user_id)
            try:
                verdict = await _verdict(pair, task, agreed, judge)
            except RunError:
                raise
            except BackendError as error:
                _log.warning("%s could not be judged: %s", pair.sample.id, error)
                failures.append(f"{pair.sample.id}: {error}")
                continue
            verdict = msgspec.structs.replace(verdict, calls=tuple(judge.calls))
            known[pair.sample.id, pair.answers] = verdict
            with writing(path):
                _write_whole(file, to_json(Line(pair.answers, verdict)).encode() + b"\n")
            done()

    with writing(path):
        file = path.open("ab", buffering=0)
    with file:
        tasks = [asyncio.create_task(work()) for _ in range(workers)]
        try:
            await asyncio.gather(*tasks)
        finally:
            for each in tasks:
                each.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
    found = [known.get((pair.sample.id, pair.answers)) for pair in wanted]
    return [verdict for verdict in found if verdict is not None], failures


async def _verdict(pair: Pair, task: Task, agreed: JudgeConfig, judge: Role) -> Verdict:
    sample = pair.sample
    known = told(sample, task, agreed.records, judge.tokens)
    if agreed.form == "scores":
        return await faireval.compare(
            judge,
            sample_id=sample.id,
            user_id=sample.user_id,
            background=known,
            request=sample.input,
            a=pair.a,
            b=pair.b,
            votes=agreed.samples,
            temperature=agreed.temperature,
        )
    return await verbal_certainty.judge_preference(
        judge,
        sample_id=sample.id,
        user_id=sample.user_id,
        background=known,
        request=sample.input,
        a=pair.a,
        b=pair.b,
        tie=True,
        seed=agreed.seed,
    )


def told(sample: Sample, task: Task, records: int, tokens: Tokens) -> str:
    """The person's newest records, oldest of them first, each cut to 300 tokens; empty without any."""
    newest = sample.history[-records:] if records else ()
    return "\n\n".join(tokens.truncate(task.describe(record), RECORD_TOKENS) for record in newest)
