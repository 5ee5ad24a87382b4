"""Masks: lists of samples whose gold is wrong, which a second, audited score leaves out.

A mask is applied where scores are read, so that it changes no run and no identity of one.  The
score over all samples stays beside the audited one.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from personabench.api.id_check import list_few
from personabench.errors import UsageError
from personabench.hashing import digest
from personabench.results.index import Run
from personabench.results.locate import find_dataset, find_task
from personabench.results.published import hash_id, vector

# Names under which published lists of errors state the id of a sample.
_ID_FIELDS = ("id", "sample_id", "question_id")


@dataclass(frozen=True)
class Mask:
    """The samples to leave out.

    Attributes:
        name: of the file.
        ids: sample ids, each once, in order.
    """

    name: str
    ids: tuple[str, ...]

    @property
    def sha256(self) -> str:
        """Identity of the mask: the hash of its ids, whatever their order and the file's form."""
        return digest(sorted(self.ids))

    @property
    def label(self) -> str:
        """The mask in a protocol: its hash and its size."""
        return f"{self.sha256[:12]}, {len(self.ids)} ids"

    def hashed_ids(self, task: str) -> frozenset[str]:
        """The ids as score vectors of a task have them."""
        return frozenset(hash_id(task, "sample", sample_id) for sample_id in self.ids)


def read_mask(path: Path) -> Mask:
    """Read a mask: a sample id per line, or a JSON list of ids or of objects with an `id`.

    `sample_id` and `question_id` are read as well.  Lines that begin with `#` are comments.

    Raises:
        UsageError: the file cannot be read, or holds no ids.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise UsageError(f"--mask {path} cannot be read: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise UsageError(f"--mask {path} is not UTF-8 text: {error}") from error

    if text.lstrip().startswith(("[", "{")):
        ids = _read_json(path, text)
    else:
        lines = (line.strip() for line in text.splitlines())
        ids = [line for line in lines if line and not line.startswith("#")]
    if not ids:
        raise UsageError(f"--mask {path} names no sample; write a sample id per line")
    return Mask(path.name, tuple(dict.fromkeys(ids)))


def _read_json(path: Path, text: str) -> list[str]:
    try:
        entries = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UsageError(f"--mask {path} is not JSON: {error}") from error
    if not isinstance(entries, list):
        raise UsageError(f"--mask {path}: expected a JSON list of sample ids, not an object")
    return [_read_id(path, number, entry) for number, entry in enumerate(entries, start=1)]


def _read_id(path: Path, number: int, entry: Any) -> str:
    if isinstance(entry, dict):
        entry = next((entry[field] for field in _ID_FIELDS if field in entry), None)
    if not isinstance(entry, str) or not entry.strip():
        fields = ", ".join(_ID_FIELDS)
        raise UsageError(
            f"--mask {path}, entry {number}: expected a sample id as text, or an object with one "
            f"of {fields}"
        )
    return entry.strip()


def check_mask(mask: Mask, runs: Sequence[Run]) -> int:
    """Check a mask against the samples of some runs.

    Returns:
        The number of ids that no run has a score for, such as those beyond `--limit`.

    Raises:
        UsageError: no id is one of a scored sample, or the data of the runs do not have an id.
        DataError: a run's scores are damaged.
    """
    by_task: dict[str, list[Run]] = {}
    for run in runs:
        by_task.setdefault(run.summary.task, []).append(run)
    unscored = {
        task: [name for name in mask.ids if hash_id(task, "sample", name) not in scored]
        for task, scored in ((task, _scored_ids(group)) for task, group in by_task.items())
    }
    # The task that the mask is about is the one that knows most of its ids.
    task, missing = min(unscored.items(), key=lambda entry: len(entry[1]), default=("", []))
    if len(missing) == len(mask.ids):
        raise UsageError(
            f"--mask {mask.name}: none of its {len(mask.ids)} ids, such as {mask.ids[0]}, is that "
            "of a scored sample"
        )
    if missing:
        _refuse_unknown(mask, missing, by_task[task])
    return len(missing)


def _scored_ids(runs: Iterable[Run]) -> set[str]:
    return {sample_id for run in runs for sample_id in vector(run).ids}


def _refuse_unknown(mask: Mask, missing: Sequence[str], runs: Sequence[Run]) -> None:
    """Refuse ids that the data do not have; data that are not at hand cannot be asked."""
    for run in runs:
        summary = run.summary
        params: Mapping[str, Any] = run.task_params
        task = find_task(summary.task, params, run.task_hash)
        dataset = find_dataset(task, summary, summary.data) if task else None
        if dataset is None:
            continue
        sample_ids = {name for name, _ in dataset.index()}
        unknown = [name for name in missing if name not in sample_ids]
        if unknown:
            raise UsageError(
                f"--mask {mask.name}: {summary.task} has no sample {list_few(unknown)}"
            )
        return
