"""Opened PrefDisco sets: a sample is a record, a problem posed by one persona.

All that only the simulated user and the judge may know is in a sample's `hidden` part, which no method is shown.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec

from personabench.api.dataset import Dataset
from personabench.errors import DataError
from personabench.hashing import digest_files
from personabench.tasks.prefdisco import wording
from personabench.tasks.prefdisco.files import Entry, Loaded, locate, read
from personabench.types import Record, Sample, User, to_json

RELEASED = {"1k": (100, 10), "5k": (100, 50)}
"""Problems and personas a problem of the released sets."""


class PrefDiscoData(Dataset):
    """An opened set without histories.

    Raises:
        UsageError: no such set.
        DataError: the file is broken; the message names line and field.
    """

    def __init__(self, split: str, data: Path | None, images: bool) -> None:
        self.separation, self.split, self.path = locate(split, data)
        self.sample = data is None
        loaded = read(self.path)
        pictured = [entry for entry in loaded.entries if entry.problem.image]
        self.entries = (
            loaded.entries
            if images
            else [entry for entry in loaded.entries if not entry.problem.image]
        )
        if not self.entries:
            raise DataError(
                f"{self.path}: every record has an image; keep them with --set task.images=ignore"
            )
        self.hash = digest_files([self.path])
        self.source = "bundled sample, not PrefDisco" if self.sample else str(self.path)
        self.warnings = (*loaded.warnings(), *self._told(loaded, len(pictured), images))

    def index(self) -> Sequence[tuple[str, str]]:
        return [(entry.id, entry.persona_id) for entry in self.entries]

    def load(self, position: int) -> Sample:
        return sample_of(self.entries[position])

    def population(self) -> Iterator[User]:
        """Nobody: these users have no past."""
        return iter(())

    def _told(self, loaded: Loaded, pictured: int, images: bool) -> Iterator[str]:
        if pictured:
            yield f"{pictured} records have an image, which is not sent" + (
                "" if images else "; they are left out"
            )
        expected = RELEASED.get(self.separation)
        if expected and len(loaded.entries) != expected[0] * expected[1]:
            yield f"{len(loaded.entries):,} records; the released set has {expected[0] * expected[1]:,}"


def sample_of(entry: Entry, history: tuple[Record, ...] = ()) -> Sample:
    """A record as a sample."""
    return Sample(
        id=entry.id,
        user_id=entry.persona_id,
        input=wording.request(entry.problem),
        stimulus=entry.problem.text,
        history=history,
        references=(entry.problem.answer,),
        choices=tuple(entry.problem.options),
        item=item_of(entry),
        hidden={"entry": to_json(entry)},
    )


def item_of(entry: Entry) -> str:
    """The name of an entry's problem: equal for equal questions, in any set."""
    return hashlib.sha256(entry.key.encode()).hexdigest()[:16]


def entry_of(sample: Sample) -> Entry:
    """What is hidden of a sample.

    Raises:
        DataError: the sample is a view, from which it was removed.
    """
    if "entry" not in sample.hidden:
        raise DataError(f"record {sample.id} is a view, without its persona and rubric")
    return msgspec.json.decode(sample.hidden["entry"], type=Entry)
