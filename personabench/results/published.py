"""Published results: everything that a run's statistics need, and no text of the benchmark.

A file holds the run's spec, its summary and the score of every sample; sample and user ids are
hashed. The hash keeps ids stable between runs, so that published and own runs can be compared
sample by sample; it does not hide them, since benchmarks number their samples.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import re
import zlib
from dataclasses import dataclass
from pathlib import Path

import msgspec

from personabench.errors import DataError, UsageError
from personabench.hashing import digest
from personabench.results.files import replace_bytes
from personabench.results.run import Run
from personabench.results.run_folder import RunFolder
from personabench.results.spec import RunSpec
from personabench.results.summary import Summary, to_dict
from personabench.types import from_json, to_json

VERSION = 1
# Paths and warnings may contain names of the machine, or text of the data.
_LEFT_OUT = ("data", "warnings")
_REMEDY = "publish the run again, or move the file away"


class Vector(msgspec.Struct, frozen=True):
    """The scores of a run, sample by sample, ordered by hashed id.

    Attributes:
        ids, users: hashed sample ids, in order, and the hashed user of each.
        values: by scorer and metric, the value that each sample contributes, as in
            `scores.jsonl`; None for samples without one.
        answers: the hashes of the answers; unset in published files, where the answers to a
            question with few choices could be guessed from them.
    """

    ids: list[str]
    users: list[str]
    values: dict[str, dict[str, list[float | list[float] | None]]]
    answers: list[str] | msgspec.UnsetType = msgspec.UNSET


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
    # Empty in files of earlier versions.
    header_sha256: str = ""


class _Fingerprint(msgspec.Struct, frozen=True):
    fingerprint: str | None = None


def hash_id(task: str, kind: str, name: str) -> str:
    """Hash a sample's or user's id to 16 hex digits."""
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
    hashed_lines = [
        (hash_id(task, "sample", line.sample_id), hash_id(task, "user", line.user_id), line)
        for line in folder.scores()
    ]
    hashed_lines.sort(key=lambda hashed_line: hashed_line[0])

    values: dict[str, dict[str, list[float | list[float] | None]]] = {}
    for index, (_, _, line) in enumerate(hashed_lines):
        for scorer, metrics in line.values.items():
            columns = values.setdefault(scorer, {})
            for metric, value in metrics.items():
                column = columns.setdefault(metric, [None] * len(hashed_lines))
                column[index] = value
    answers = [line.answer for _, _, line in hashed_lines]
    return Vector(
        ids=[sample for sample, _, _ in hashed_lines],
        users=[user for _, user, _ in hashed_lines],
        values=values,
        # Earlier versions noted none.
        answers=answers if any(answers) else msgspec.UNSET,
    )


def unpack(published: Published, path: Path) -> Vector:
    """Decode the scores of a published file, read from `path`.

    Raises:
        DataError: they are damaged, or not those that were published.
    """
    try:
        text = gzip.decompress(base64.b64decode(published.scores))
        scores = from_json(text, Vector)
    except (ValueError, EOFError, OSError, zlib.error, msgspec.MsgspecError) as error:
        raise DataError(f"the scores in {path} are damaged ({error}); {_REMEDY}") from error
    if (len(scores.ids), hashlib.sha256(text).hexdigest()) != (published.count, published.sha256):
        raise DataError(f"the scores in {path} are not those that were published; {_REMEDY}")
    uneven = _find_uneven(scores)
    if uneven:
        raise DataError(f"the scores in {path} are damaged ({uneven}); {_REMEDY}")
    return scores


def _find_uneven(scores: Vector) -> str:
    """Describe a column that has not one entry per sample; empty if there is none."""
    count = len(scores.ids)
    if len(scores.users) != count:
        return f"{len(scores.users)} users for {count} samples"
    for scorer, metrics in scores.values.items():
        for metric, values in metrics.items():
            if len(values) != count:
                return f"{metric} ({scorer}) has {len(values)} values for {count} samples"
    return ""


def read(path: Path) -> Published:
    """Read a published file.

    Raises:
        DataError: it is damaged or of a later version; the message names the field.
    """
    try:
        file = from_json(path.read_bytes(), _File)
        if file.version != VERSION:
            raise DataError(
                f"{path} has version {file.version}, this is {VERSION}; update personabench"
            )
        summary = from_json(file.summary, Summary)
        spec = from_json(file.spec, RunSpec)
        header = [msgspec.json.decode(file.spec), msgspec.json.decode(file.summary)]
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}); {_REMEDY}") from error
    except msgspec.MsgspecError as error:
        raise DataError(f"{path} is not a published result ({error}); {_REMEDY}") from error
    if file.header_sha256 not in ("", digest(header)):
        raise DataError(
            f"the spec or the summary in {path} is not the one that was published; {_REMEDY}"
        )
    return Published(spec, summary, file.count, file.sha256, file.scores)


def _holds_other_run(path: Path, fingerprint: str) -> bool:
    """Whether a file holds another run or version; an unreadable file holds none."""
    try:
        file = from_json(path.read_bytes(), _File)
        held = from_json(file.summary, _Fingerprint).fingerprint
    except (OSError, msgspec.MsgspecError):
        return False
    return file.version != VERSION or held not in (None, fingerprint)


def publish(folder: RunFolder, target: Path, name: str | None = None) -> Path:
    """Write a finished run as one file under `target`, and return its path.

    A run whose answers a judge left unjudged is a result too, without scores.

    Raises:
        UsageError: samples are owed, there are no scores, the name is taken by another run, or the
            file cannot be written.
        DataError: a file of the run is damaged.
    """
    summary, spec = folder.summary(), folder.spec()
    if not summary.complete:
        raise UsageError(f"{folder.path}: {summary.debt}; repeat the run's command, then publish")
    if not summary.n:
        raise UsageError(f"{folder.path} has no scored samples")
    folder.verify_all()
    scores = score_vector(folder, spec.task)
    if not scores.ids and not summary.counters.get("unjudged"):
        raise UsageError(f"{folder.path} has no scores: its split has no references")
    path = target / f"{name or default_name(spec)}.json"
    if _holds_other_run(path, spec.fingerprint):
        raise UsageError(f"{path} holds another run; choose another --name or delete it")
    _write(path, _encode(spec, summary, scores))
    return path


def default_name(spec: RunSpec) -> str:
    """The name of a published file without its ending, unless another is chosen."""
    parts = (
        spec.task,
        spec.separation,
        spec.split,
        spec.method,
        spec.model["name"],
        spec.fingerprint[:8],
    )
    return re.sub(r"[^A-Za-z0-9_.+-]+", "_", "-".join(parts))


def _encode(spec: RunSpec, summary: Summary, scores: Vector) -> bytes:
    fields = {name: value for name, value in to_dict(summary).items() if name not in _LEFT_OUT}
    fields["command"] = _shorten_paths(summary.command)
    if not spec.sample:
        # Without the folders of the machine.
        fields["source"] = Path(summary.source).name

    plain = to_json(msgspec.structs.replace(scores, answers=msgspec.UNSET)).encode()
    # No time of compression, so that the same run gives the same bytes.
    packed = gzip.compress(plain, mtime=0)
    content = {
        "version": VERSION,
        "spec": spec,
        "summary": fields,
        "count": len(scores.ids),
        "sha256": hashlib.sha256(plain).hexdigest(),
        "scores": base64.b64encode(packed).decode(),
        "header_sha256": digest(msgspec.to_builtins([spec, fields])),
    }
    text = msgspec.json.encode(content, order="deterministic")
    return msgspec.json.format(text, indent=1) + b"\n"


def _shorten_paths(command: str) -> str:
    """A command with absolute paths reduced to their last part."""
    return re.sub(r"(?<![\w:/.])(?:~|/)(?:[^\s'/]+/)+", "", command)


def _write(path: Path, text: bytes) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        replace_bytes(path, text)
    except OSError as error:
        raise UsageError(f"{path} cannot be written: {error.strerror}") from error
