"""Downloads of the data sets of preferences, with checks of fields and numbers of rows."""

from __future__ import annotations

import re
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from personabench.api import downloads
from personabench.api.rows import read_rows
from personabench.errors import DataError, UsageError

SPLIT = "all"
RAW = "https://raw.githubusercontent.com"
TABLE = r"[^/]*\.(parquet|jsonl|json|csv)"
# The first characters of a file by its ending; a web page in its place begins with another.
OPENINGS = {".jsonl": b"{", ".json": b"[{", ".parquet": b"P"}


class FileRule(NamedTuple):
    """What files of a pattern hold.

    Attributes:
        pattern: matches the whole path of a file.
        fields: fields that every row must have.
        rows: the published number of rows; None if it is not known.
    """

    pattern: str
    fields: tuple[str, ...]
    rows: int | None = None


class Source(NamedTuple):
    """Where a data set is published.

    Attributes:
        repository: a dataset of the Hugging Face Hub, or, if `files` are named, of GitHub.
        rules: every file that matches one is fetched; each rule must match a file.
        files: paths of the files of a GitHub repository, whose folder is left out of the copy.
        total: the published number of rows of all files of the first rule; None if unknown.
        terms: terms of use, from the data's page.
    """

    repository: str
    rules: tuple[FileRule, ...]
    files: tuple[str, ...] = ()
    total: int | None = None
    terms: str = ""


SOURCES: Mapping[str, Source] = {
    "psoups": Source(
        "JinaLeejnl/AlignX",
        (
            FileRule(
                r"[^/]+\.json",
                ("prompt", "chosen", "rejected", "ground_truth_persona"),
                600,
            ),
        ),
        files=tuple(
            f"benchmark/P-Soups/{name}.json"
            for name in ("concise_detail", "friendly_unfriendly", "student_phd")
        ),
        terms="no licence is stated",
    ),
    "prism": Source(
        "HannahRoseKirk/prism-alignment",
        (
            FileRule(r"survey\.jsonl", ("user_id",), 1500),
            FileRule(
                r"conversations\.jsonl",
                ("conversation_id", "user_id", "conversation_type", "generated_datetime"),
                8011,
            ),
            FileRule(
                r"utterances\.jsonl",
                ("interaction_id", "user_prompt", "model_response", "score", "if_chosen"),
                68371,
            ),
        ),
        terms="texts of people CC BY 4.0, texts of models CC BY-NC 4.0",
    ),
    "community_alignment": Source(
        "facebook/community-alignment-dataset",
        (
            FileRule(
                rf"(.*/)?{TABLE}",
                ("annotator_id", "first_turn_prompt", "first_turn_preferred_response"),
            ),
        ),
        terms="CC BY 4.0",
    ),
    "personalllm": Source(
        "namkoong-lab/PersonalLLM",
        (
            FileRule(rf"(data/)?train{TABLE}", ("prompt", "prompt_id", "response_1")),
            FileRule(rf"(data/)?test{TABLE}", ("prompt", "prompt_id", "response_1")),
        ),
        terms="CC BY 4.0",
    ),
    "personafeedback": Source(
        "PersonalAILab/PersonaFeedback",
        (
            FileRule(
                rf"(?=.*(general|specific|spedific))(?=.*(easy|medium|hard))(.*/)?{TABLE}",
                ("user_id", "question", "chosen", "reject"),
            ),
            FileRule(r"(.*/)?[^/]*persona[^/]*\.jsonl", ()),
        ),
        total=8298,
        terms="see its page",
    ),
    "personalized_rewardbench": Source(
        "QiyaoMa/Personalized-RewardBench",
        (
            FileRule(
                r"(.*/)?test\b[^/]*\.(parquet|jsonl|json)",
                ("id", "question", "profile", "category", "chosen", "rejected"),
            ),
        ),
        terms="see its page",
    ),
}
"""Where each task's data are published, by the name of the task."""


def download(
    task: str,
    split: str,
    target: Path,
    *,
    base_url: str | None = None,
    source: Source | None = None,
    progress: downloads.Progress | None = None,
    notice: Callable[[str], None] = warnings.warn,
    wait: Callable[[float], None] = time.sleep,
) -> list[Path]:
    """Fetch and check the files of a data set into a folder of the task's name in `target`.

    Args:
        task: name of the task.
        split: "all", the only one.
        base_url: the hub, or GitHub's address of raw files, or a mirror with its layout.
        source: where the data are published, if not as in `SOURCES`.
        progress: called with (url, bytes so far, bytes in total or None).
        notice: called with warnings, among them the terms of use.
        wait: called with the seconds to wait between attempts.

    Raises:
        UsageError: no such split, or another download is writing to the folder.
        DataError: the content is not the data; the message names the address and a remedy.
    """
    if split != SPLIT:
        raise UsageError(f"{task} has no split '{split}'; it has: {SPLIT}")

    source = source or SOURCES[task]
    folder = target / task
    root, names = _find_files(source, base_url, downloads.read_manifest(folder))
    counts: dict[str, int] = {}

    def check(paths: Sequence[Path]) -> downloads.CheckedFile:
        name = names[len(paths) - 1]
        counts[name] = _check_rows(paths[-1], _find_rule(source, name))
        first = [known for known in names if _find_rule(source, known) is source.rules[0]]
        if source.total and counts.keys() >= set(first):
            total = sum(counts[known] for known in first)
            if total != source.total:
                raise DataError(f"{total:,} rows in all, but {task} has {source.total:,}")
        return downloads.CheckedFile(counts[name])

    paths = downloads.download_files(
        folder,
        {name: OPENINGS.get(Path(name).suffix, b"") for name in names},
        lambda _: root,
        check,
        remedy=f"Check the address, or pass your own copy of {source.repository} with --data DIR.",
        progress=progress,
        notice=notice,
        wait=wait,
    )
    if source.terms:
        notice(f"{source.repository}: {source.terms}")
    return paths


def _find_files(
    source: Source, base_url: str | None, manifest: Mapping[str, downloads.ManifestEntry]
) -> tuple[str, list[str]]:
    """The address above the files, and their paths below it."""
    if source.files:
        folder, _, _ = source.files[0].rpartition("/")
        names = [path.rpartition("/")[2] for path in source.files]
        return f"{(base_url or RAW).rstrip('/')}/{source.repository}/main/{folder}", names

    hub = (base_url or downloads.HUB).rstrip("/")
    # A copy that is complete is checked at the commit that it came from.
    commit, listing = downloads.list_dataset(
        source.repository, hub, downloads.pinned_commit(manifest.values())
    )
    names = [name for name in listing if _matches(source, name)]
    for rule in source.rules:
        if not any(re.fullmatch(rule.pattern, name, re.IGNORECASE) for name in names):
            raise DataError(
                f"{hub}/datasets/{source.repository} at {commit} has no file like "
                f"'{rule.pattern}'; it has: {', '.join(listing) or 'none'}. Pass your own copy "
                "with --data DIR."
            )
    return f"{hub}/datasets/{source.repository}/resolve/{commit}", names


def _matches(source: Source, name: str) -> bool:
    return any(re.fullmatch(rule.pattern, name, re.IGNORECASE) for rule in source.rules)


def _find_rule(source: Source, name: str) -> FileRule:
    return next(rule for rule in source.rules if re.fullmatch(rule.pattern, name, re.IGNORECASE))


def _check_rows(path: Path, rule: FileRule) -> int:
    count = 0
    for row in read_rows(path):
        count += 1
        for field in rule.fields:
            row[field]
    if not count:
        raise DataError("it has no rows")
    if rule.rows is not None and count != rule.rows:
        raise DataError(f"{count:,} rows, but {rule.rows:,} are published")
    return count
