"""Files of a judge that compared two runs: stored verdicts, and the labels of human annotators.

A file is named by both runs and by everything that can change a verdict, so the same command asks
only for missing verdicts, and another judge or protocol writes another file.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import msgspec

from personabench.errors import DataError
from personabench.hashing import digest
from personabench.metrics.judges.verdict import Pick, Verdict
from personabench.results.files import write_error
from personabench.results.run_folder import RunFolder
from personabench.types import Judgement, from_json

T = TypeVar("T")


class StoredVerdict(msgspec.Struct, frozen=True):
    """A line of the file: a verdict, and the hash of the two answers that it is about."""

    answers: str
    verdict: Verdict


class _Label(msgspec.Struct, frozen=True):
    """A line of a file of labels; `label` is null until an annotator fills it in."""

    id: str
    label: Pick | None


def verdict_path(results: Path, a: RunFolder, b: RunFolder, config: msgspec.Struct) -> Path:
    """Path of the verdicts on two runs: `judgements/<run a>-<run b>-<config>.jsonl`.

    Each part is the first eight characters of a hash.

    Args:
        config: everything else that can change a verdict.
    """
    hashes = (a.spec().fingerprint, b.spec().fingerprint, digest(config))
    name = "-".join(part[:8] for part in hashes)
    return results / "judgements" / f"{name}.jsonl"


def read_verdicts(path: Path) -> list[StoredVerdict]:
    """Read the latest verdict of each sample; a torn last line is skipped.

    Raises:
        DataError: a line is damaged.
    """
    latest = {stored.verdict.sample_id: stored for stored in _read_whole_lines(path, StoredVerdict)}
    return list(latest.values())


def read_verdicts_or_judgements(path: Path) -> list[Verdict] | list[Judgement]:
    """Read a file of `personabench judge`, or the judgements of a run.

    Raises:
        DataError: it is neither, or a line is damaged.
    """
    with path.open("rb") as file:
        first_line = file.readline()
    if b'"verdict"' in first_line:
        return [stored.verdict for stored in read_verdicts(path)]

    latest = {judgement.sample_id: judgement for judgement in _read_whole_lines(path, Judgement)}
    return list(latest.values())


def _read_whole_lines(path: Path, kind: type[T]) -> Iterator[T]:
    # The text after the last line break is empty, or a line that an interrupt has torn.
    whole_lines = path.read_bytes().split(b"\n")[:-1]
    for number, line in enumerate(whole_lines, 1):
        try:
            yield from_json(line, kind)
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise DataError(
                f"{path}, line {number} is not a verdict or judgement: {error}; delete the line, "
                "or name a file that `personabench judge` or a run has written"
            ) from error


def read_labels(path: Path) -> dict[str, Pick]:
    """Read annotators' picks by sample id from JSON lines of `{"id", "label"}`.

    Raises:
        DataError: a line is something else.
    """
    labels: dict[str, Pick] = {}
    for number, line in enumerate(path.read_bytes().splitlines(), 1):
        if not line.strip():
            continue
        try:
            item = from_json(line, _Label)
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise DataError(
                f'{path}, line {number}: expected {{"id": ..., "label": "a", "b" or "tie"}}: '
                f"{error}"
            ) from error
        if item.label is not None:
            labels[item.id] = item.label
    return labels


@contextmanager
def explain_write_errors(path: Path) -> Iterator[None]:
    """Turn a failure to write into an error that names the file.

    Raises:
        RunError: the disk is full or the file cannot be written.
    """
    try:
        yield
    except OSError as error:
        raise write_error(path, error) from error
