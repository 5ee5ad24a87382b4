"""Published results: they say what the run says, hold no text, and their summaries follow from
their scores."""

from __future__ import annotations

import errno
import importlib.util
import json
import os
import re
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from synthetic_scores import draw_scores, make_rows, metrics_from_scores, seal_scores, write_run

from personabench.api import registry
from personabench.errors import DataError, UsageError
from personabench.leaderboard.run_comparison import compare_runs
from personabench.results.index import read_published_runs, read_runs
from personabench.results.published import publish, read, unpack, vector
from personabench.results.run_folder import RunFolder
from personabench.results.summary import to_dict

ROOT = Path(__file__).parents[2]


def test_a_published_run_says_the_same_and_holds_no_text(tmp_path: Path) -> None:
    a, b = (
        write_run(tmp_path, "rag", draw_scores(0.2, seed=1)),
        write_run(tmp_path, "none", draw_scores(seed=2)),
    )
    before = make_rows(tmp_path)
    path = publish(RunFolder(a.path), tmp_path / "reference")
    assert path.name == f"lamp4-user-dev-rag-tiny-{a.summary.fingerprint[:8]}.json"
    assert path.read_bytes() == publish(RunFolder(a.path), tmp_path / "reference").read_bytes()
    text = path.read_text()
    assert "a line of the data" not in text and "/home/me" not in text and "folder" not in text
    kept = unpack(read(path), path)
    assert kept == vector(a) and "u0" not in kept.users and "0" not in kept.ids
    assert (
        set(make_rows(tmp_path)) == {"rag", "none"} and not make_rows(tmp_path)["rag"]["published"]
    )
    for file in a.path.iterdir():
        file.unlink()
    after = make_rows(tmp_path)
    assert after["rag"]["published"] and after["rag"]["gain"] == before["rag"]["gain"]
    (reference,) = read_published_runs(tmp_path)
    assert compare_runs(reference, b).metrics["rouge-1"].gain.value == pytest.approx(
        before["rag"]["gain"]
    )


def test_what_cannot_be_published(tmp_path: Path) -> None:
    run = write_run(tmp_path, "rag", draw_scores())
    folder = RunFolder(run.path)
    target = tmp_path / "reference"
    publish(folder, target, "mine")
    other = RunFolder(write_run(tmp_path, "none", draw_scores()).path)
    with pytest.raises(UsageError, match="holds another run"):
        publish(other, target, "mine")
    other.summary_path.write_text(
        json.dumps({**to_dict(other.summary()), "status": "incomplete", "owed": 3})
    )
    with pytest.raises(UsageError, match="3 samples are owed"):
        publish(other, target)


def test_a_run_left_unjudged_is_published_without_scores_and_one_without_references_is_not(
    tmp_path: Path,
) -> None:
    folder = RunFolder(write_run(tmp_path, "rag", draw_scores()).path)
    folder.scores_path.write_text("")
    seal_scores(folder.path)
    with pytest.raises(UsageError, match="its split has no references"):
        publish(folder, tmp_path / "reference")
    summary = {**to_dict(folder.summary()), "metrics": {}}
    summary["counters"] = {**summary["counters"], "unjudged": summary["n"]}
    folder.summary_path.write_text(json.dumps(summary))
    publish(folder, tmp_path / "reference")
    (run,) = read_published_runs(tmp_path)
    assert (vector(run).ids, run.summary.metrics) == ([], {})


def test_damaged_published_files_are_named(tmp_path: Path) -> None:
    path = publish(
        RunFolder(write_run(tmp_path, "rag", draw_scores()).path), tmp_path / "reference"
    )
    content = json.loads(path.read_text())
    path.write_text(json.dumps({**content, "scores": content["scores"][:40]}))
    with pytest.raises(
        DataError, match=rf"scores in .*{path.name} are damaged .*publish the run again"
    ):
        unpack(read(path), path)
    path.write_text(json.dumps({**content, "version": 2}))
    with pytest.raises(DataError, match="version 2"):
        read(path)
    path.write_text("{")
    with pytest.raises(DataError, match=path.name):
        read_published_runs(tmp_path)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"metrics": None}, r"\$\.metrics"),
        ({"seed": "zero"}, r"\$\.seed"),
        ({"n": []}, r"\$\.n"),
        ({"counters": {"unjudged": "many"}}, r"\$\.counters"),
        ({"usage": {"predict": {}}}, "calls"),
        ({"primary": "another"}, "primary"),
        ({"roles": {"judge": {}}}, "model"),
    ],
)
def test_damaged_fields_are_named_where_results_are_read(
    tmp_path: Path, changes: dict[str, Any], said: str
) -> None:
    folder = RunFolder(write_run(tmp_path, "rag", draw_scores()).path)
    path = publish(folder, tmp_path / "reference")
    content = json.loads(path.read_text())
    path.write_text(json.dumps({**content, "summary": {**content["summary"], **changes}}))
    with pytest.raises(
        DataError, match=f"{path.name} is not a published result .*{said}.*publish the run again"
    ):
        read_published_runs(tmp_path)
    folder.summary_path.write_text(json.dumps({**to_dict(folder.summary()), **changes}))
    with pytest.raises(
        DataError, match=rf"summary\.json is damaged .*{said}.*repeat the run's command"
    ):
        read_runs(tmp_path)


def test_a_damaged_spec_is_named_where_results_are_read(tmp_path: Path) -> None:
    folder = RunFolder(write_run(tmp_path, "rag", draw_scores()).path)
    path = publish(folder, tmp_path / "reference")
    content = json.loads(path.read_text())
    damaged = {**content["spec"], "task_params": None}
    path.write_text(json.dumps({**content, "spec": damaged}))
    with pytest.raises(DataError, match=rf"{path.name} is not a published result .*task_params"):
        read_published_runs(tmp_path)
    path.unlink()
    (folder.path / "spec.json").write_text(json.dumps(damaged))
    with pytest.raises(
        DataError, match=r"spec\.json is damaged .*task_params.*move the run's folder away"
    ):
        make_rows(tmp_path)


@pytest.mark.parametrize("kind", ["folder", "link", "bytes"])
def test_what_cannot_be_read_as_a_published_result_is_named(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "reference" / "x.json"
    path.parent.mkdir()
    if kind == "folder":
        path.mkdir()
    elif kind == "link":
        path.symlink_to(tmp_path / "nowhere")
    else:
        path.write_bytes(b'{"version": 1, "spec": {"task": "\xff"}}')
    with pytest.raises(DataError, match=r"x\.json .*publish the run again, or move the file away"):
        read_published_runs(tmp_path)


def test_a_full_disk_leaves_the_published_file_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = RunFolder(write_run(tmp_path, "rag", draw_scores()).path)
    path = publish(folder, tmp_path / "reference")
    before = path.read_bytes()

    def full(place: Path, target: Path) -> Path:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", full)
        with pytest.raises(UsageError, match="cannot be written: No space left"):
            publish(folder, tmp_path / "reference")
    assert [each.read_bytes() for each in path.parent.iterdir()] == [before]
    for damage in (b"", b"{", b'{"version": 1}', b"\xff"):
        path.write_bytes(damage)
        assert publish(folder, tmp_path / "reference").read_bytes() == before


def test_every_committed_summary_follows_from_its_scores() -> None:
    results = ROOT / "results"
    committed = read_published_runs(results)
    assert len(committed) == len(list(results.glob("reference/*.json")))
    for run in committed:
        scores = vector(run)
        judged = run.summary.n - run.summary.counters.get("unjudged", 0)
        assert len(scores.ids) == judged, run.path
        assert len(set(scores.users)) == run.summary.users or judged < run.summary.n, run.path
        for scorer, metrics in metrics_from_scores(run).items():
            assert metrics == pytest.approx(run.summary.metrics[scorer], abs=1e-9), (
                run.path,
                scorer,
            )


def load_readme_tables() -> ModuleType:
    path = ROOT / "docs" / "readme_tables.py"
    spec = importlib.util.spec_from_file_location("readme_tables", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_tables_in_the_readme_say_what_the_repository_says() -> None:
    readme = (ROOT / "README.md").read_text()
    assert load_readme_tables().fill(readme) == readme, "run: python docs/readme_tables.py"
    published = read_published_runs(ROOT / "results")
    section = readme.partition("<!--reference-->")[2].partition("<!--/reference-->")[0]
    shown = re.findall(r"\d\.\d{4}", section)
    primary = [run.summary.metrics["official"][run.summary.primary] for run in published]
    assert sorted(shown) == sorted(f"{value:.4f}" for value in primary)


def test_every_task_has_a_column_in_the_readme() -> None:
    tables = load_readme_tables()
    for name in registry.list_entries("task"):
        assert tables.find_family(name), f"name the family of {name} in docs/readme_tables.py"


def test_the_page_of_capabilities_names_the_tasks_that_offer_them() -> None:
    page = (ROOT / "docs" / "capabilities.md").read_text(encoding="utf-8")
    filled = load_readme_tables().fill_capabilities(page)
    assert filled == page, "run: python docs/readme_tables.py"
    assert filled.count("none built in") < 2


def test_a_summary_that_does_not_follow_is_found(tmp_path: Path) -> None:
    path = publish(
        RunFolder(write_run(tmp_path, "rag", draw_scores()).path), tmp_path / "reference"
    )
    content = json.loads(path.read_text())
    content["summary"]["metrics"]["official"]["rouge-1"] += 0.01
    path.write_text(json.dumps(content))
    with pytest.raises(DataError, match="not the one that was published"):
        read(path)
    # Files of earlier versions have no hash of their summary.
    del content["header_sha256"]
    path.write_text(json.dumps(content))
    (run,) = read_published_runs(tmp_path)
    assert metrics_from_scores(run)["official"] != pytest.approx(
        run.summary.metrics["official"], abs=1e-9
    )
