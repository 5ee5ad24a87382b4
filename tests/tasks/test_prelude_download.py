"""Downloading PRELUDE's documents from a hub that is a folder."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import datasets
import huggingface_hub
import numpy as np
import pytest

from personabench.errors import DataError, UsageError
from personabench.tasks.prelude import PreludeEmail, PreludeSumm

COMMIT = "0123456789abcdef0123456789abcdef01234567"
TABLES: dict[str, list[dict[str, Any]]] = {
    "abisee/cnn_dailymail": [{"article": f" News {n}. ", "highlights": "x"} for n in range(60)],
    "JeremyAlain/SLF5K": [{"post": f"Post {n}"} for n in range(60)],
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
        {"tweet": f'Look: "We tweet {n % 10}"' if n % 3 else f'["We {n}"]'} for n in range(90)
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
    assert first["paper_abstract"] == {
        "doc_id": "paper_abstract-0",
        "row": 0,
        "text": "The title of my paper: T1\nWhat my abstract says: A\nWhat I highlight: H.",
    }
    assert first["peer_review"]["text"] == "One. Two."
    # The paper's code leaves out two characters before the closing quotation mark.
    assert first["paper_tldr"]["text"] == "We tweet"
    assert len((tmp_path / "data" / "paper_tldr.jsonl").read_text().splitlines()) == 60
    with pytest.raises(DataError, match="into a folder of its own"):
        PreludeSumm().download("all", tmp_path / "data")


def test_the_documents_are_those_that_the_seeds_draw_from_whole_tables(
    hub: list[dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The paper shuffles every table, takes its head, and shuffles the heads together."""
    for name in ("abisee/cnn_dailymail", "stanfordnlp/imdb"):
        rows = [{**TABLES[name][0], "article": f"News {n}", "text": f"R {n}"} for n in range(3000)]
        path = tmp_path / "hub" / name / "train.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    folder = tmp_path / "data"
    PreludeSumm().download("all", folder)
    lengths = {"news_article": 3000, "movie_review": 3000, "encyclopedia_article": 52}
    tables = json.loads((folder / "tables.json").read_text())
    assert tables["rows"] == {"forum_post": 60, "paper_abstract": 60, **lengths}
    # Ten seeds of 40 documents each.
    kept = (folder / "news_article.jsonl").read_text().splitlines()
    assert 350 < len(kept) <= 400
    entry = json.loads((folder / "manifest.json").read_text())["files"]["news_article.jsonl"]
    assert entry["notes"] == ["those of 3000 that the seeds 0 to 9 draw"]

    texts = {
        "news_article": [f"News {n}" for n in range(3000)],
        "forum_post": [f"Post {n}" for n in range(60)],
        "encyclopedia_article": ["word " * n for n in (501, 699, *range(510, 560))],
        "paper_abstract": [f"Abstract {n}" for n in range(60)],
        "movie_review": [f"R {n}" for n in range(3000)],
    }
    for seed in (0, 2, 7):
        rng = np.random.default_rng(seed)
        heads = []
        for table in texts.values():
            shuffled = list(table)
            rng.shuffle(shuffled)
            heads += shuffled[:40]
        rng.shuffle(heads)
        dataset = PreludeSumm(PreludeSumm.Params(seeds=str(seed))).open("all", folder)
        assert [sample.stimulus for sample in dataset.samples()] == [text.strip() for text in heads]
        assert dataset.departures == ()

    # A part of the rounds draws the head of the same orders.
    short = PreludeSumm(PreludeSumm.Params(seeds="0", rounds=50)).open("all", folder)
    assert len(short.index()) == 50
    for params, message in (
        ({"seeds": "3,12"}, "seed 12"),
        ({"rounds": 300}, "300 rounds"),
    ):
        with pytest.raises(UsageError, match=message):
            PreludeSumm(PreludeSumm.Params(**params)).open("all", folder)

    # Without the lengths of the tables the documents are just a folder's own.
    (folder / "tables.json").unlink()
    own = PreludeSumm().open("all", folder)
    assert own.departures == ("documents not drawn from the paper's whole tables",)
    assert own.hash != PreludeSumm(PreludeSumm.Params(seeds="0,1,3")).open("all", folder).hash


def test_a_drawn_row_that_is_blank_is_named(hub: list[dict[str, Any]], tmp_path: Path) -> None:
    path = tmp_path / "hub" / "JeremyAlain" / "SLF5K" / "train.jsonl"
    rows = [{"post": f"Post {n}" if n else "  "} for n in range(60)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    PreludeSumm().download("all", tmp_path / "data")
    assert json.loads((tmp_path / "data" / "tables.json").read_text())["rows"]["forum_post"] == 60
    with pytest.raises(
        DataError, match=r"forum_post.jsonl: row 0, which seed \d draws, is missing"
    ):
        PreludeSumm(PreludeSumm.Params(trajectories=10)).open("all", tmp_path / "data")


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
