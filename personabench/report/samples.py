"""What the models saw and said, packed for the sample browser of a report.

A pack holds whole samples in the order of their users, and a table of lines: texts are lists of line numbers, so that
what prompts of several methods, or several samples of a user, have in common is stored once.  Packs are made one at a
time and never held together.  When a report grows beyond its budget, further packs go without prompts, the largest
part by far; outputs and scores stay.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from personabench.api.dataset import Dataset
from personabench.models.cache import Cache
from personabench.report.tables import Group, ReportRow
from personabench.results.index import SCORER
from personabench.results.locate import find_dataset
from personabench.results.run_folder import Profile, RunFolder
from personabench.run.controls import controlled
from personabench.types import Call, Prediction, Record, to_json

PACK = 1_500_000
"""Characters of distinct lines after which a pack is closed."""

MARK = 60
"""A record counts as used where this much of its beginning stands in a prompt."""


def index(group: Group) -> dict[str, Any]:
    """Every sample of a group with its user and its score by row, in the order of packs.

    `scores` holds a list per row of the primary metric's value, None where the run has none.
    """
    primary = group.board.primary
    users: dict[str, str] = {}
    columns: list[dict[str, float | None]] = []
    for row in group.rows:
        column: dict[str, float | None] = {}
        for score in RunFolder(row.folder).scores() if row.folder else ():
            users.setdefault(score.sample_id, score.user_id)
            column[score.sample_id] = _number(score.values[SCORER].get(primary))
        columns.append(column)
    order = {user: at for at, user in enumerate(dict.fromkeys(users.values()))}
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
        """A text as numbers of lines."""
        numbers = []
        for line in text.split("\n"):
            if line not in self._lines:
                self._lines[line] = len(self._lines)
                self.size += len(line)
            numbers.append(self._lines[line])
        return numbers

    def state(self, row: int, user: str, make: Any) -> int:
        """The place of a user's state in a row, stored when it is new."""
        if (row, user) not in self._states:
            self._states[row, user] = len(self.states)
            self.states.append(make())
        return self._states[row, user]

    def plain(self) -> dict[str, Any]:
        """The pack as JSON values."""
        return {"lines": list(self._lines), "states": self.states, "samples": self.samples}


class Browser:
    """Packs of one group's samples, in the order given.

    Attributes:
        prompts: whether packs still made will hold prompts; set it to False to save space.
        located: whether the data is still where the run found it, so that inputs and records can be shown.
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
            {view: controlled(self._data, *view) for view in self._views} if self._data else {}
        )
        positions = self._data.index() if self._data else ()
        self._positions = {sample: at for at, (sample, _) in enumerate(positions)}
        self._profiles = [_by_user(row) for row in group.rows]
        self._made_from: dict[int, tuple[str, list[str]]] = {}

    def packs(self) -> Iterator[Pack]:
        """Packs until every sample of the index is in one."""
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
        sample = None if position is None or self._data is None else self._data.load(position)
        histories = {} if position is None else self._histories(position)
        records: dict[tuple[str, str | None, str], tuple[Record, list[int]]] = {}
        answers: list[dict[str, Any] | None] = []
        for row, prediction in enumerate(predictions):
            if prediction is None:
                answers.append(None)
                continue
            calls, prompts = self._calls(pack, prediction.calls)
            parsed = prediction.parsed
            answer: dict[str, Any] = {
                "output": None if prediction.output is None else pack.text(prediction.output),
                "parsed": None
                if prediction.parsed in (None, prediction.output)
                else pack.text(prediction.parsed or ""),
                "unread": parsed is None and prediction.error is None,
                "error": prediction.error,
                "flags": dict(prediction.flags),
                "calls": calls,
            }
            profile = self._profiles[row].get(prediction.user_id)
            if profile is not None:
                answer["state"] = pack.state(
                    row, prediction.user_id, lambda made=profile: self._state(pack, made)
                )
                prompts = prompts + self._behind(row, profile)
            answers.append(answer)
            for record in histories.get(self._views[row], ()):
                if _stands(record, prompts):
                    key = (record.id, record.stimulus, record.response)
                    records.setdefault(key, (record, []))[1].append(row)
        return {
            "input": None if sample is None else pack.text(sample.input),
            "attributes": dict(sample.attributes) if sample else {},
            "references": None
            if sample is None
            else [pack.text(text) for text in sample.references],
            "history": None if sample is None else len(sample.history),
            "records": [
                {**self._record(pack, record), "rows": rows} for record, rows in records.values()
            ],
            "answers": answers,
        }

    def _histories(self, position: int) -> dict[tuple[str, int], Sequence[Record]]:
        """What the rows could see of the user, by control; nothing where no prompt can tell what they used."""
        if self._cache is None or not self.prompts:
            return {}
        return {view: dataset.load(position).history for view, dataset in self._seen_by.items()}

    def _record(self, pack: Pack, record: Record) -> dict[str, Any]:
        text = self.group.task.describe(record) if self.group.task else record.response
        return {"text": pack.text(text), "time": record.time}

    def _state(self, pack: Pack, profile: Profile) -> dict[str, Any]:
        state = profile.state
        shown = state if isinstance(state, str) else to_json(state)
        return {"text": pack.text(shown), "calls": self._calls(pack, profile.calls)[0]}

    def _behind(self, row: int, profile: Profile) -> list[str]:
        """The prompts that made a user's state; samples of a user follow each other, so the last user's are kept."""
        user, prompts = self._made_from.get(row, ("", []))
        if user != profile.user_id:
            requests = (
                [self._cache.request(call.key) for call in profile.calls] if self._cache else []
            )
            prompts = [
                message.content for request in requests if request for message in request.messages
            ]
            self._made_from[row] = profile.user_id, prompts
        return prompts

    def _calls(self, pack: Pack, calls: Sequence[Call]) -> tuple[list[dict[str, Any]], list[str]]:
        """Calls with their messages and replies, and the text of all their prompts."""
        shown, prompts = [], []
        for call in calls:
            entry: dict[str, Any] = {
                "phase": call.phase,
                "key": call.key[:12],
                "tokens": [call.input_tokens, call.output_tokens],
                "finish": call.finish,
                "messages": None,
            }
            if self._cache is not None and self.prompts:
                request, response = self._cache.request(call.key), self._cache.get(call.key)
                if request is not None:
                    prompts += [message.content for message in request.messages]
                    entry["messages"] = [
                        [message.role, pack.text(message.content)] for message in request.messages
                    ]
                if response is not None:
                    entry["reply"] = pack.text(response.text)
            shown.append(entry)
        return shown, prompts


def _predictions(row: ReportRow, samples: Sequence[str]) -> Iterator[Prediction | None]:
    if row.folder is None:
        return iter([None] * len(samples))
    folder = RunFolder(row.folder)
    folder.verify(folder.predictions_path)
    return folder.ordered_predictions(samples)


def _dataset(group: Group) -> Dataset | None:
    """The group's data, where it still lies at its place unchanged."""
    if group.task is None:
        return None
    for place in dict.fromkeys(row.runs[0].summary.data for row in group.rows if row.folder):
        if opened := find_dataset(group.task, group.first.summary, place):
            return opened
    return None


def _control(row: ReportRow) -> tuple[str, int]:
    """What decides whose history a row saw."""
    history = row.row.history
    return history, row.row.seed if history == "shuffled" else 0


def _by_user(row: ReportRow) -> Mapping[str, Profile]:
    profiles = RunFolder(row.folder).profiles() if row.folder else {}
    return {profile.user_id: profile for profile in profiles.values() if profile.key}


def _stands(record: Record, prompts: Sequence[str]) -> bool:
    mark = (record.stimulus or record.response).strip()[:MARK]
    return bool(mark) and any(mark in prompt for prompt in prompts)


def _number(value: Any) -> float | None:
    return round(float(value), 4) if isinstance(value, int | float) else None
