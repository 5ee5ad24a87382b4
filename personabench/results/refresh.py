"""`--cache refresh`: which lines of a run are older than the refresh, so that it can be resumed."""

from __future__ import annotations

import shutil
from pathlib import Path

import msgspec

from personabench.results.files import count_lines, read_struct, replace_text, write_error
from personabench.types import to_json


class RefreshState(msgspec.Struct, frozen=True):
    """`refresh.json`: an unfinished `--cache refresh`.

    The numbers count lines of each file that are older than the refresh.
    """

    predictions: int
    profiles: int
    judgements: dict[str, int] = {}


class Refresh:
    """The file `refresh.json` of a run folder, which exists until everything was made again."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "refresh.json"
        self._folder = folder

    def read(self) -> RefreshState | None:
        """Read the unfinished refresh, if there is one.

        Raises:
            DataError: the file is damaged.
        """
        if not self.path.exists():
            return None
        return read_struct(self.path, RefreshState, "delete it and repeat the run's command")

    def begin(self) -> RefreshState:
        """Begin a refresh, or continue an unfinished one.

        Raises:
            RunError: the disk is full or the folder cannot be written.
        """
        unfinished = self.read()
        if unfinished is not None:
            return unfinished

        judgements = self._folder.glob("judgements/*.jsonl")
        state = RefreshState(
            predictions=count_lines(self._folder / "predictions.jsonl"),
            profiles=count_lines(self._folder / "artifacts" / "profiles.jsonl"),
            judgements={path.name: count_lines(path) for path in judgements},
        )
        try:
            # Before the state is written: an interrupt in between begins the refresh again.
            shutil.rmtree(self._folder / "states", ignore_errors=True)
            shutil.rmtree(self._folder / "artifacts" / "memory", ignore_errors=True)
            replace_text(self.path, to_json(state))
        except OSError as error:
            raise write_error(self.path, error) from error
        return state

    def end(self) -> None:
        """End a refresh, after everything was made again."""
        self.path.unlink(missing_ok=True)
