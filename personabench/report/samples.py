"""Pack prompts and answers for the sample browser of a report.

A pack holds whole samples in the order of their users, and a table of lines: texts are lists of
line numbers, so that lines shared by prompts of several methods, or samples of a user, are stored
once. Packs are made one at a time and never held together. When a report grows beyond its budget,
further packs go without prompts, the largest part by far; outputs and scores stay.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from personabench.api.dataset import Dataset
from personabench.models.cache import Cache
from personabench.report.groups import Group, ReportRow
from personabench.report.sample_facts import SampleFacts
from personabench.results.index import SCORER
from personabench.results.locate import find_dataset
from personabench.results.run_folder import Profile, RunFolder
from personabench.run.controls import apply_control
from personabench.types import Call, Prediction, Record, Sample, to_json

# Characters of distinct lines after which a pack is closed: a browser unpacks one in a moment.
PACK = 1_500_000

# Runs of earlier versions do not say which records they showed. A record counts if this many of its
# first characters are in a prompt: methods may cut records.
MARK = 60

# Characters of a request key that identify it on the page.
KEY_LENGTH = 12


def index(group: Group) -> dict[str, Any]:
    """List every sample of a group with its user and its score by row, in the order of packs.

    `scores` holds a list per row of the primary metric's values, None for samples without one.
    """
    primary = group.board.primary
    users: dict[str, str] = {}
    columns: list[dict[str, float | None]] = []
    for row in group.rows:
        column: dict[str, float | None] = {}
        folder = RunFolder(row.folder) if row.folder else None
        scores = folder.scores() if folder else ()
        for score in scores:
            value = score.values[SCORER].get(primary)
            users.setdefault(score.sample_id, score.user_id)
            column[score.sample_id] = _round(value)
        columns.append(column)

    # Samples of a user follow each other: their prompts have most lines in common.
    samples_by_user: dict[str, list[str]] = {}
    for sample, user in users.items():
        user_samples = samples_by_user.setdefault(user, [])
        user_samples.append(sample)
    samples = [sample for user_samples in samples_by_user.values() for sample in user_samples]

    scores_by_row = []
    for column in columns:
        row_scores = [column.get(sample) for sample in samples]
        scores_by_row.append(row_scores)

    return {
        "samples": samples,
        "users": [users[sample] for sample in samples],
        "scores": scores_by_row,
    }


class Pack:
    """Samples and the lines they are made of."""

    def __init__(self) -> None:
        self.samples: list[dict[str, Any]] = []
        self.states: list[dict[str, Any]] = []
        self.size = 0
        self._lines: dict[str, int] = {}
        self._states: dict[tuple[int, str], int] = {}

    def text(self, text: str) -> list[int]:
        """Store a text, and return the numbers of its lines."""
        numbers = []
        for line in text.split("\n"):
            if line not in self._lines:
                self._lines[line] = len(self._lines)
                self.size += len(line)
            number = self._lines[line]
            numbers.append(number)
        return numbers

    def state(
        self,
        row: int,
        user: str,
        make: Callable[[], dict[str, Any]],
    ) -> int:
        """Store a user's state in a row unless it is known, and return its number."""
        key = (row, user)
        if key not in self._states:
            self._states[key] = len(self.states)
            state = make()
            self.states.append(state)
        return self._states[key]

    def plain(self) -> dict[str, Any]:
        """The pack as JSON values."""
        return {
            "lines": list(self._lines),
            "states": self.states,
            "samples": self.samples,
        }


class _Prompts(NamedTuple):
    """The texts of a row's prompts for one sample and for the profile behind it.

    `profiled` holds the ids of the records in the latter; None if they were not recorded.
    """

    answer: list[str]
    profile: list[str]
    profiled: tuple[str, ...] | None = None


@dataclass
class _Use:
    """A record on the page.

    Attributes:
        evidence: whether it holds evidence.
        rows: the rows whose answers were given with it in sight.
        profiled: the further rows that profiled the user with it.
    """

    record: Record
    evidence: bool = False
    rows: list[int] = field(default_factory=list)
    profiled: list[int] = field(default_factory=list)


class _Uses:
    """The records that the page lists for a sample: those of its evidence and those in use."""

    def __init__(self, sample: Sample | None) -> None:
        self._uses: dict[tuple[str, str | None, str], _Use] = {}
        if sample is None:
            return

        for record in sample.history:
            if record.id in sample.evidence:
                use = self._use(record)
                use.evidence = True

    def add(
        self,
        row: int,
        history: Sequence[Record],
        prediction: Prediction,
        prompts: _Prompts,
    ) -> None:
        """Add the records of a row's answer and of the profile behind it."""
        for record in history:
            if _is_shown(record, prediction, prompts):
                use = self._use(record)
                use.rows.append(row)
            elif _is_profiled(record, prompts):
                use = self._use(record)
                use.profiled.append(row)

    def records(self) -> list[_Use]:
        """The records, evidence first."""
        return list(self._uses.values())

    def _use(self, record: Record) -> _Use:
        # Records of two users may have the same id.
        key = (record.id, record.stimulus, record.response)
        return self._uses.setdefault(key, _Use(record))


class Browser:
    """Packs of one group's samples, in the order given.

    Attributes:
        prompts: whether packs still made will hold prompts; set it to False to save space.
        located: whether the data was found, so that inputs and records can be shown.
        facts: values that the page filters samples by; complete when all packs are made.
    """

    def __init__(
        self,
        group: Group,
        samples: Sequence[str],
        cache: Cache | None,
    ) -> None:
        self.group = group
        self.samples = samples
        self.prompts = True
        self.facts = SampleFacts(len(group.rows))
        self._cache = cache
        self._data = _dataset(group)
        self.located = self._data is not None
        self._views = [_control(row) for row in group.rows]
        self._seen_by: dict[tuple[str, int], Dataset] = {}
        self._positions: dict[str, int] = {}
        if self._data is not None:
            for view in self._views:
                self._seen_by[view] = apply_control(self._data, *view)
            for position, (sample, _) in enumerate(self._data.index()):
                self._positions[sample] = position

        self._profiles = [_by_user(row) for row in group.rows]
        # By row, the user whose state was made last, and the prompts that made it.
        self._made_from: dict[int, tuple[str, list[str]]] = {}

    def packs(self) -> Iterator[Pack]:
        """Make packs until every sample of the index is in one."""
        pack = Pack()
        streams = [_predictions(row, self.samples) for row in self.group.rows]
        for sample_id, *predictions in zip(self.samples, *streams, strict=True):
            content = self._sample(pack, sample_id, predictions)
            pack.samples.append(content)
            if pack.size > PACK:
                yield pack
                pack = Pack()
        if pack.samples:
            yield pack

    def _sample(
        self,
        pack: Pack,
        sample_id: str,
        predictions: Sequence[Prediction | None],
    ) -> dict[str, Any]:
        sample = None
        histories = {}
        position = self._positions.get(sample_id)
        if position is not None and self._data is not None:
            sample = self._data.load(position)
            histories = self._histories(position)
        self.facts.add(sample, predictions)

        answers: list[dict[str, Any] | None] = []
        uses = _Uses(sample)
        for row, prediction in enumerate(predictions):
            if prediction is None:
                answers.append(None)
                continue
            answer, prompts = self._answer(pack, row, prediction)
            answers.append(answer)

            view = self._views[row]
            history = histories.get(view, ())
            uses.add(row, history, prediction, prompts)

        records = [self._used_record(pack, use) for use in uses.records()]
        content: dict[str, Any] = {
            "input": None,
            "attributes": {},
            "references": None,
            "history": None,
            "records": records,
            "answers": answers,
        }
        if sample is not None:
            content["input"] = pack.text(sample.input)
            content["attributes"] = dict(sample.attributes)
            content["references"] = [pack.text(text) for text in sample.references]
            content["history"] = len(sample.history)
        return content

    def _answer(
        self,
        pack: Pack,
        row: int,
        prediction: Prediction,
    ) -> tuple[dict[str, Any], _Prompts]:
        """Pack a row's answer to a sample; returns it and the prompts behind it."""
        calls, prompts = self._calls(pack, prediction.calls)

        output = prediction.output
        parsed = prediction.parsed
        answer: dict[str, Any] = {
            "output": None,
            "parsed": None,
            "unparsed": parsed is None and prediction.error is None,
            "error": prediction.error,
            "flags": dict(prediction.flags),
            "calls": calls,
        }
        if output is not None:
            answer["output"] = pack.text(output)
        # An answer that was parsed whole is not stored twice.
        if parsed is not None and parsed != output:
            answer["parsed"] = pack.text(parsed)

        user = prediction.user_id
        profiles = self._profiles[row]
        profile = profiles.get(user)
        if profile is None:
            return answer, _Prompts(prompts, [])

        answer["state"] = pack.state(row, user, lambda: self._state(pack, profile))
        state_prompts = self._state_prompts(row, profile)
        return answer, _Prompts(prompts, state_prompts, profile.shown)

    def _histories(self, position: int) -> dict[tuple[str, int], Sequence[Record]]:
        """The history that rows could see, by control."""
        histories: dict[tuple[str, int], Sequence[Record]] = {}
        for view, dataset in self._seen_by.items():
            sample = dataset.load(position)
            histories[view] = sample.history
        return histories

    def _used_record(self, pack: Pack, use: _Use) -> dict[str, Any]:
        record = use.record
        task = self.group.task
        text = task.describe(record) if task else record.response
        return {
            "text": pack.text(text),
            "time": record.time,
            "rows": use.rows,
            "profiled": use.profiled,
            "evidence": use.evidence,
        }

    def _state(self, pack: Pack, profile: Profile) -> dict[str, Any]:
        state = profile.state
        text = state if isinstance(state, str) else to_json(state)
        numbers = pack.text(text)
        calls, _ = self._calls(pack, profile.calls)
        return {"text": numbers, "calls": calls}

    def _state_prompts(self, row: int, profile: Profile) -> list[str]:
        """The prompts that made a user's state."""
        user, prompts = self._made_from.get(row, ("", []))
        if user == profile.user_id:
            return prompts

        prompts = []
        if self._cache is not None:
            for call in profile.calls:
                request = self._cache.request(call.key)
                if request is not None:
                    prompts += [message.content for message in request.messages]
        self._made_from[row] = profile.user_id, prompts
        return prompts

    def _calls(self, pack: Pack, calls: Sequence[Call]) -> tuple[list[dict[str, Any]], list[str]]:
        """Pack calls with their messages and replies; returns them and the text of all prompts."""
        entries = []
        prompts: list[str] = []
        for call in calls:
            entry: dict[str, Any] = {
                "phase": call.phase,
                "key": call.key[:KEY_LENGTH],
                "tokens": [call.input_tokens, call.output_tokens],
                "finish": call.finish,
                "messages": None,
            }
            if self._cache is not None and self.prompts:
                request = self._cache.request(call.key)
                response = self._cache.get(call.key)
                if request is not None:
                    messages = []
                    for message in request.messages:
                        prompts.append(message.content)
                        numbers = pack.text(message.content)
                        messages.append([message.role, numbers])
                    entry["messages"] = messages
                if response is not None:
                    entry["reply"] = pack.text(response.text)
            entries.append(entry)
        return entries, prompts


def _predictions(row: ReportRow, samples: Sequence[str]) -> Iterator[Prediction | None]:
    if row.folder is None:
        nothing = [None] * len(samples)
        return iter(nothing)

    folder = RunFolder(row.folder)
    folder.verify(folder.predictions_path)
    return folder.ordered_predictions(samples)


def _dataset(group: Group) -> Dataset | None:
    """The group's data, if it is still in its folder and unchanged."""
    if group.task is None:
        return None

    summary = group.first.summary
    first_runs = [row.runs[0] for row in group.rows if row.folder]
    folders = dict.fromkeys(run.summary.data for run in first_runs)
    for folder in folders:
        dataset = find_dataset(group.task, summary, folder)
        if dataset is not None:
            return dataset
    return None


def _control(row: ReportRow) -> tuple[str, int]:
    """History control and seed, which decide whose history a row saw."""
    history = row.row.history
    seed = row.row.seed if history == "shuffled" else 0
    return history, seed


def _by_user(row: ReportRow) -> Mapping[str, Profile]:
    if row.folder is None:
        return {}

    profiles = RunFolder(row.folder).profiles()
    by_user = {}
    for profile in profiles.values():
        # The state that all users share has no key.
        if profile.key:
            by_user[profile.user_id] = profile
    return by_user


def _is_shown(
    record: Record,
    prediction: Prediction,
    prompts: _Prompts,
) -> bool:
    if prediction.shown is None:
        return _is_quoted(record, prompts.answer)
    return record.id in prediction.shown


def _is_profiled(record: Record, prompts: _Prompts) -> bool:
    if prompts.profiled is None:
        return _is_quoted(record, prompts.profile)
    return record.id in prompts.profiled


def _is_quoted(record: Record, prompts: Sequence[str]) -> bool:
    text = record.stimulus or record.response
    mark = text.strip()[:MARK]
    if not mark:
        return False
    return any(mark in prompt for prompt in prompts)


def _round(value: Any) -> float | None:
    if not isinstance(value, int | float):
        return None
    return round(float(value), 4)
