"""Opened PrefDisco sets: a sample is a record, that is, a problem posed by one persona.

Everything that only the simulated user and the judge may know is in a sample's `hidden` part, which
methods never see.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import msgspec

from personabench.api.dataset import Dataset
from personabench.errors import DataError
from personabench.hashing import digest_record, digest_set
from personabench.tasks.prefdisco import wording
from personabench.tasks.prefdisco.files import Entry, locate_set, read_records
from personabench.types import Record, Sample, User, to_json

RELEASED = {"1k": (100, 10), "5k": (100, 50)}
"""Numbers of problems, and of personas per problem, in the released sets."""


class PrefDiscoData(Dataset):
    """An opened set without histories.

    Raises:
        UsageError: there is no such set.
        DataError: the file is broken; the message names line and field.
    """

    def __init__(self, split: str, data: Path | None, with_images: bool) -> None:
        self.separation, self.split, self.path = locate_set(split, data)
        self.sample = data is None
        records = read_records(self.path)
        without_image = [entry for entry in records.entries if not entry.problem.image]

        self.entries = records.entries if with_images else without_image
        if not self.entries:
            raise DataError(
                f"{self.path}: every record has an image; keep them with --set task.images=ignore"
            )

        self.hash = hash_entries(records.entries)
        self.source = "example data, not PrefDisco" if self.sample else str(self.path)
        total = len(records.entries)
        # Defects of the file first: they may explain why the numbers below differ.
        self.warnings = (
            *records.warnings(),
            *self._describe_images(total - len(without_image), with_images),
            *self._compare_size(total),
        )

    def index(self) -> Sequence[tuple[str, str]]:
        return [(entry.id, entry.persona_id) for entry in self.entries]

    def load(self, position: int) -> Sample:
        return make_sample(self.entries[position])

    def population(self) -> Iterator[User]:
        """No users: these have no past that a method could compare."""
        return iter(())

    def _describe_images(self, count: int, with_images: bool) -> Iterator[str]:
        if count:
            treatment = "" if with_images else "; they are left out"
            yield f"{count} records have an image, which is not sent{treatment}"

    def _compare_size(self, count: int) -> Iterator[str]:
        """Warn if a set of a released size has another number of records."""
        if self.separation not in RELEASED:
            return
        problems, personas = RELEASED[self.separation]
        expected = problems * personas
        if count != expected:
            yield f"{count:,} records; the released set has {expected:,}"


def make_sample(entry: Entry, history: tuple[Record, ...] = ()) -> Sample:
    """Turn a record into a sample."""
    return Sample(
        id=entry.id,
        user_id=entry.persona_id,
        input=wording.word_request(entry.problem),
        stimulus=entry.problem.text,
        history=history,
        references=(entry.problem.answer,),
        choices=tuple(entry.problem.options),
        item=hash_problem(entry),
        hidden={"entry": to_json(entry)},
    )


def hash_entries(entries: Iterable[Entry]) -> str:
    """Hash records, whatever their order; SHA-256 in hex."""
    # Prompts list these in the order of their keys, which `digest_record` does not cover.
    return digest_set(
        digest_record(
            [entry, *map(list, (entry.persona, entry.preferences, entry.problem.options))]
        )
        for entry in entries
    )


def hash_problem(entry: Entry) -> str:
    """Name an entry's problem: equal for equal questions, in any set."""
    return hashlib.sha256(entry.key.encode()).hexdigest()[:16]


def read_hidden_entry(sample: Sample) -> Entry:
    """Decode the record that a sample hides.

    Raises:
        DataError: the sample is a view, from which it was removed.
    """
    if "entry" not in sample.hidden:
        raise DataError(f"record {sample.id} is a view, without its persona and rubric")
    return msgspec.json.decode(sample.hidden["entry"], type=Entry)
