"""Rounds of online tasks: the last complete round of every user, from which a run resumes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from personabench.hashing import digest
from personabench.results.files import read_struct, replace_text, to_file_name, write_error
from personabench.types import Prediction, to_json

# File names on most systems may have 255 bytes; users' ids may be longer.
_READABLE = 80


class Round(msgspec.Struct, frozen=True):
    """`states/<user>.json`: the state of a user of an online task after the last complete round.

    `prediction` is that round's.
    """

    user_id: str
    round: int
    state: Any
    prediction: Prediction


class Rounds:
    """The folder `states` of a run: one file per user.

    Raises:
        RunError: the disk is full or the folder cannot be written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def write(self, finished: Round) -> None:
        """Replace a user's last round by the latest one, whole or not at all."""
        try:
            self.path.mkdir(exist_ok=True)
            replace_text(self._state_path(finished.user_id), to_json(finished))
        except OSError as error:
            raise write_error(self.path, error) from error

    def read(self, user_id: str) -> Round | None:
        """Read a user's latest complete round; None before the first.

        Raises:
            DataError: the file is damaged.
        """
        path = self._state_path(user_id)
        if not path.exists():
            return None
        return read_struct(path, Round, "delete it and repeat the run's command")

    def delete(self) -> None:
        """Delete all rounds, so that every user starts from the first one."""
        for path in self.path.glob("*.json"):
            path.unlink()

    def _state_path(self, user_id: str) -> Path:
        readable = to_file_name(user_id)[:_READABLE]
        # The digest keeps users apart whose readable parts coincide.
        return self.path / f"{readable}-{digest(user_id)[:8]}.json"
