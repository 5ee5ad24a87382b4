"""Downloading LaMP-QA from a hub on the loopback, sound or broken."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from dataset_hub import COMMIT, serve_dataset

from personabench.errors import DataError, UsageError
from personabench.tasks import lampqa
from personabench.tasks.lampqa.download import download
from personabench.tasks.lampqa.files import CONFIGS

EXAMPLE = Path(lampqa.__file__).parent / "sample"
SIZES = dict.fromkeys(CONFIGS, (0, 0, 5))


@pytest.fixture(autouse=True)
def loopback(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    shutil.copytree(EXAMPLE, tmp_path / "served")


def test_a_split_is_fetched_checked_and_opens(tmp_path: Path) -> None:
    target = tmp_path / "data"
    notices: list[str] = []
    with serve_dataset(tmp_path / "served") as url:
        download("test", target, base_url=url, sizes=SIZES, notice=notices.append)
    assert notices == []
    files = json.loads((target / "lampqa" / "manifest.json").read_text())["files"]
    assert set(files) == {f"{config}/test.json" for config in CONFIGS}
    entry = files["Society_and_Culture/test.json"]
    assert entry["count"] == 5
    assert f"/resolve/{COMMIT}/Society_and_Culture/test.json" in entry["url"]
    opened = lampqa.LampQA().open("test", target)
    assert opened.index() == lampqa.LampQA().open("test", None).index()


def test_other_numbers_of_rows_are_reported(tmp_path: Path) -> None:
    notices: list[str] = []
    with serve_dataset(tmp_path / "served") as url:
        download("art/test", tmp_path / "data", base_url=url, notice=notices.append)
    assert notices == ["Art_and_Entertainment/test has 5 rows, published are 767"]
    assert not (tmp_path / "data" / "lampqa" / "Society_and_Culture").exists()


def test_what_is_not_the_data_is_not_in_the_manifest(tmp_path: Path) -> None:
    path = tmp_path / "served" / "Society_and_Culture" / "test.json"
    rows = json.loads(path.read_text())
    del rows[1]["narrative"]
    path.write_text(json.dumps(rows))
    wrong = pytest.raises(DataError, match=r"test\.json, entry 2.*narrative")
    with serve_dataset(tmp_path / "served") as url, wrong:
        download("test", tmp_path / "data", base_url=url, sizes=SIZES)
    assert not (tmp_path / "data" / "lampqa" / "manifest.json").exists()


def test_a_split_that_is_not_there_and_an_unknown_one_are_refused(tmp_path: Path) -> None:
    missing = pytest.raises(DataError, match="no files of Art_and_Entertainment, split train")
    with serve_dataset(tmp_path / "served") as url, missing:
        download("art/train", tmp_path / "data", base_url=url)
    with pytest.raises(UsageError, match="art, lifestyle, society"):
        download("music/test", tmp_path)
