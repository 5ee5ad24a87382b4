"""Download of PRELUDE's documents from the Hugging Face hub, one environment into one folder.

Each data set is read at the commit of its main branch, or at the commit that the folder's manifest
records already.  Rows without a document are left out as in the paper's code.  Of long tables the
first 5,000 documents are kept, which the manifest notes.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from personabench.api import downloads
from personabench.errors import DataError
from personabench.types import to_json

# Trajectories take 40 or 50 documents of a source; whole tables would be hundreds of megabytes.
LONGEST_TABLE = 5000

Row = Mapping[str, Any]


class Origin(NamedTuple):
    """Origin of a source's documents: data set, configuration, split, and how to read a row."""

    repository: str
    config: str | None
    split: str
    read: Callable[[Row], str | None]


def _make_field_reader(name: str) -> Callable[[Row], str | None]:
    return lambda row: str(row[name])


def _read_medium_article(row: Row) -> str | None:
    """An article of 500 to 700 words, the lengths that the paper's code keeps."""
    text: str = row["text"]
    return text if 500 < len(text.split()) < 700 else None


def _read_paper(row: Row) -> str | None:
    """Title, abstract and highlights of a paper that has highlights."""
    # A highlight is a text, or a record with the text in it, whichever the table's version has.
    highlights = [
        highlight["sentence"] if isinstance(highlight, dict) else highlight
        for highlight in row["author_highlights"] or ()
    ]
    if not highlights:
        return None
    return "\n\n".join([row["title"], row["abstract"], "\n".join(highlights)])


def _read_review(row: Row) -> str | None:
    text: str | list[str] = row["text"]
    return " ".join(text) if isinstance(text, list) else text


def _read_quotation(row: Row) -> str | None:
    """The quoted part of the first text of a row."""
    text = next(str(value) for value in row.values() if isinstance(value, str))
    if "[" in text or text.count('"') < 2:
        return None
    return text[text.index('"') + 1 : text.rindex('"')]


_POSTS = Origin("JeremyAlain/SLF5K", None, "train", _make_field_reader("post"))
ORIGINS: Mapping[str, Mapping[str, Origin]] = {
    "summ": {
        "news_article": Origin(
            "abisee/cnn_dailymail", "3.0.0", "train", _make_field_reader("article")
        ),
        "forum_post": _POSTS,
        "encyclopedia_article": Origin(
            "legacy-datasets/wikipedia", "20220301.simple", "train", _read_medium_article
        ),
        "paper_abstract": Origin(
            "CShorten/ML-ArXiv-Papers", None, "train", _make_field_reader("abstract")
        ),
        "movie_review": Origin("stanfordnlp/imdb", None, "train", _make_field_reader("text")),
    },
    "email": {
        "forum_post": _POSTS,
        "paper_abstract": Origin("orieg/elsevier-oa-cc-by", None, "train", _read_paper),
        "peer_review": Origin("launch/ampere", None, "train", _read_review),
        "paper_tldr": Origin("nitsanb/paper_tweet", None, "train", _read_quotation),
    },
}


def download(
    env: str,
    target: Path,
    *,
    base_url: str | None = None,
    progress: downloads.Progress | None = None,
) -> None:
    """Fetch `target`/SOURCE.jsonl for every source of an environment.

    Args:
        env: summ or email.
        target: the folder that receives the files.
        base_url: a hub endpoint other than the public one.
        progress: not called; the hub's client shows its own.

    Raises:
        DataError: a data set cannot be read or has no documents, or the folder holds other
            documents of that name.
    """
    hub = (base_url or downloads.HUB).rstrip("/")
    with downloads.lock_folder(target):
        entries = downloads.read_manifest(target)
        for source, origin in ORIGINS[env].items():
            path = target / f"{source}.jsonl"
            entry = entries.get(path.name)
            # Both environments have sources of these names, but from other data sets.
            if entry is not None and f"/{origin.repository}/" not in entry.url:
                raise DataError(
                    f"{path} holds documents of {entry.url}; download {env} into a folder of its "
                    f"own"
                )
            commit = downloads.pinned_commit([entry]) if entry else None
            if commit is None:
                commit = _find_newest(origin, hub, path)
            entries[path.name] = _write_documents(source, origin, commit, hub, path)
            # After every source, so that an interrupted download continues at the same commits.
            downloads.write_manifest(target, entries)


def _write_documents(
    source: str,
    origin: Origin,
    commit: str,
    hub: str,
    path: Path,
) -> downloads.ManifestEntry:
    """Write the documents of a source; returns their manifest entry.

    Raises:
        DataError: the data set cannot be read or has no documents.
    """
    table = _iterate_documents(origin, commit, path)
    documents = list(itertools.islice(table, LONGEST_TABLE))
    if not documents:
        raise DataError(f"{origin.repository} at {commit} has no documents for {source}")

    with path.open("w", encoding="utf-8") as file:
        for number, text in documents:
            row = {"doc_id": f"{source}-{number}", "text": text}
            file.write(f"{to_json(row)}\n")

    notes: tuple[str, ...] = ()
    if len(documents) == LONGEST_TABLE:
        notes = (f"the first {LONGEST_TABLE} documents of the table",)
    url = f"{hub}/datasets/{origin.repository}/resolve/{commit}"
    return downloads.describe(path, url, len(documents), notes)


def _find_newest(origin: Origin, hub: str, path: Path) -> str:
    try:
        return downloads.newest_commit(origin.repository, hub)
    except Exception as error:
        raise _describe_failure(origin, path, error) from error


def _iterate_documents(origin: Origin, commit: str, path: Path) -> Iterator[tuple[int, str]]:
    """Yield the documents of a table in its order, with their row numbers."""
    import datasets

    try:
        # Streaming, because only the first documents of a long table are read.
        rows = datasets.load_dataset(
            origin.repository,
            origin.config,
            split=origin.split,
            revision=commit,
            streaming=True,
        )
        for number, row in enumerate(rows):
            text = origin.read(row)
            if text is not None and text.strip():
                yield number, text.strip()
    except Exception as error:
        raise _describe_failure(origin, path, error) from error


def _describe_failure(origin: Origin, path: Path, error: Exception) -> DataError:
    return DataError(
        f"{origin.repository} could not be read: {type(error).__name__}: {error}\n"
        f"Obtain it in another way and write its documents to {path}, "
        'a line {"doc_id": .., "text": ..} each'
    )
