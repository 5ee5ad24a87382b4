"""What a run was scored with is sealed: every reader sees when a file is another one, and says what
to do."""

from __future__ import annotations

import base64
import gzip
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from engine_fixtures import options
from synthetic_scores import draw_scores, make_board, make_rows, write_run

from personabench import results
from personabench.errors import DataError
from personabench.leaderboard import frames
from personabench.leaderboard.run_comparison import compare_runs
from personabench.report import write
from personabench.results.checksums import make_seal
from personabench.results.export import Source
from personabench.results.published import publish, read, unpack, vector
from personabench.results.run_folder import RunFolder
from personabench.run import runner
from personabench.run.answer_pairs import check_comparable

Damage = Callable[[bytes], bytes]
DAMAGES: dict[str, tuple[Damage, str]] = {
    "cut": (lambda content: b"".join(content.splitlines(True)[:10]), "has 10 lines of 60"),
    "emptied": (lambda content: b"", "has 0 lines of 60"),
    "altered": (lambda content: re.sub(rb"0\.\d+", b"0.9", content), "has other content"),
    "doubled": (lambda content: content * 2, "has 120 lines of 60"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_scores_that_changed_are_read_by_nobody(tmp_path: Path, damage: str) -> None:
    none, rag = (
        write_run(tmp_path, "none", draw_scores()),
        write_run(tmp_path, "rag", draw_scores(0.2, seed=1)),
    )
    assert make_rows(tmp_path, results=tmp_path)["rag"]["gain"] == pytest.approx(0.2, abs=0.05)
    folder = RunFolder(rag.path)
    change, told = DAMAGES[damage]
    folder.scores_path.write_bytes(change(folder.scores_path.read_bytes()))
    readers: list[Callable[[], Any]] = [
        lambda: make_board(tmp_path),
        lambda: make_board(tmp_path, results=tmp_path),
        lambda: vector(rag),
        lambda: compare_runs(rag, none),
        lambda: publish(folder, tmp_path / "published"),
        lambda: results.load(tmp_path),
        lambda: frames.leaderboard(tmp_path),
        lambda: write(tmp_path, tmp_path / "report.html"),
        lambda: list(folder.scores()),
    ]
    for reader in readers:
        with pytest.raises(
            DataError, match=rf"rag.*scores\.jsonl was changed .*{told}.*Repeat the run's command"
        ):
            reader()
    assert not (tmp_path / "report.html").exists() and not (tmp_path / "published").exists()


async def test_answers_that_changed_are_shown_to_nobody(tmp_path: Path) -> None:
    none, rag = await runner.run(options(tmp_path, "none,rag", limit=10))
    folder = RunFolder(rag.folder)
    kept = folder.predictions_path.read_bytes()
    folder.predictions_path.write_bytes(kept.replace(b'"output":"', b'"output":"Better: ', 1))
    readers: list[Callable[[], Any]] = [
        lambda: publish(folder, tmp_path / "published"),
        lambda: Source(folder, tmp_path),
        lambda: results.load(tmp_path),
        lambda: write(tmp_path, tmp_path / "report.html"),
        lambda: check_comparable(folder, RunFolder(none.folder)),
    ]
    for reader in readers:
        with pytest.raises(
            DataError,
            match=r"predictions\.jsonl was changed after the run was scored: it has other",
        ):
            reader()
    folder.predictions_path.write_bytes(kept + kept.splitlines(True)[0])
    assert Source(folder, tmp_path).ids, "a later attempt appends"


async def test_the_command_again_mends_scores_without_a_call(tmp_path: Path) -> None:
    (first,) = await runner.run(options(tmp_path, "rag"))
    folder = RunFolder(first.folder)
    whole = folder.scores_path.read_bytes()
    folder.scores_path.write_bytes(b"".join(whole.splitlines(True)[:10]))
    (again,) = await runner.run(options(tmp_path, "rag", cache="only"))
    assert again.folder == first.folder and folder.scores_path.read_bytes() == whole
    assert again.summary.files == first.summary.files == folder.summary().files


async def test_a_run_says_that_the_answers_it_scores_were_edited(tmp_path: Path) -> None:
    (first,) = await runner.run(options(tmp_path, "rag"))
    assert not first.summary.warnings
    path = RunFolder(first.folder).predictions_path
    whole = path.read_bytes()
    path.write_bytes(whole.replace(b'"output":"', b'"output":"Better: ', 1))
    for _ in range(2):
        (edited,) = await runner.run(options(tmp_path, "rag", cache="only"))
        (warning,) = edited.summary.warnings
        assert "predictions.jsonl was changed by something else than a run" in warning
    path.unlink()
    (restored,) = await runner.run(options(tmp_path, "rag", cache="only"))
    assert not restored.summary.warnings
    assert restored.summary.metrics == first.summary.metrics != edited.summary.metrics


def test_a_run_of_an_earlier_version_is_not_vouched_for(tmp_path: Path) -> None:
    run = write_run(tmp_path, "rag", draw_scores())
    path = run.path / "summary.json"
    summary = json.loads(path.read_text())
    del summary["files"]
    path.write_text(json.dumps(summary))
    with pytest.raises(
        DataError, match=r"does not have a checksum of scores\.jsonl: .*move this folder away"
    ):
        make_board(tmp_path)


def test_published_scores_are_those_that_were_published(tmp_path: Path) -> None:
    path = publish(
        RunFolder(write_run(tmp_path, "rag", draw_scores()).path), tmp_path / "reference"
    )
    content = json.loads(path.read_text())
    plain = json.loads(gzip.decompress(base64.b64decode(content["scores"])))
    assert (content["count"], len(plain["ids"])) == (60, 60)
    for name in ("ids", "users"):
        plain[name] = plain[name][:10]
    plain["values"] = {"official": {"rouge-1": [1.0] * 10}}
    packed = base64.b64encode(gzip.compress(json.dumps(plain).encode())).decode()
    path.write_text(json.dumps({**content, "scores": packed}))
    with pytest.raises(
        DataError, match=r"json are not those that were published; publish the run again"
    ):
        unpack(read(path), path)
    del content["sha256"]
    path.write_text(json.dumps(content))
    with pytest.raises(
        DataError, match=r"missing required field `sha256`\); publish the run again"
    ):
        read(path)


def test_a_seal_is_of_whole_files_or_of_their_beginning(tmp_path: Path) -> None:
    path = tmp_path / "lines"
    assert make_seal(path).lines == make_seal(path).bytes == 0
    path.write_bytes(b"one\ntwo\n")
    before = make_seal(path)
    path.write_bytes(b"one\ntwo\nthree\n")
    assert make_seal(path, before.bytes) == before != make_seal(path) and make_seal(path).lines == 3
