"""Journals of memories: the state of a user's memory after every batch, as deltas.

`artifacts/memory/<user>.jsonl` of a run folder has one line per ingested batch.  A line holds the
difference from the state before it, so that a journal is about as long as the state it ends with;
one that has grown beyond that, because a memory rewrites itself, is replaced by its last state.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec

from personabench.api.deltas import Delta, apply_delta, make_delta
from personabench.hashing import digest
from personabench.results.files import (
    read_lines,
    remove_torn_line,
    replace_bytes,
    to_file_name,
    write_error,
    write_line,
)
from personabench.types import Call, to_json

# File names on most systems may have 255 bytes; users' ids may be longer.
_READABLE = 80
# Times the size of the state: a state of items, each of which is added once, stays below it.
_LONGEST = 2


class JournalLine(msgspec.Struct, frozen=True, omit_defaults=True):
    """The state of a memory after a batch.

    Attributes:
        key: the hash of everything that determines the state.
        state: the whole state; unset if `change` says how it differs from the line before.
        record_ids: the records of the batch.
        calls, flags, shown: of this batch; those of all batches so far on a line that replaces
            them.
        is_storable: whether other runs may use the state (see `Caller`).
    """

    key: str
    state: Any = msgspec.UNSET
    change: Any = msgspec.UNSET
    record_ids: tuple[str, ...] = ()
    calls: tuple[Call, ...] = ()
    flags: Mapping[str, float] = {}
    shown: tuple[str, ...] = ()
    is_storable: bool = True


class MemoryJournal:
    """The journal of one user's memory.

    Raises:
        RunError: the disk is full or the folder cannot be written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._state: Any = None
        self._size = 0

    @staticmethod
    def path_of(folder: Path, user_id: str) -> Path:
        """Path of a user's journal in a run folder."""
        readable = to_file_name(user_id)[:_READABLE]
        # The digest keeps users apart whose readable parts coincide.
        return folder / "artifacts" / "memory" / f"{readable}-{digest(user_id)[:8]}.jsonl"

    def repair(self) -> None:
        """Remove a last line that a killed process left behind."""
        try:
            remove_torn_line(self.path)
        except OSError as error:
            raise write_error(self.path, error) from error

    def replay(self) -> Iterator[tuple[JournalLine, Any]]:
        """Yield each line with the state after it.

        Raises:
            DataError: a line is damaged.
        """
        state: Any = None
        for line in read_lines(self.path, JournalLine):
            state = line.state if line.change is msgspec.UNSET else apply_delta(state, line.change)
            yield line, state

    def begin(self, line: JournalLine) -> None:
        """Replace the journal by one that begins with a whole state."""
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            replace_bytes(self.path, f"{to_json(line)}\n".encode())
        except OSError as error:
            raise write_error(self.path, error) from error
        self._state, self._size = line.state, len(to_json(line.state))

    def resume(self, state: Any) -> None:
        """Continue after the last line, which has this state."""
        self._state, self._size = state, self.path.stat().st_size

    def append(self, line: JournalLine) -> bool:
        """Append the state after a batch, given whole; it is stored as a difference.

        Returns:
            whether the journal has grown so much that it should begin anew.
        """
        change: Delta = make_delta(self._state, line.state)
        stored = msgspec.structs.replace(line, state=msgspec.UNSET, change=change)
        try:
            with self.path.open("ab", buffering=0) as file:
                write_line(file, to_json(stored).encode() + b"\n")
        except OSError as error:
            raise write_error(self.path, error) from error
        self._state = line.state
        self._size += len(to_json(change))
        return self._size > _LONGEST * len(to_json(line.state))
