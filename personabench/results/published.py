"""Published results: what anybody needs to redo a run's statistics, and no text of the benchmark.

A file holds the run's spec, its summary and the score of every sample; sample and user ids are hashed.  The hash keeps
ids stable between runs, so that published and own runs can be compared sample by sample; it hides no secret, since
benchmarks number their samples.
"""

from __future__ import annotations

import base64
import contextlib
import gzip
import hashlib
import re
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from personabench.errors import DataError, UsageError
from personabench.results.run_folder import RunFolder
from personabench.results.spec import RunSpec
from personabench.results.summary import Summary, to_dict
from personabench.types import from_json, to_json

if TYPE_CHECKING:
    from personabench.results.index import Run

VERSION = 1
_LEFT_OUT = ("data", "warnings")
_REMEDY = "publish the run again, or move the file away"


class Vector(msgspec.Struct, frozen=True):
    """The scores of a run, sample by sample, ordered by hashed id.

    Attributes:
        ids, users: hashed sample ids, in order, and the hashed user of each.
        values: by scorer, by metric: the value each sample contributes, as in `scores.jsonl`; None where it has none.
    """

    ids: list[str]
    users: list[str]
    values: dict[str, dict[str, list[float | list[float] | None]]]


@dataclass(frozen=True)
class Published:
    """A file under `results/reference`.

    `scores` is a `Vector` as JSON, gzip and base64; `count` is the number of its samples, `sha256`
    that of its JSON.
    """

    spec: RunSpec
    summary: Summary
    count: int
    sha256: str
    scores: str


class _File(msgspec.Struct, frozen=True):
    # Spec and summary stay undecoded until the version is known: a later version may change them.
    version: int
    spec: msgspec.Raw
    summary: msgspec.Raw
    count: int
    sha256: str
    scores: str


class _Fingerprint(msgspec.Struct, frozen=True):
    fingerprint: str | None = None


def hashed(task: str, kind: str, name: str) -> str:
    """A sample's or user's id, as 16 hex digits."""
    return hashlib.sha256(f"{task}\x1f{kind}\x1f{name}".encode()).hexdigest()[:16]


def vector(run: Run) -> Vector:
    """Read the scores of a run or published result; without samples if there are none.

    Raises:
        DataError: its file is damaged; the message names it.
    """
    if run.published and run.path.is_file():
        return unpack(read(run.path), run.path)
    return score_vector(RunFolder(run.path), run.summary.task)


def score_vector(folder: RunFolder, task: str) -> Vector:
    """Read the scores of a run folder.

    Raises:
        DataError: a file of the run is damaged.
    """
    lines = sorted((hashed(task, "sample", line.sample_id), line) for line in folder.scores())
    values: dict[str, dict[str, list[float | list[float] | None]]] = {}
    for at, (_, line) in enumerate(lines):
        for scorer, metrics in line.values.items():
            for metric, value in metrics.items():
                column = values.setdefault(scorer, {}).setdefault(metric, [None] * len(lines))
                column[at] = value
    users = {line.user_id: hashed(task, "user", line.user_id) for _, line in lines}
    return Vector([name for name, _ in lines], [users[line.user_id] for _, line in lines], values)


def unpack(published: Published, path: Path) -> Vector:
    """The scores in a published file, read from `path`.

    Raises:
        DataError: they are damaged, or not those that were published; the message names the file.
    """
    try:
        text = gzip.decompress(base64.b64decode(published.scores))
        scores = from_json(text, Vector)
    except (ValueError, EOFError, OSError, zlib.error, msgspec.MsgspecError) as error:
        raise DataError(f"the scores in {path} are damaged ({error}); {_REMEDY}") from error
    if (len(scores.ids), hashlib.sha256(text).hexdigest()) != (published.count, published.sha256):
        raise DataError(f"the scores in {path} are not those that were published; {_REMEDY}")
    return scores


def read(path: Path) -> Published:
    """A published file.

    Raises:
        DataError: it is damaged or of a later version; the message names it and the field.
    """
    try:
        file = from_json(path.read_bytes(), _File)
        if file.version != VERSION:
            raise DataError(
                f"{path} has version {file.version}, this is {VERSION}; update personabench"
            )
        summary = from_json(file.summary, Summary)
        spec = from_json(file.spec, RunSpec)
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}); {_REMEDY}") from error
    except msgspec.MsgspecError as error:
        raise DataError(f"{path} is no published result ({error}); {_REMEDY}") from error
    return Published(spec, summary, file.count, file.sha256, file.scores)


def _of_another(path: Path, fingerprint: str) -> bool:
    """Whether a file holds another run, or one of another version; one that nobody can read holds none."""
    try:
        file = from_json(path.read_bytes(), _File)
        held = from_json(file.summary, _Fingerprint).fingerprint
    except (OSError, msgspec.MsgspecError):
        return False
    return file.version != VERSION or held not in (None, fingerprint)


def publish(folder: RunFolder, target: Path, name: str | None = None) -> Path:
    """Write a finished run as one file under `target`; returns its path.

    A run whose answers a judge left unjudged is a result too, without scores.

    Raises:
        UsageError: samples are owed, there was nothing to score by, the name is taken by another run, or it cannot be
            written.
        DataError: a file of the run is damaged.
    """
    summary, spec = folder.summary(), folder.spec()
    if not summary.complete or not summary.n:
        raise UsageError(
            f"{folder.path}: {summary.owed} samples are owed; repeat the run's command, then publish"
        )
    for file in summary.files:
        folder.verify(folder.path / file)
    scores = score_vector(folder, spec.task)
    if not scores.ids and not summary.counters.get("unjudged"):
        raise UsageError(f"{folder.path} has no scores: its split has no references")
    kept = {key: value for key, value in to_dict(summary).items() if key not in _LEFT_OUT}
    if not spec.sample:
        kept["source"] = Path(summary.source).name
    plain = to_json(scores).encode()
    packed = base64.b64encode(gzip.compress(plain, mtime=0)).decode()
    named = hashlib.sha256(plain).hexdigest()
    parts = (
        spec.task,
        spec.separation,
        spec.split,
        spec.method,
        spec.model["name"],
        spec.fingerprint[:8],
    )
    path = target / f"{name or re.sub(r'[^A-Za-z0-9_.+-]+', '_', '-'.join(parts))}.json"
    if _of_another(path, spec.fingerprint):
        raise UsageError(f"{path} holds another run; choose another --name or delete it")
    content = {
        "version": VERSION,
        "spec": spec,
        "summary": kept,
        "count": len(scores.ids),
        "sha256": named,
        "scores": packed,
    }
    text = (
        msgspec.json.format(msgspec.json.encode(content, order="deterministic"), indent=1) + b"\n"
    )
    temporary = path.with_name(path.name + ".tmp")
    try:
        target.mkdir(parents=True, exist_ok=True)
        temporary.write_bytes(text)
        temporary.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise UsageError(f"{path} cannot be written: {error.strerror}") from error
    return path
