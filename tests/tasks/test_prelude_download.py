"""Downloading PRELUDE's documents from a hub that is a folder."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import datasets
import huggingface_hub
import pytest

from personabench.errors import DataError
from personabench.tasks.prelude import PreludeEmail, PreludeSumm, download

COMMIT = "0123456789abcdef0123456789abcdef01234567"
TABLES: dict[str, list[dict[str, Any]]] = {
    "abisee/cnn_dailymail": [{"article": f" News {n}. ", "highlights": "x"} for n in range(60)],
    "JeremyAlain/SLF5K": [{"post": f"Post {n}" if n else "  "} for n in range(61)],
    "legacy-datasets/wikipedia": [
        {"text": "word " * length} for length in (500, 501, 699, 700, *range(510, 560))
    ],
    "CShorten/ML-ArXiv-Papers": [{"abstract": f"Abstract {n}"} for n in range(60)],
    "stanfordnlp/imdb": [{"text": f"Review {n}", "label": 1} for n in range(60)],
    "orieg/elsevier-oa-cc-by": [
        {
            "title": f"T{n}",
            "abstract": "A",
            "author_highlights": [{"sentence": "H"}] if n % 2 else [],
        }
        for n in range(120)
    ],
    "launch/ampere": [{"text": ["One.", "Two."], "labels": [1, 2]} for _ in range(60)],
    "nitsanb/paper_tweet": [
        {"tweet": f'Look: "We {n}"' if n % 3 else f'["We {n}"]'} for n in range(90)
    ],
}


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """A hub with a JSON file per data set, read by the `datasets` library; returns the calls."""
    calls: list[dict[str, Any]] = []
    real = datasets.load_dataset
    for name, rows in TABLES.items():
        (tmp_path / "hub" / name).mkdir(parents=True)
        (tmp_path / "hub" / name / "train.jsonl").write_text(
            "".join(json.dumps(row) + "\n" for row in rows)
        )

    def load(repository: str, config: str | None, **options: Any) -> Any:
        calls.append({"repository": repository, "config": config, **options})
        return real(
            str(tmp_path / "hub" / repository),
            split=options["split"],
            streaming=options["streaming"],
        )

    class Api:
        def __init__(self, endpoint: str | None) -> None:
            self.endpoint = endpoint

        def dataset_info(self, repository: str, timeout: float) -> Any:
            return SimpleNamespace(sha=COMMIT if len(calls) < 6 else "f" * 40)

    monkeypatch.setattr(datasets, "load_dataset", load)
    monkeypatch.setattr(huggingface_hub, "HfApi", Api)
    return calls


def test_summaries_are_fetched_checked_and_pinned(
    hub: list[dict[str, Any]], tmp_path: Path
) -> None:
    target = tmp_path / "data"
    PreludeSumm().download("all", target)
    assert [call["repository"] for call in hub] == list(TABLES)[:5]
    assert all(call["revision"] == COMMIT and call["streaming"] for call in hub)
    assert hub[0]["config"] == "3.0.0"
    files = json.loads((target / "manifest.json").read_text())["files"]
    counts = dict.fromkeys(("news_article", "forum_post", "paper_abstract", "movie_review"), 60)
    counts["encyclopedia_article"] = 52
    assert {name.removesuffix(".jsonl"): entry["count"] for name, entry in files.items()} == counts
    assert files["movie_review.jsonl"]["url"].endswith(
        f"/datasets/stanfordnlp/imdb/resolve/{COMMIT}"
    )
    data = PreludeSumm().open("all", target)
    assert len(data.index()) == 600
    assert data.load(0).stimulus == str(data.load(0).stimulus).strip()
    PreludeSumm().download("all", target)
    assert {call["revision"] for call in hub} == {COMMIT}, (
        "a later call asks for the commit of the copy"
    )


def test_emails_are_read_as_the_papers_rows(hub: list[dict[str, Any]], tmp_path: Path) -> None:
    PreludeEmail().download("all", tmp_path / "data")
    first = {
        path.stem: json.loads(path.read_text().splitlines()[0])
        for path in (tmp_path / "data").glob("*.jsonl")
    }
    assert first["paper_abstract"] == {"doc_id": "paper_abstract-1", "text": "T1\n\nA\n\nH"}
    assert first["peer_review"]["text"] == "One. Two."
    assert first["paper_tldr"]["text"] == "We 1"
    assert len((tmp_path / "data" / "paper_tldr.jsonl").read_text().splitlines()) == 60
    with pytest.raises(DataError, match="into a folder of its own"):
        PreludeSumm().download("all", tmp_path / "data")


def test_long_tables_are_truncated_with_a_note(
    hub: list[dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(download, "LONGEST_TABLE", 50)
    PreludeSumm().download("all", tmp_path / "data")
    entry = json.loads((tmp_path / "data" / "manifest.json").read_text())["files"][
        "movie_review.jsonl"
    ]
    assert entry["count"] == 50
    assert entry["notes"] == ["the first 50 documents of the table"]


def test_a_data_set_that_cannot_be_read_is_named_with_a_remedy(
    hub: list[dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: Any, **__: Any) -> None:
        raise OSError("no route")

    monkeypatch.setattr(datasets, "load_dataset", refused)
    with pytest.raises(
        DataError,
        match=r"cnn_dailymail could not be read: OSError: no route\n.*news_article\.jsonl",
    ):
        PreludeSumm().download("all", tmp_path / "data")
