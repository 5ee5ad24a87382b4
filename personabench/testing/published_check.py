"""Checks of published results, for `personabench check published`.

A reader of published numbers has neither the answers nor the data. What can be held against each
other are the parts of a file: hashes, ids and counts, the identity of the run and its name, and the
summary, which has to follow from the scores of the samples.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from personabench.api.users import open_split
from personabench.errors import DataError, PersonabenchError, UsageError
from personabench.leaderboard.column import aggregate_of, check_summary
from personabench.results.index import read_published
from personabench.results.locate import find_task
from personabench.results.published import Published, Vector, default_name, read, unpack
from personabench.results.run import Run
from personabench.results.spec import RunSpec
from personabench.results.summary import Summary
from personabench.testing.finding import Finding

_HASHED_ID = re.compile(r"[0-9a-f]{16}")
_FINGERPRINT_END = re.compile(r"-([0-9a-f]{8})$")
_ABSOLUTE_PATH = re.compile(r"(?<![\w:/.])(?:~|/[\w.-]+)(?:/[\w.-]+)+")

# Fields that a summary repeats from its spec.
_SHARED = (
    "task",
    "separation",
    "split",
    "sample",
    "data_hash",
    "method",
    "params",
    "history",
    "sampling",
    "seed",
)

# Names and settings are shorter, and so are most sentences about a run; texts of data are longer.
_LONGEST = 1000
# Shorter texts of the data, such as labels, may be words of a setting.
_SHORTEST_TEXT = 20


def check_published(folder: Path) -> Iterator[Finding]:
    """Check each published file of a folder.

    Raises:
        UsageError: there is no such folder, or it has no files.
    """
    if not folder.is_dir():
        raise UsageError(f"{folder} is no folder; `personabench publish RUN --to FOLDER` makes one")
    paths = sorted(folder.glob("*.json"))
    if not paths:
        raise UsageError(f"{folder} has no published results (*.json)")

    fingerprints: dict[str, Path] = {}
    for path in paths:
        try:
            published = read(path)
            scores = unpack(published, path)
        except DataError as error:
            yield Finding(path.name, False, str(error))
            continue
        faults = [*_list_faults(path, published, scores)]
        first = fingerprints.setdefault(published.spec.fingerprint, path)
        if first != path:
            faults.append(f"{first.name} has the same run")
        recomputed = 0
        unknown: list[str] = []
        try:
            recomputed, unknown = _recompute(read_published(path), scores)
        except DataError as error:
            faults.append(str(error))

        counts = f"{len(scores.ids)} samples, {len(set(scores.users))} users"
        detail = f"{counts}, {recomputed} numbers recomputed"
        if unknown:
            detail += f"; not recomputed, since this version has no such task: {', '.join(unknown)}"
        holds = None if unknown and not recomputed else True
        yield Finding(path.name, False if faults else holds, "; ".join(faults) or detail)


def _list_faults(path: Path, published: Published, scores: Vector) -> Iterator[str]:
    yield from _check_identity(path, published)
    yield from _check_counts(published.summary, scores)
    yield from _check_texts(path, published, scores)


def _check_identity(path: Path, published: Published) -> Iterator[str]:
    spec, summary = published.spec, published.summary
    if not msgspec.json.decode(path.read_bytes()).get("header_sha256"):
        yield "it has no hash of its spec and summary: publish the run again"
    if summary.fingerprint != spec.fingerprint:
        yield (
            f"the fingerprint of its spec is {spec.fingerprint[:8]}, its summary says "
            f"{summary.fingerprint[:8]}"
        )
    end = _FINGERPRINT_END.search(path.stem)
    if end and path.stem != default_name(spec):
        yield f"it is named for another run; its own name is {default_name(spec)}.json"

    of_spec, of_summary = msgspec.to_builtins(spec), msgspec.to_builtins(summary)
    differing = [name for name in _SHARED if of_spec[name] != of_summary[name]]
    if spec.model["name"] != summary.model:
        differing.append("model")
    if differing:
        yield f"spec and summary differ in {', '.join(differing)}"


def _check_counts(summary: Summary, scores: Vector) -> Iterator[str]:
    ids, users = scores.ids, scores.users
    repeated = [name for name, count in Counter(ids).items() if count > 1]
    if repeated:
        yield f"{len(repeated)} samples are listed more than once, such as {repeated[0]}"

    scored = summary.n - int(summary.counters.get("unjudged", 0))
    if len(ids) != scored:
        yield f"the summary counts {scored} scored samples, the scores are of {len(ids)}"
    elif scored == summary.n and len(set(users)) != summary.users:
        yield f"the summary counts {summary.users} users, the scores are of {len(set(users))}"
    if summary.owed or not summary.complete:
        yield f"the run is not complete: {summary.owed} samples are owed"


def _check_texts(path: Path, published: Published, scores: Vector) -> Iterator[str]:
    """Faults of a file that holds more than numbers, names and hashes."""
    if not all(_HASHED_ID.fullmatch(name) for name in (*scores.ids, *scores.users)):
        yield "its ids are not hashed"
    if scores.answers is not msgspec.UNSET:
        yield "it holds hashes of answers, from which short ones can be guessed"

    content = msgspec.json.decode(path.read_bytes())
    fields = {"version", "spec", "summary", "count", "sha256", "scores", "header_sha256"}
    further = {*(set(content) - fields), *_further_fields(content["spec"], RunSpec)}
    further |= _further_fields(content["summary"], Summary)
    # These name folders of a machine, or quote the data.
    further |= {name for name in ("data", "warnings") if content["summary"].get(name)}
    if further:
        yield f"it has fields that published files do not have: {', '.join(sorted(further))}"

    texts = [text for part in ("spec", "summary") for text in _walk_texts(content[part])]
    long = [text for text in texts if len(text) > _LONGEST]
    if long:
        yield f"it holds a text of {len(long[0])} characters: {long[0][:40]!r}"
    folders = [match[0] for text in texts if (match := _ABSOLUTE_PATH.search(text))]
    if folders:
        yield f"it holds a path of a machine: {folders[0]}"
    quoted = _find_quote(published, "\n".join(texts))
    if quoted:
        yield f"it quotes the data: {quoted[:40]!r}"


def _further_fields(fields: dict[str, Any], kind: type[msgspec.Struct]) -> set[str]:
    return set(fields) - set(kind.__struct_fields__)


def _walk_texts(value: Any) -> Iterator[str]:
    """All texts in a JSON value, keys included."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key, item in value.items():
            yield key
            yield from _walk_texts(item)
    elif isinstance(value, list):
        for item in value:
            yield from _walk_texts(item)


def _find_quote(published: Published, text: str) -> str:
    """A text of the example data that occurs in a file; empty if there is none.

    The data of other runs is not at hand.
    """
    spec = published.spec
    task = find_task(spec.task, spec.task_params, spec.task_hash)
    if not spec.sample or task is None:
        return ""
    try:
        dataset = open_split(task, f"{spec.separation}/{spec.split}", None)
    except PersonabenchError:
        return ""
    for position, _ in enumerate(dataset.index()):
        sample = dataset.load(position)
        records = [part for record in sample.history for part in (record.stimulus, record.response)]
        for quote in filter(None, (sample.input, *sample.references, *records)):
            if len(quote) >= _SHORTEST_TEXT and quote in text:
                return quote
    return ""


def _recompute(run: Run, scores: Vector) -> tuple[int, list[str]]:
    """Compute the summary's numbers again from the scores.

    Returns:
        how many agree, and the metrics that only their task could compute.

    Raises:
        DataError: a number does not follow from the scores.
    """
    recomputed = 0
    unknown = []
    for scorer, metrics in run.summary.metrics.items():
        for name in metrics:
            aggregate = aggregate_of(run, name, scores)
            if aggregate is None:
                unknown.append(f"{name} ({scorer})")
                continue
            check_summary(run, name, scores, aggregate, scorer)
            recomputed += 1
    return recomputed, unknown
