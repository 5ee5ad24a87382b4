"""An opened table of PersonaMem-v2: samples of users with one history each.

The whole history precedes every question of its persona.  A record is an exchange: a user's turn
and the replies to it; a turn that nobody replied to is a record with an empty response.
"""

from __future__ import annotations

import hashlib
import random
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path

import msgspec

from personabench.api.dataset import Dataset
from personabench.hashing import digest, digest_files, digest_record, digest_set
from personabench.tasks.personamem_v2 import scoring
from personabench.tasks.personamem_v2.files import (
    FORGET,
    OTHERS,
    PUBLISHED_HASHES,
    History,
    Row,
    check_split,
    locate,
    read_history,
    read_rows,
)
from personabench.types import Record, Sample, normalized

ROTATIONS = 4


class PersonaMemV2Data(Dataset):
    """An opened split: the questions of a table, with the histories of one length.

    Args:
        rotations: 4 presents each question with its right reply under each letter, 1 once; 0 for
            questions without options.

    Raises:
        UsageError: no such split.
        DataError: files are missing or broken; the message names file, row and column.
    """

    separation = "benchmark"

    def __init__(self, split: str, data: Path | None, rotations: int = 1) -> None:
        check_split(split)
        self.split = split
        self.sample = data is None
        self.path, self._root = locate(data)
        self.source = "example data, not PersonaMem-v2" if self.sample else str(self.path)
        self.rows = read_rows(self.path, split)
        self._rotations = rotations
        self._index = [
            (self._name(row, rotation), row.persona)
            for row in self.rows
            for rotation in range(rotations or 1)
        ]
        # Questions of a persona come one after another; a history has up to a megabyte.
        self._history = lru_cache(maxsize=4)(self._read_history)
        self.rejected: dict[str, tuple[int, ...]] = {}
        self.hash = self._hash_content()
        self.warnings = tuple(self._make_warnings())
        self._majority = self._find_majority_letter()

    def index(self) -> Sequence[tuple[str, str]]:
        return self._index

    def load(self, position: int) -> Sample:
        number, rotation = divmod(position, self._rotations or 1)
        row = self.rows[number]
        records, persona = self._history(row.link)
        sample_id, _ = self._index[position]
        sample = make_sample(row, sample_id, records, persona)
        if not self._rotations:
            return sample
        return add_options(sample, row, self._order_options(row, rotation), self._majority)

    def flags(self, position: int) -> Mapping[str, float]:
        """Flag messages of a history that could not be read."""
        rejected = self.rejected.get(self.rows[position // (self._rotations or 1)].link, ())
        return {"messages_rejected": float(len(rejected))} if rejected else {}

    def _name(self, row: Row, rotation: int) -> str:
        return f"{row.id}@{rotation}" if self._rotations > 1 else row.id

    def _order_options(self, row: Row, rotation: int) -> tuple[str, ...]:
        """The options in an order that depends on the question alone."""
        texts = [row.correct, *row.wrong]
        if self._rotations > 1:
            # The right reply stands under each letter once; the others keep their order.
            others = list(row.wrong)
            return (*others[:rotation], row.correct, *others[rotation:])
        random.Random(f"personamem_v2\x1f{row.id}").shuffle(texts)
        return tuple(texts)

    def _find_majority_letter(self) -> int:
        """The position of the right reply that is most frequent; the first of equals."""
        positions: Counter[int] = Counter()
        for row in self.rows:
            for rotation in range(self._rotations or 1):
                positions[self._order_options(row, rotation).index(row.correct)] += 1
        return min(range(len(scoring.LETTERS)), key=lambda place: (-positions[place], place))

    def _read_history(self, link: str) -> tuple[tuple[Record, ...], str]:
        history = read_history(self._root / link)
        return make_records(history), history.persona

    def _hash_content(self) -> str:
        questions = digest_set(map(digest_record, self.rows))
        links = sorted({row.link for row in self.rows})
        histories = []
        for link in links:
            history = read_history(self._root / link)
            # The position of a broken message is no content.
            histories.append(digest_record([link, history.persona, history.turns]))
            if history.rejected:
                self.rejected[link] = history.rejected
        return digest([questions, digest_set(histories)])

    def _make_warnings(self) -> Iterator[str]:
        for link, positions in sorted(self.rejected.items()):
            named = ", ".join(map(str, positions[:5]))
            yield f"{link}: {len(positions)} broken messages are left out, at {named}"
        if self.sample:
            return
        known = PUBLISHED_HASHES.get(self.path.name)
        # `digest_files` hashes the hashes of its files.
        if known and digest_files([self.path]) != hashlib.sha256(bytes.fromhex(known)).hexdigest():
            yield (
                f"{self.path.name} is not the published version that this project knows "
                f"(SHA-256 {known[:12]}...)"
            )


def make_records(history: History) -> tuple[Record, ...]:
    """Return the exchanges of a history, named by the position of the first message of each."""
    groups: list[list[int]] = []
    for index, turn in enumerate(history.turns):
        # Replies before the first user turn belong to an exchange without a message of the user.
        if turn.role == "user" or not groups:
            groups.append([])
        groups[-1].append(index)

    records = []
    for group in groups:
        turns = [history.turns[index] for index in group]
        messages = [turn.content for turn in turns if turn.role == "user"]
        replies = [turn.content for turn in turns if turn.role == "assistant"]
        records.append(
            Record(
                f"m{group[0]}",
                stimulus=messages[0] if messages else "",
                response="\n\n".join(replies),
            )
        )
    return tuple(records)


def find_evidence(row: Row, records: Sequence[Record]) -> tuple[tuple[str, ...], int]:
    """Find the records whose user turn is one of the snippet, but for case and punctuation.

    Returns:
        Their ids, and the number of turns of the snippet that match no record.
    """
    by_text: dict[str, str] = {}
    for record in records:
        by_text.setdefault(normalized(record.stimulus or ""), record.id)
    names = [by_text.get(normalized(text), "") for text in row.snippet]
    return tuple(dict.fromkeys(name for name in names if name)), names.count("")


def make_sample(row: Row, sample_id: str, records: tuple[Record, ...], persona: str) -> Sample:
    """Convert a row into a sample; everything about the tested preference is hidden."""
    evidence, unmatched = find_evidence(row, records)
    return Sample(
        sample_id,
        user_id=row.persona,
        input=row.query,
        stimulus=row.query,
        history=records,
        references=(row.correct,),
        attributes={"persona": persona} if persona else {},
        hidden={
            "type": row.type,
            "who": row.who,
            "updated": str(row.updated),
            "scenario": row.scenario,
            "distance": str(row.distance),
            "preference": row.preference,
            "profile": row.profile,
            "unmatched": str(unmatched),
        },
        evidence=evidence,
    )


def add_options(sample: Sample, row: Row, choices: tuple[str, ...], majority: int) -> Sample:
    """Add the options of a question, the picks of rules, and the distractors that tell a fault."""
    lengths = [len(choice) for choice in choices]
    # The right reply is short where the preference is another person's, and long elsewhere.
    length = min(lengths) if row.who == OTHERS else max(lengths)
    stale = [text for text in row.wrong if row.updated and scoring.repeats(text, row.previous)]
    leaking = [
        text for text in row.wrong if row.type == FORGET and scoring.repeats(text, row.preference)
    ]
    hidden = {
        **sample.hidden,
        "stale": msgspec.json.encode(stale).decode(),
        "leaking": msgspec.json.encode(leaking).decode(),
        "majority_letter": choices[majority],
        "type_length": choices[lengths.index(length)],
    }
    return msgspec.structs.replace(sample, choices=choices, hidden=hidden)
