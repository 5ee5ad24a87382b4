"""Fetching PRELUDE's documents from the Hugging Face hub, one environment into one folder.

Each data set is read at the commit that its main branch names at that moment, or at the one that the folder's manifest
already has.  Rows that are no documents are left out as the paper's code does; of long tables the first 5,000 documents
are kept, which the manifest says.  A data set that cannot be read is named with what to put in its place.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from personabench.api.downloads import Progress, describe, exclusive, read_manifest, write_manifest
from personabench.errors import DataError
from personabench.types import to_json

LONGEST_TABLE = 5000
_COMMIT = re.compile(r"/resolve/([0-9a-f]{40})$")
Row = Mapping[str, Any]


class Origin(NamedTuple):
    """Where a source's documents come from: a data set, its configuration and split, and how a row is read."""

    repository: str
    config: str | None
    split: str
    read: Callable[[Row], str | None]


def _field(name: str) -> Callable[[Row], str | None]:
    return lambda row: str(row[name])


def _medium(row: Row) -> str | None:
    return row["text"] if 500 < len(row["text"].split()) < 700 else None


def _paper(row: Row) -> str | None:
    highlights = [
        each["sentence"] if isinstance(each, dict) else each
        for each in row["author_highlights"] or ()
    ]
    return (
        "\n\n".join([row["title"], row["abstract"], "\n".join(highlights)]) if highlights else None
    )


def _review(row: Row) -> str | None:
    return " ".join(row["text"]) if isinstance(row["text"], list) else row["text"]


def _quoted(row: Row) -> str | None:
    text = next(str(value) for value in row.values() if isinstance(value, str))
    return (
        None if "[" in text or text.count('"') < 2 else text[text.index('"') + 1 : text.rindex('"')]
    )


_POSTS = Origin("JeremyAlain/SLF5K", None, "train", _field("post"))
ORIGINS: Mapping[str, Mapping[str, Origin]] = {
    "summ": {
        "news_article": Origin("abisee/cnn_dailymail", "3.0.0", "train", _field("article")),
        "forum_post": _POSTS,
        "encyclopedia_article": Origin(
            "legacy-datasets/wikipedia", "20220301.simple", "train", _medium
        ),
        "paper_abstract": Origin("CShorten/ML-ArXiv-Papers", None, "train", _field("abstract")),
        "movie_review": Origin("stanfordnlp/imdb", None, "train", _field("text")),
    },
    "email": {
        "forum_post": _POSTS,
        "paper_abstract": Origin("orieg/elsevier-oa-cc-by", None, "train", _paper),
        "peer_review": Origin("launch/ampere", None, "train", _review),
        "paper_tldr": Origin("nitsanb/paper_tweet", None, "train", _quoted),
    },
}


def download(
    env: str, target: Path, *, base_url: str | None = None, progress: Progress | None = None
) -> None:
    """Fetch `target`/SOURCE.jsonl for every source of an environment.

    Args:
        base_url: a hub endpoint other than the public one.
        progress: not called; the hub's client shows its own.

    Raises:
        DataError: a data set cannot be read, has no documents, or the folder holds other documents of that name.
    """
    hub = (base_url or "https://huggingface.co").rstrip("/")
    with exclusive(target):
        entries = read_manifest(target)
        for source, origin in ORIGINS[env].items():
            path, place = target / f"{source}.jsonl", f"{hub}/datasets/{origin.repository}/resolve/"
            known = entries.get(path.name)
            if known is not None and f"/{origin.repository}/" not in known.url:
                raise DataError(
                    f"{path} holds documents of {known.url}; download {env} into a folder of its own"
                )
            found = known and _COMMIT.search(known.url)
            commit = found[1] if found else _newest(origin, base_url, path)
            documents = list(itertools.islice(_documents(origin, commit, path), LONGEST_TABLE))
            if not documents:
                raise DataError(f"{origin.repository} at {commit} has no documents for {source}")
            rows = [{"doc_id": f"{source}-{number}", "text": text} for number, text in documents]
            path.write_text("".join(to_json(row) + "\n" for row in rows), encoding="utf-8")
            notes = (
                (f"the first {LONGEST_TABLE} documents of the table",)
                if len(rows) == LONGEST_TABLE
                else ()
            )
            entries[path.name] = describe(path, f"{place}{commit}", len(rows), notes)
            write_manifest(target, entries)


def _newest(origin: Origin, endpoint: str | None, path: Path) -> str:
    import huggingface_hub

    try:
        return str(huggingface_hub.HfApi(endpoint=endpoint).dataset_info(origin.repository).sha)
    except Exception as error:
        raise _unreadable(origin, path, error) from error


def _documents(origin: Origin, commit: str, path: Path) -> Iterator[tuple[int, str]]:
    """The documents of a table in its order, with their row numbers."""
    import datasets

    try:
        rows = datasets.load_dataset(
            origin.repository, origin.config, split=origin.split, revision=commit, streaming=True
        )
        for number, row in enumerate(rows):
            text = origin.read(row)
            if text is not None and text.strip():
                yield number, text.strip()
    except Exception as error:
        raise _unreadable(origin, path, error) from error


def _unreadable(origin: Origin, path: Path, error: Exception) -> DataError:
    return DataError(
        f"{origin.repository} could not be read: {type(error).__name__}: {error}\nGet it in another way and write its "
        f'documents to {path}, a line {{"doc_id": .., "text": ..}} each'
    )
