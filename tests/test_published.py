"""Published results: they say what the run says, hold no text, and their summaries follow from their scores."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from invented import drawn, made, rows

from personabench.comparison import compare, rederived
from personabench.errors import DataError, UsageError
from personabench.leaderboard import references
from personabench.published import publish, read, unpack, vector
from personabench.runfolder import RunFolder


def test_a_published_run_says_the_same_and_holds_no_text(tmp_path: Path) -> None:
    a, b = made(tmp_path, "rag", drawn(0.2, seed=1)), made(tmp_path, "none", drawn(seed=2))
    before = rows(tmp_path)
    path = publish(RunFolder(Path(a["folder"])), tmp_path / "reference")
    assert path.name == f"lamp4-user-dev-rag-tiny-{a['fingerprint'][:8]}.json"
    assert path.read_bytes() == publish(RunFolder(Path(a["folder"])), tmp_path / "reference").read_bytes()
    text = path.read_text()
    assert "a line of the data" not in text and "/home/me" not in text and "folder" not in text
    kept = unpack(read(path))
    assert kept == vector(a) and "u0" not in kept.users and "0" not in kept.ids
    assert set(rows(tmp_path)) == {"rag", "none"} and not rows(tmp_path)["rag"]["published"]
    for file in Path(a["folder"]).iterdir():
        file.unlink()
    after = rows(tmp_path)
    assert after["rag"]["published"] and after["rag"]["gain"] == before["rag"]["gain"]
    (reference,) = references(tmp_path)
    assert compare(reference, b)["metrics"]["rouge-1"]["gain"]["value"] == pytest.approx(before["rag"]["gain"])


def test_what_cannot_be_published(tmp_path: Path) -> None:
    run = made(tmp_path, "rag", drawn())
    folder = RunFolder(Path(run["folder"]))
    target = tmp_path / "reference"
    publish(folder, target, "mine")
    other = RunFolder(Path(made(tmp_path, "none", drawn())["folder"]))
    with pytest.raises(UsageError, match="holds another run"):
        publish(other, target, "mine")
    other.summary_path.write_text(json.dumps({**other.summary(), "status": "incomplete", "owed": 3}))
    with pytest.raises(UsageError, match="3 samples are owed"):
        publish(other, target)


def test_a_run_left_unjudged_is_published_without_scores_and_one_without_references_is_not(tmp_path: Path) -> None:
    folder = RunFolder(Path(made(tmp_path, "rag", drawn())["folder"]))
    folder.scores_path.write_text("")
    with pytest.raises(UsageError, match="its split has no references"):
        publish(folder, tmp_path / "reference")
    summary = {**folder.summary(), "metrics": {}}
    summary["counters"] = {**summary["counters"], "unjudged": summary["n"]}
    folder.summary_path.write_text(json.dumps(summary))
    publish(folder, tmp_path / "reference")
    (run,) = references(tmp_path)
    assert (vector(run).ids, run["metrics"]) == ([], {})


def test_damaged_published_files_are_named(tmp_path: Path) -> None:
    path = publish(RunFolder(Path(made(tmp_path, "rag", drawn())["folder"])), tmp_path / "reference")
    content = json.loads(path.read_text())
    path.write_text(json.dumps({**content, "scores": content["scores"][:40]}))
    with pytest.raises(DataError, match="damaged"):
        unpack(read(path))
    path.write_text(json.dumps({**content, "version": 2}))
    with pytest.raises(DataError, match="version 2"):
        read(path)
    path.write_text("{")
    with pytest.raises(DataError, match=path.name):
        references(tmp_path)


def test_every_committed_summary_follows_from_its_scores() -> None:
    results = Path(__file__).parents[1] / "results"
    committed = references(results)
    assert len(committed) == len(list(results.glob("reference/*.json")))
    for run in committed:
        scores = vector(run)
        judged = run["n"] - run["counters"].get("unjudged", 0)
        assert len(scores.ids) == judged, run["folder"]
        assert len(set(scores.users)) == run["users"] or judged < run["n"], run["folder"]
        for scorer, metrics in rederived(run).items():
            assert metrics == pytest.approx(run["metrics"][scorer], abs=1e-9), (run["folder"], scorer)


def test_the_table_in_the_readme_says_what_the_committed_scores_say() -> None:
    root = Path(__file__).parents[1]
    section = (root / "README.md").read_text().partition("## Reference results")[2].partition("\n## ")[0]
    head, _, sizes, *lines = (
        [cell.strip() for cell in row.split("|")[1:-1]] for row in re.findall(r"^\|.*", section, re.M)
    )
    runs = {(run["method"], run["history"], run["task"]): run for run in references(root / "results")}
    shown = 0
    for name, *cells in lines:
        method, _, shuffled = name.partition(" ")
        for heading, size, cell in zip(head[1:], sizes[1:], cells, strict=True):
            task = heading.partition("<br>")[0]
            run = runs.get((method, "shuffled" if shuffled else "own", task))
            if cell == "–":
                assert run is None, (name, task)
                continue
            assert run is not None, (name, task)
            value, _, fewer = cell.partition(" ")
            scored = run["metrics"].get("official", {}).get(run["primary"])
            assert value == ("unjudged" if scored is None else f"{scored:.3f}"), (name, task)
            assert run["n"] == int(fewer.strip("()") or size.partition(",")[0]), (name, task)
            shown += 1
    assert shown == sum(run["task"] in {heading.partition("<br>")[0] for heading in head[1:]} for run in runs.values())


def test_a_summary_that_does_not_follow_is_found(tmp_path: Path) -> None:
    path = publish(RunFolder(Path(made(tmp_path, "rag", drawn())["folder"])), tmp_path / "reference")
    content = json.loads(path.read_text())
    content["summary"]["metrics"]["official"]["rouge-1"] += 0.01
    path.write_text(json.dumps(content))
    (run,) = references(tmp_path)
    assert rederived(run)["official"] != pytest.approx(run["metrics"]["official"], abs=1e-9)
