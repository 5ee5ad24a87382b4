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
from personabench.report.tables import Group, ReportRow
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
        for score in RunFolder(row.folder).scores() if row.folder else ():
            users.setdefault(score.sample_id, score.user_id)
            column[score.sample_id] = _round(score.values[SCORER].get(primary))
        columns.append(column)
    # Samples of a user follow each other: their prompts have most lines in common.
    order = {user: index for index, user in enumerate(dict.fromkeys(users.values()))}
    samples = sorted(users, key=lambda sample: order[users[sample]])
    scores = [[column.get(sample) for sample in samples] for column in columns]
    return {"samples": samples, "users": [users[sample] for sample in samples], "scores": scores}


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
            numbers.append(self._lines[line])
        return numbers

    def state(self, row: int, user: str, make: Callable[[], dict[str, Any]]) -> int:
        """Store a user's state in a row unless it is known, and return its number."""
        if (row, user) not in self._states:
            self._states[row, user] = len(self.states)
            self.states.append(make())
        return self._states[row, user]

    def plain(self) -> dict[str, Any]:
        """The pack as JSON values."""
        return {"lines": list(self._lines), "states": self.states, "samples": self.samples}


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
        for record in sample.history if sample else ():
            if sample and record.id in sample.evidence:
                self._use(record).evidence = True

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
                self._use(record).rows.append(row)
            elif _is_profiled(record, prompts):
                self._use(record).profiled.append(row)

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
    """

    def __init__(self, group: Group, samples: Sequence[str], cache: Cache | None) -> None:
        self.group = group
        self.samples = samples
        self.prompts = True
        self._cache = cache
        self._data = _dataset(group)
        self.located = self._data is not None
        self._views = [_control(row) for row in group.rows]
        self._seen_by = (
            {view: apply_control(self._data, *view) for view in self._views} if self._data else {}
        )
        positions = self._data.index() if self._data else ()
        self._positions = {sample: position for position, (sample, _) in enumerate(positions)}
        self._profiles = [_by_user(row) for row in group.rows]
        # By row, the user whose state was made last, and the prompts that made it.
        self._made_from: dict[int, tuple[str, list[str]]] = {}

    def packs(self) -> Iterator[Pack]:
        """Make packs until every sample of the index is in one."""
        pack = Pack()
        streams = [_predictions(row, self.samples) for row in self.group.rows]
        for sample_id, *predictions in zip(self.samples, *streams, strict=True):
            pack.samples.append(self._sample(pack, sample_id, predictions))
            if pack.size > PACK:
                yield pack
                pack = Pack()
        if pack.samples:
            yield pack

    def _sample(
        self, pack: Pack, sample_id: str, predictions: Sequence[Prediction | None]
    ) -> dict[str, Any]:
        position = self._positions.get(sample_id)
        sample = None
        histories = {}
        if position is not None and self._data is not None:
            sample = self._data.load(position)
            histories = self._histories(position)

        answers: list[dict[str, Any] | None] = []
        uses = _Uses(sample)
        for row, prediction in enumerate(predictions):
            if prediction is None:
                answers.append(None)
                continue
            answer, prompts = self._answer(pack, row, prediction)
            answers.append(answer)
            uses.add(row, histories.get(self._views[row], ()), prediction, prompts)

        content: dict[str, Any] = {
            "input": None,
            "attributes": {},
            "references": None,
            "history": None,
            "records": [
                {
                    **self._record(pack, use.record),
                    "rows": use.rows,
                    "profiled": use.profiled,
                    "evidence": use.evidence,
                }
                for use in uses.records()
            ],
            "answers": answers,
        }
        if sample is not None:
            content |= {
                "input": pack.text(sample.input),
                "attributes": dict(sample.attributes),
                "references": [pack.text(text) for text in sample.references],
                "history": len(sample.history),
            }
        return content

    def _answer(
        self, pack: Pack, row: int, prediction: Prediction
    ) -> tuple[dict[str, Any], _Prompts]:
        """Pack a row's answer to a sample; returns it and the prompts behind it."""
        calls, prompts = self._calls(pack, prediction.calls)
        output, parsed = prediction.output, prediction.parsed
        answer: dict[str, Any] = {
            "output": None if output is None else pack.text(output),
            # An answer that was parsed whole is not stored twice.
            "parsed": None if parsed in (None, output) else pack.text(parsed or ""),
            "unparsed": parsed is None and prediction.error is None,
            "error": prediction.error,
            "flags": dict(prediction.flags),
            "calls": calls,
        }
        profile = self._profiles[row].get(prediction.user_id)
        if profile is not None:
            answer["state"] = pack.state(
                row, prediction.user_id, lambda: self._state(pack, profile)
            )
            state_prompts = self._state_prompts(row, profile)
            return answer, _Prompts(prompts, state_prompts, profile.shown)
        return answer, _Prompts(prompts, [])

    def _histories(self, position: int) -> dict[tuple[str, int], Sequence[Record]]:
        """The history that rows could see, by control."""
        return {view: dataset.load(position).history for view, dataset in self._seen_by.items()}

    def _record(self, pack: Pack, record: Record) -> dict[str, Any]:
        text = self.group.task.describe(record) if self.group.task else record.response
        return {"text": pack.text(text), "time": record.time}

    def _state(self, pack: Pack, profile: Profile) -> dict[str, Any]:
        state = profile.state
        text = state if isinstance(state, str) else to_json(state)
        return {"text": pack.text(text), "calls": self._calls(pack, profile.calls)[0]}

    def _state_prompts(self, row: int, profile: Profile) -> list[str]:
        """The prompts that made a user's state."""
        user, prompts = self._made_from.get(row, ("", []))
        if user == profile.user_id:
            return prompts

        prompts = []
        for call in profile.calls:
            request = self._cache.request(call.key) if self._cache else None
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
                    prompts += [message.content for message in request.messages]
                    entry["messages"] = [
                        [message.role, pack.text(message.content)] for message in request.messages
                    ]
                if response is not None:
                    entry["reply"] = pack.text(response.text)
            entries.append(entry)
        return entries, prompts


def _predictions(row: ReportRow, samples: Sequence[str]) -> Iterator[Prediction | None]:
    if row.folder is None:
        return iter([None] * len(samples))
    folder = RunFolder(row.folder)
    folder.verify(folder.predictions_path)
    return folder.ordered_predictions(samples)


def _dataset(group: Group) -> Dataset | None:
    """The group's data, if it is still in its folder and unchanged."""
    if group.task is None:
        return None
    folders = dict.fromkeys(row.runs[0].summary.data for row in group.rows if row.folder)
    for folder in folders:
        dataset = find_dataset(group.task, group.first.summary, folder)
        if dataset is not None:
            return dataset
    return None


def _control(row: ReportRow) -> tuple[str, int]:
    """History control and seed, which decide whose history a row saw."""
    history = row.row.history
    return history, row.row.seed if history == "shuffled" else 0


def _by_user(row: ReportRow) -> Mapping[str, Profile]:
    profiles = RunFolder(row.folder).profiles() if row.folder else {}
    return {profile.user_id: profile for profile in profiles.values() if profile.key}


def _is_shown(record: Record, prediction: Prediction, prompts: _Prompts) -> bool:
    if prediction.shown is None:
        return _is_quoted(record, prompts.answer)
    return record.id in prediction.shown


def _is_profiled(record: Record, prompts: _Prompts) -> bool:
    if prompts.profiled is None:
        return _is_quoted(record, prompts.profile)
    return record.id in prompts.profiled


def _is_quoted(record: Record, prompts: Sequence[str]) -> bool:
    mark = (record.stimulus or record.response).strip()[:MARK]
    return bool(mark) and any(mark in prompt for prompt in prompts)


def _round(value: Any) -> float | None:
    return round(float(value), 4) if isinstance(value, int | float) else None
