"""Audit of a data set: defects by which a score would say less than it seems to.

A gold answer in a history can be copied, a record newer than its question tells the future, and
options that are right because they are long need no user at all.  Everything is counted in two
passes over the samples, with examples by sample and record.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from personabench.api.data_sources import Audited
from personabench.api.dataset import Dataset, load_sample
from personabench.api.task import Task
from personabench.api.users import Marks, find_coinciding, mark_history
from personabench.run.gold_index import GoldIndex
from personabench.run.selection import select
from personabench.run.watchdog import watch_opening
from personabench.types import Record, Sample, User, moment, normalized

SHORT_GOLDS = (
    "{count:,} of {total:,} golds have fewer than five words, which repeat by chance: histories "
    "are not searched for them"
)
EXAMPLES = 5
"""Examples that are kept of each kind of defect."""

MAX_RECORDS = 5_000
"""Records and questions that the audit at the start of a run reads, a fraction of a second."""

# Standard deviations over chance.  With four options and three rules, chance alone reaches this in
# one of a thousand data sets.
_DEVIATIONS = 3.7
_EXCERPT = 80
# Seconds of work between two pauses of an audit, and of a pause: in a shorter one, threads that
# wait for the interpreter would not get it.
_MOMENT = 0.005
_PAUSE = 0.001


@dataclass(frozen=True)
class Defect:
    """A kind of defect and how often the data has it.

    Attributes:
        name: a short name; what: a description in words.
        count: the number of cases; of: the number of questions, users or histories examined.
        unit: the noun of both numbers.
        examples: facts of the first cases, by name.
    """

    name: str
    what: str
    count: int
    of: int
    unit: str
    examples: Sequence[dict[str, str]] = ()


@dataclass(frozen=True)
class Audit:
    """The result of an audit.

    Attributes:
        source: the location of the data.
        samples, users, records: the numbers read; total: the samples of the split.
        dated: the samples that have a time, before records that have one.
        defects: every kind of defect that the data could have, those without cases included.
        leaks: leaks that the task itself reports of its data.
        counts: facts that the task reports of its data, which are no leaks.
    """

    source: str
    samples: int
    total: int
    users: int
    records: int
    dated: int
    defects: Sequence[Defect]
    leaks: Sequence[str] = ()
    counts: Sequence[str] = ()
    seconds: float = 0.0

    def count(self, name: str) -> int:
        """The number of cases of a kind of defect; 0 if the data cannot have it."""
        return sum(defect.count for defect in self.defects if defect.name == name)

    @property
    def is_clean(self) -> bool:
        """Whether nothing was found."""
        return not self.leaks and not any(defect.count for defect in self.defects)

    @property
    def summary(self) -> str:
        """The result in one line, without any text of the data."""
        scope = f"all {self.total:,} questions"
        if self.samples < self.total:
            scope = f"{self.samples:,} of {self.total:,} questions"
        parts = [
            f"{defect.count:,} of {defect.of:,} {defect.unit} {defect.what}"
            for defect in self.defects
            if defect.count
        ]
        if self.leaks:
            parts.append("the task itself reports leaks")
        return f"audit of {scope}: {'; '.join(parts) or 'nothing found'}"


@dataclass
class _Cases:
    """The cases of one kind of defect so far."""

    name: str
    what: str
    unit: str
    count: int = 0
    of: int = 0
    examples: list[dict[str, str]] = field(default_factory=list)

    def add(self, **facts: str | None) -> None:
        """Count a case."""
        self.count += 1
        if len(self.examples) < EXAMPLES:
            self.examples.append({name: fact for name, fact in facts.items() if fact})

    def defect(self) -> Defect:
        """The kind of defect with its cases."""
        return Defect(self.name, self.what, self.count, self.of, self.unit, self.examples)


def audit(task: Task, dataset: Dataset, max_records: int | None = None) -> Audit:
    """Audit an opened split.

    Args:
        max_records: stop when so many records and questions have been read, taking users in the
            order of `--limit`.

    Raises:
        PluginError: the task's code fails.
    """
    auditor = _Auditor(task, dataset)
    for _ in auditor.steps(max_records):
        pass
    return auditor.result()


_brief: dict[str, Audit] = {}


def _brief_key(task: Task, dataset: Dataset) -> str:
    # Each seed of a command opens the same data again.
    return f"{task.name} {task.params} {dataset.hash}"


def audit_briefly(task: Task, dataset: Dataset) -> Audit | None:
    """Audit a part of a user's data that takes a fraction of a second; None for example data.

    Raises:
        PluginError: the task's code fails.
    """
    if dataset.sample:
        return None
    key = _brief_key(task, dataset)
    if key not in _brief:
        with watch_opening():
            _brief[key] = audit(task, dataset, MAX_RECORDS)
    return _brief[key]


async def audit_in_pauses(task: Task, dataset: Dataset) -> None:
    """Make the audit of `audit_briefly` while the event loop waits for something else.

    Raises:
        PluginError: the task's code fails.
    """
    key = _brief_key(task, dataset)
    if dataset.sample or key in _brief:
        return
    auditor = _Auditor(task, dataset)
    paused = time.monotonic()
    with watch_opening():
        for _ in auditor.steps(MAX_RECORDS):
            if time.monotonic() > paused + _MOMENT:
                await asyncio.sleep(_PAUSE)
                paused = time.monotonic()
        _brief[key] = auditor.result()


class _Auditor:
    """The state of one audit."""

    def __init__(self, task: Task, dataset: Dataset) -> None:
        self._began = time.perf_counter()
        self.task = task
        self.dataset = dataset
        self.index = dataset.index()
        self.positions: list[int] = []
        self.histories: dict[str, Marks] = {}
        self.records = 0
        self.dated = 0
        self._golds = GoldIndex()
        self._texts: list[_GoldText] = []
        self._numbers: dict[str, int] = {}
        self.short_golds = 0
        self._questions: dict[tuple[str, str, tuple[str, ...]], str] = {}
        self._options = _Options()
        # Of a bounded audit alone, so that its second pass need not load them again.
        self._kept: dict[int, Sample] = {}

        self.in_history = _Cases(
            "gold_in_history", "have their gold in their own history", "questions"
        )
        self.near_history = _Cases(
            "near_gold_in_history", "have most of their gold in their own history", "questions"
        )
        self.across = _Cases(
            "gold_of_other_user", "have most of their gold in another user's records", "questions"
        )
        self.late = _Cases("future_record", "are older than a record of their history", "questions")
        self.repeated_questions = _Cases(
            "repeated_question", "repeat one of the same user", "questions"
        )
        self.repeated_records = _Cases(
            "repeated_record", "hold a record more than once", "histories"
        )
        self.same_users = _Cases(
            "same_user", "share half of a history or more with another user", "users"
        )

    def steps(self, max_records: int | None) -> Iterator[None]:
        """Audit step by step; `result` is valid after the last one.

        Args:
            max_records: as in `audit`.
        """
        yield from self._read_questions(max_records)
        yield from self._search_histories()
        self._compare_users()

    def result(self) -> Audit:
        """What the audit has shown."""
        total = len(self.index)
        leaks: Sequence[str] = ()
        counts: Sequence[str] = ()
        short = self.short_golds
        short_counts = [SHORT_GOLDS.format(count=short, total=len(self.positions))] if short else []
        if len(self.positions) == total and isinstance(self.task, Audited):
            leaks = self.task.audit(self.dataset)
            # A task may be audited without deriving from Audited (see Interface).
            counts = self.task.counts(self.dataset) if hasattr(self.task, "counts") else ()
        return Audit(
            source=self.dataset.source,
            samples=len(self.positions),
            total=total,
            users=len(self.histories),
            records=self.records,
            dated=self.dated,
            defects=list(self.defects()),
            leaks=leaks,
            counts=[*short_counts, *counts],
            seconds=time.perf_counter() - self._began,
        )

    def _read_questions(self, max_records: int | None) -> Iterator[None]:
        """The first pass: index golds, check times and options."""
        for position in select(self.dataset, None, 0):
            # A question without records takes time as well.
            if max_records is not None and self.records + len(self.positions) >= max_records:
                break
            sample = load_sample(self.dataset, position, self.index)
            self.records += len(sample.history)
            self.positions.append(position)
            self._read_question(sample)
            if max_records is not None:
                self._kept[position] = sample
            yield

    def _read_question(self, sample: Sample) -> None:
        self._check_times(sample)
        self._check_repeated(sample)
        self.histories[sample.user_id] = _longer(self.histories.get(sample.user_id), sample)
        if not sample.references:
            return

        # With marked evidence the question is what the history says, so that it holds the gold.
        self.in_history.of += not sample.evidence
        options = self.task.options(sample)
        self._options.add(sample, options)
        text = _gold_text(sample, options)
        self._texts.append(_GoldText(sample.id, sample.user_id, text, not sample.evidence))

    def _check_times(self, sample: Sample) -> None:
        moment_of_question = moment(sample.time)
        if not moment_of_question or not any(record.time for record in sample.history):
            return
        later = [record for record in sample.history if moment(record.time) > moment_of_question]
        self.dated += 1
        self.late.of += 1
        if later:
            self.late.add(
                sample=sample.id,
                user=sample.user_id,
                record=later[0].id,
                time=sample.time,
                record_time=later[0].time,
            )

    def _check_repeated(self, sample: Sample) -> None:
        self.repeated_questions.of += 1
        # The same choices in another order are a question of their own, as in tasks of pairs.
        key = (sample.user_id, " ".join(sample.input.split()), sample.choices)
        first = self._questions.setdefault(key, sample.id)
        if first != sample.id:
            self.repeated_questions.add(sample=sample.id, user=sample.user_id, other_sample=first)

    def _search_histories(self) -> Iterator[None]:
        """The second pass: look for golds in records, and for records that occur twice."""
        self._index_golds()
        holders: dict[int, tuple[str, str]] = {}
        checked: set[int] = set()
        for position in self.positions:
            sample = self._kept.pop(position, None)
            if sample is None:
                sample = load_sample(self.dataset, position, self.index)
            yield
            self._find_own_gold(sample)
            history_key = hash((sample.user_id, tuple(record.id for record in sample.history)))
            if history_key in checked:
                continue
            checked.add(history_key)
            self._find_repeated_record(sample)
            for record in sample.history:
                for number in self._golds.find(_record_text(record)):
                    if self._texts[number].user_id != sample.user_id:
                        holders.setdefault(number, (sample.user_id, record.id))

        for number, (user_id, record_id) in sorted(holders.items()):
            gold = self._texts[number]
            self.across.add(
                sample=gold.sample_id,
                user=gold.user_id,
                other_user=user_id,
                record=record_id,
                text=_excerpt(gold.text),
            )

    def _index_golds(self) -> None:
        # Labels repeat in every history; they are compared together with their question alone.
        if self._options.are_labels:
            return
        told_apart = []
        for gold in self._texts:
            number = self._golds.add(gold.text)
            if number is not None:
                self._numbers[gold.sample_id] = number
                told_apart.append(gold)
            else:
                # Found only together with its question, and then counted.
                self.in_history.of -= gold.is_sought
        self.short_golds = len(self._texts) - len(told_apart)
        self._texts = told_apart
        self.across.of = len(told_apart)
        self.near_history.of = sum(gold.is_sought for gold in told_apart)

    def _find_own_gold(self, sample: Sample) -> None:
        if not sample.references or sample.evidence:
            return
        number = self._numbers.get(sample.id, -1)
        near: Record | None = None
        for record in sample.history:
            share = self._golds.find(_record_text(record)).get(number, 0.0)
            if share == 1 or _answers(record, sample):
                is_short = number < 0 and not self._options.are_labels
                self.in_history.of += is_short
                self._add_own_gold(self.in_history, sample, record)
                return
            if share and near is None:
                near = record
        if near is not None:
            self._add_own_gold(self.near_history, sample, near)

    def _add_own_gold(self, cases: _Cases, sample: Sample, record: Record) -> None:
        cases.add(
            sample=sample.id,
            user=sample.user_id,
            record=record.id,
            text=_excerpt(sample.references[0]),
        )

    def _find_repeated_record(self, sample: Sample) -> None:
        if not sample.history:
            return
        self.repeated_records.of += 1
        counts = Counter(
            (record.stimulus, record.response, record.time) for record in sample.history
        )
        (stimulus, response, _), count = counts.most_common(1)[0]
        if count > 1:
            self.repeated_records.add(
                sample=sample.id,
                user=sample.user_id,
                times=str(count),
                text=_excerpt(stimulus or response),
            )

    def _compare_users(self) -> None:
        """Look for users whose histories coincide."""
        if self.task.shares_records:
            return
        users = list(self.histories)
        self.same_users.of = len(users)
        named: set[str] = set()
        for pair in find_coinciding(list(self.histories.values())):
            first, second = (users[index] for index in pair)
            for user_id, other in ((first, second), (second, first)):
                if user_id not in named:
                    named.add(user_id)
                    self.same_users.add(user=user_id, other_user=other)

    def defects(self) -> Iterator[Defect]:
        """Every kind of defect, without those that the data cannot have."""
        for cases in (
            self.in_history,
            self.near_history,
            self.across,
            self.late,
            self.repeated_questions,
            self.repeated_records,
            self.same_users,
        ):
            if cases.of:
                yield cases.defect()
        yield from self._options.defects()


def _longer(marks: Marks | None, sample: Sample) -> Marks:
    if marks is not None and len(sample.history) <= len(marks):
        return marks
    marked = mark_history(User(sample.user_id, sample.history))
    return marked if marks is None or len(marked) > len(marks) else marks


class _GoldText(NamedTuple):
    """The text of a gold answer, whose it is, and whether its own history should not hold it."""

    sample_id: str
    user_id: str
    text: str
    is_sought: bool


class _Options:
    """How often rules that see nothing but the options are right."""

    def __init__(self) -> None:
        self.questions = 0
        self.chance = 0.0
        self.variance = 0.0
        self.hits: Counter[str] = Counter()
        self.positions: Counter[int] = Counter()
        self._sets: set[tuple[str, ...]] = set()

    def add(self, sample: Sample, options: Sequence[str]) -> None:
        """Count a question with its options."""
        if len(options) < 2 or sample.references[0] not in sample.choices:
            return
        if len(self._sets) < 2:
            self._sets.add(tuple(options))

        gold = sample.choices.index(sample.references[0])
        if gold >= len(options):
            return
        lengths = [len(option.strip()) for option in options]
        self.questions += 1
        self.chance += 1 / len(options)
        self.variance += (1 - 1 / len(options)) / len(options)
        self.positions[gold] += 1
        self.hits["longest_option"] += lengths.index(max(lengths)) == gold
        self.hits["shortest_option"] += lengths.index(min(lengths)) == gold

    @property
    def are_labels(self) -> bool:
        """Whether all questions have the same options."""
        return len(self._sets) == 1

    def defects(self) -> Iterator[Defect]:
        """The rules that are right more often than chance allows."""
        # The shares of labels are no leak.
        if len(self._sets) < 2:
            return
        (position, count), *_ = self.positions.most_common(1)
        hits = {**self.hits, f"option_{position + 1}": count}
        words = {"longest_option": "the longest option", "shortest_option": "the shortest option"}
        allowed = self.chance + _DEVIATIONS * self.variance**0.5
        for name, right in hits.items():
            rule = words.get(name, f"option {position + 1}")
            yield Defect(
                name,
                f"are answered by {rule} (chance: {self.chance:.0f})",
                right if right > allowed else 0,
                self.questions,
                "questions",
            )


def _gold_text(sample: Sample, options: Sequence[str]) -> str:
    """The text of a gold answer; that of the option if the gold is its letter."""
    gold = sample.references[0]
    if gold in sample.choices and len(options) == len(sample.choices):
        return options[sample.choices.index(gold)]
    return gold


def _record_text(record: Record) -> str:
    return f"{record.stimulus} . {record.response}" if record.stimulus else record.response


def _answers(record: Record, sample: Sample) -> bool:
    """Whether a record is the question itself with its gold answer."""
    if record.response not in sample.references:
        return False
    if record.item is not None and record.item == sample.item:
        return True
    if not sample.stimulus or not record.stimulus:
        return False
    return normalized(record.stimulus) == normalized(sample.stimulus)


def _excerpt(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= _EXCERPT else f"{line[: _EXCERPT - 1]}…"


def to_rows(result: Audit) -> dict[str, Any]:
    """The audit as plain values, for `--json`."""
    return {
        "source": result.source,
        "samples": result.samples,
        "total": result.total,
        "users": result.users,
        "records": result.records,
        "dated": result.dated,
        "seconds": round(result.seconds, 3),
        "summary": result.summary,
        "defects": [
            {
                "name": defect.name,
                "what": f"{defect.unit} that {defect.what}",
                "count": defect.count,
                "of": defect.of,
                "examples": list(defect.examples),
            }
            for defect in result.defects
        ],
        "leaks": list(result.leaks),
        "counts": list(result.counts),
    }
