"""LongMemEval as a dataset: a question is a user of its own, with its own history."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Literal

import msgspec

from personabench.api.dataset import Dataset
from personabench.api.id_check import list_few
from personabench.errors import DataError
from personabench.hashing import digest_record, digest_set
from personabench.tasks.longmemeval.files import FILES, Questions, Session, locate
from personabench.types import Record, Sample

SAMPLE = Path(__file__).parent / "sample"
Unit = Literal["exchange", "session"]


class LongMemEvalData(Dataset):
    """An opened file.

    Raises:
        DataError: the file is missing or broken, or two questions have one id.
    """

    separation = "user"
    dated = True

    def __init__(self, split: str, data: Path | None, unit: Unit) -> None:
        self.split = split
        self.sample = data is None
        path = SAMPLE / FILES["s"] if data is None else locate(data, split)
        self.source = "example data, not LongMemEval" if data is None else str(path)
        self._unit = unit
        self._questions = Questions(path)
        ids = list(self._questions.ids())
        repeated = [name for name in set(ids) if ids.count(name) > 1]
        if repeated:
            raise DataError(f"{path}: ids occur twice: {list_few(sorted(repeated))}")
        if not ids:
            raise DataError(f"{path} holds no questions")
        self._index = [(name, name) for name in ids]
        self.hash = digest_set(map(digest_record, self._questions))
        # Most samples are read several times in a row, by several methods.
        self._load = lru_cache(maxsize=4)(self._make_sample)

    def index(self) -> Sequence[tuple[str, str]]:
        return self._index

    def load(self, position: int) -> Sample:
        return self._load(position)

    def _make_sample(self, position: int) -> Sample:
        question = self._questions[position]
        history: list[Record] = []
        evidence: list[str] = []
        for number, session in enumerate(question.sessions, start=1):
            for record, is_evidence in _make_records(session, number, self._unit):
                history.append(record)
                if is_evidence:
                    evidence.append(record.id)
        return Sample(
            question.id,
            user_id=question.id,
            input=question.text,
            stimulus=question.text,
            history=tuple(history),
            references=(question.answer,),
            time=question.time,
            hidden={
                "type": question.type,
                "abstention": str(question.is_abstention),
                "sessions": msgspec.json.encode(
                    [
                        f"s{number}"
                        for number, session in enumerate(question.sessions, start=1)
                        if session.is_evidence
                    ]
                ).decode(),
            },
            # An unanswerable question has sessions that look like evidence, and none that is.
            evidence=() if question.is_abstention else tuple(evidence),
        )


def _make_records(session: Session, number: int, unit: Unit) -> Iterator[tuple[Record, bool]]:
    """Yield the records of a session, and whether each holds evidence."""
    block = f"s{number}"
    parts: list[list[int]] = []
    for index, turn in enumerate(session.turns):
        # An exchange begins with a user's turn; a session is one part.
        if not parts or (unit == "exchange" and turn.role == "user"):
            parts.append([])
        parts[-1].append(index)

    for part_number, part in enumerate(parts, start=1):
        turns = [session.turns[index] for index in part]
        lines = [f"{turn.role.capitalize()}: {turn.content}" for turn in turns]
        record_id = block if unit == "session" else f"{block}:{part_number}"
        record = Record(
            record_id, response="\n".join(lines), time=session.time, fields={"block": block}
        )
        is_marked = any(turn.has_answer for turn in turns)
        yield record, is_marked if unit == "exchange" else session.is_evidence
