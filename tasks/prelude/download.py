"""Download of PRELUDE's documents from the Hugging Face hub, one environment into one folder.

Each data set is read at the commit of its main branch, or at the commit that the folder's manifest
records already.  Rows without a document are left out as in the paper's code.  The paper draws
trajectories from whole tables, so each table is read whole; kept are the documents that some seeds
draw, and the lengths of the tables (`data.Tables`).
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from personabench.api import downloads
from personabench.errors import DataError
from personabench.results.files import replace_bytes
from personabench.tasks.prelude.data import PAPER_ROUNDS, TABLES, Tables, draw_rows, read_tables
from personabench.types import to_json

# The paper has 0, 1 and 2; six trajectories have an interval.
SEEDS = range(10)

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
    """The notes of a paper's author: title, abstract and highlights, if it has highlights."""
    # A highlight is a text, or a record with the text in it, whichever the table's version has.
    highlights = [
        highlight["sentence"] if isinstance(highlight, dict) else highlight
        for highlight in row["author_highlights"] or ()
    ]
    if not highlights:
        return None
    parts = {
        "The title of my paper": row["title"],
        "What my abstract says": row["abstract"],
        "What I highlight": " ".join(f"{highlight.rstrip('.')}." for highlight in highlights),
    }
    return "\n".join(f"{label}: {text}" for label, text in parts.items())


def _read_review(row: Row) -> str | None:
    text: str | list[str] = row["text"]
    return " ".join(text) if isinstance(text, list) else text


def _read_quotation(row: Row) -> str | None:
    """The quoted part of the first text of a row, without its last two characters.

    These are what the paper's code cuts before the closing quotation mark.
    """
    text = next(str(value) for value in row.values() if isinstance(value, str))
    if "[" in text or '"' not in text:
        return None
    return text[text.index('"') + 1 : text.rindex('"') - 2]


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
    seeds: Sequence[int] = SEEDS,
    rounds: int = PAPER_ROUNDS,
    base_url: str | None = None,
    progress: downloads.Progress | None = None,
) -> None:
    """Fetch `target`/SOURCE.jsonl for every source of an environment.

    Args:
        env: summ or email.
        target: the folder that receives the files.
        seeds, rounds: of the trajectories whose documents are kept.
        base_url: a hub endpoint other than the public one.
        progress: not called; the hub's client shows its own.

    Raises:
        DataError: a data set cannot be read or has no documents, or the folder holds other
            documents of that name.
    """
    hub = (base_url or downloads.HUB).rstrip("/")
    lengths: dict[str, int] = {}
    with downloads.lock_folder(target):
        _check_folder(target, seeds, rounds)
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
            with tempfile.TemporaryDirectory(dir=target) as folder:
                table = _Table(Path(folder) / path.name)
                lengths[source] = table.fill(_iterate_documents(origin, commit, path))
                if not lengths[source]:
                    raise DataError(
                        f"{origin.repository} at {commit} has no documents for {source}"
                    )
                share = rounds // len(ORIGINS[env])
                rows = _find_drawn_rows(list(lengths.values()), share, seeds)
                count = table.write(path, source, rows)
            url = f"{hub}/datasets/{origin.repository}/resolve/{commit}"
            drawn = f"{SEEDS[0]} to {SEEDS[-1]}" if seeds == SEEDS else ", ".join(map(str, seeds))
            note = f"those of {lengths[source]} that the seeds {drawn} draw"
            entries[path.name] = downloads.describe(path, url, count, (note,))
            # After every source, so that an interrupted download continues at the same commits.
            downloads.write_manifest(target, entries)

        tables = Tables(lengths, list(seeds), rounds)
        replace_bytes(target / TABLES, f"{to_json(tables)}\n".encode())


def _check_folder(target: Path, seeds: Sequence[int], rounds: int) -> None:
    """Refuse a folder with the documents of other trajectories, which would be overwritten.

    Raises:
        DataError: it has such documents.
    """
    held = read_tables(target)
    if held is None or (held.seeds, held.rounds) == (list(seeds), rounds):
        return
    raise DataError(
        f"{target} holds the documents of {held.rounds} rounds and the seeds "
        f"{', '.join(map(str, held.seeds))}; download those of {rounds} rounds and the seeds "
        f"{', '.join(map(str, seeds))} into a folder of their own"
    )


def _find_drawn_rows(lengths: Sequence[int], share: int, seeds: Sequence[int]) -> list[int]:
    """The rows of the last of some tables that any of the seeds draws.

    Args:
        lengths: of the tables up to this one, in order; a draw depends on no later table.
        share: rows drawn of each table.
    """
    rounds = share * len(lengths)
    last = len(lengths) - 1
    drawn = {
        row for seed in seeds for source, row in draw_rows(lengths, rounds, seed) if source == last
    }
    return sorted(drawn)


class _Table:
    """A whole table on disk, one line a row, of which a few rows are read again."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._starts: list[int] = []

    def fill(self, texts: Iterator[str]) -> int:
        """Write all rows; return their number."""
        with self._path.open("wb") as file:
            for text in texts:
                self._starts.append(file.tell())
                file.write(f"{to_json(text)}\n".encode())
        return len(self._starts)

    def write(self, path: Path, source: str, rows: Sequence[int]) -> int:
        """Write some rows as documents; return the number of those that are not blank."""
        count = 0
        with self._path.open("rb") as file, path.open("w", encoding="utf-8") as output:
            for row in rows:
                if row >= len(self._starts):
                    continue
                file.seek(self._starts[row])
                text = msgspec.json.decode(file.readline(), type=str).strip()
                if text:
                    document = {"doc_id": f"{source}-{row}", "row": row, "text": text}
                    output.write(f"{to_json(document)}\n")
                    count += 1
        return count


def _find_newest(origin: Origin, hub: str, path: Path) -> str:
    try:
        return downloads.newest_commit(origin.repository, hub)
    except Exception as error:
        raise _describe_failure(origin, path, error) from error


def _iterate_documents(origin: Origin, commit: str, path: Path) -> Iterator[str]:
    """Yield the documents of a table in its order.

    A blank one counts as a row, since the paper's code draws among all of them.
    """
    import datasets

    try:
        # Streaming, because a long table would be stored twice.
        rows = datasets.load_dataset(
            origin.repository,
            origin.config,
            split=origin.split,
            revision=commit,
            streaming=True,
        )
        for row in rows:
            text = origin.read(row)
            if text is not None:
                yield text
    except Exception as error:
        raise _describe_failure(origin, path, error) from error


def _describe_failure(origin: Origin, path: Path, error: Exception) -> DataError:
    return DataError(
        f"{origin.repository} could not be read: {type(error).__name__}: {error}\n"
        f"Obtain it in another way and write its documents to {path}, "
        'a line {"doc_id": .., "text": ..} each'
    )
