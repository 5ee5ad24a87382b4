"""Downloads of review data from a local folder that stands in for the hub."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import huggingface_hub
import pytest

from personabench.errors import DataError, UsageError
from personabench.tasks.reviews import SAMPLE, Reviews

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """A hub with the example data as a published category; returns the calls to it."""
    served = tmp_path / "served"
    for name in ("DPL-main", "DPL-meta"):
        shutil.copytree(SAMPLE / name / "House_and_Hills", served / name / "Books")
    calls: list[dict[str, Any]] = []

    def snapshot(repository: str, **options: Any) -> None:
        calls.append({"repository": repository, **options})
        source = served / repository.partition("/")[2]
        shutil.copytree(source / "Books", options["local_dir"] / "Books", dirs_exist_ok=True)

    class Api:
        def __init__(self, endpoint: str | None) -> None:
            self.endpoint = endpoint

        def dataset_info(self, repository: str, timeout: float) -> Any:
            return SimpleNamespace(sha=COMMIT if len(calls) < 2 else "f" * 40)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot)
    monkeypatch.setattr(huggingface_hub, "HfApi", Api)
    return calls


def test_a_category_is_fetched_checked_and_pinned(
    hub: list[dict[str, Any]], tmp_path: Path
) -> None:
    target = tmp_path / "data"
    Reviews().download("Books/test", target, base_url="https://mirror.example")
    assert [call["repository"] for call in hub] == ["SnowCharmQ/DPL-main", "SnowCharmQ/DPL-meta"]
    assert all(call["revision"] == COMMIT and call["repo_type"] == "dataset" for call in hub)
    assert all(call["endpoint"] == "https://mirror.example" for call in hub)
    assert all("Books/*" in call["allow_patterns"] for call in hub)
    files = json.loads((target / "manifest.json").read_text())["files"]
    assert set(files) == {f"DPL-main/Books/{name}.jsonl" for name in ("test", "val")} | {
        "DPL-meta/Books/full.jsonl"
    }
    entry = files["DPL-main/Books/test.jsonl"]
    where = f"https://mirror.example/datasets/SnowCharmQ/DPL-main/resolve/{COMMIT}/Books/test.jsonl"
    assert entry["count"] == 12 and entry["url"] == where
    assert len(Reviews().open("Books/test", target).index()) == 12
    Reviews().download("Books/test", target)
    assert hub[-1]["revision"] == COMMIT, (
        "a later call asks for the commit of the copy, not for the newest"
    )


def test_what_is_not_the_data_is_not_in_the_manifest(
    hub: list[dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fetch = huggingface_hub.snapshot_download

    def broken(repository: str, **options: Any) -> None:
        fetch(repository, **options)
        (options["local_dir"] / "Books" / "val.jsonl").write_text("<html>busy</html>\n")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", broken)
    with pytest.raises(DataError, match=r"val\.jsonl: row 0"):
        Reviews().download("Books/test", tmp_path / "data")
    assert not (tmp_path / "data" / "manifest.json").exists()

    def refused(repository: str, **options: Any) -> None:
        raise OSError("no route")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", refused)
    with pytest.raises(
        DataError, match=r"DPL-main could not be fetched: OSError: no route\n.*copy"
    ):
        Reviews().download("Books/test", tmp_path / "other")


def test_a_published_category_must_be_named(tmp_path: Path) -> None:
    for split in ("test", "Games/test"):
        with pytest.raises(UsageError, match=r"Books\|Movies_and_TV\|CDs_and_Vinyl"):
            Reviews().download(split, tmp_path)
