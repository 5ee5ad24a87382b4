"""Downloading PrefEval from a server on the loopback, sound or broken."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from loopback import folder_server, serving

from personabench.errors import DataError, UsageError
from personabench.tasks import prefeval
from personabench.tasks.prefeval.download import download

EXAMPLE = Path(prefeval.__file__).parent / "sample"
TOPICS = {"pet_ownership": 5, "shop_home": 5, "travel_restaurant": 5}


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    shutil.copytree(EXAMPLE, tmp_path / "server")
    with serving(folder_server(tmp_path / "server")) as http_server:
        yield http_server.url


def test_all_files_are_fetched_checked_and_open(server: str, tmp_path: Path) -> None:
    target = tmp_path / "data"
    paths = download("prefeval", "all", target, base_url=server, topics=TOPICS, filler=12)
    assert len(paths) == 4 * 3 + 1
    for path in paths:
        assert path.read_bytes() == (EXAMPLE / path.relative_to(target / "prefeval")).read_bytes()
    assert len(prefeval.PrefEval().open("all", target).index()) == 15


def test_a_topic_with_other_rows_is_refused_and_nothing_kept(server: str, tmp_path: Path) -> None:
    topics = {**TOPICS, "shop_home": 56}
    with pytest.raises(DataError, match="5 rows, but shop_home has 56"):
        download("prefeval", "all", tmp_path / "data", base_url=server, topics=topics, filler=12)
    assert not list((tmp_path / "data").rglob("*.json"))


def test_an_unknown_split_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="it has: all"):
        download("prefeval", "dev", tmp_path)
