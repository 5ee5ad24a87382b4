"""Masks: a second score without some samples, in every table, and no new identity of a run."""

from __future__ import annotations

import asyncio
import functools
import json
from pathlib import Path

import pytest

from personabench.errors import UsageError
from personabench.leaderboard.board import Board, BoardOptions, boards
from personabench.leaderboard.column import count_samples, without_samples
from personabench.leaderboard.formats import as_json, as_markdown
from personabench.leaderboard.mask import Mask, check_mask, read_mask
from personabench.leaderboard.paper_table import PaperOptions, make_table
from personabench.results.index import read_runs
from personabench.results.published import Vector, hash_id
from personabench.run import runner
from personabench.run.options import Options

pytestmark = pytest.mark.usefixtures("few_draws")

IDS = ("locomo_0_qa0", "locomo_0_qa1")


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs of two methods on LoCoMo's example data."""
    folder = tmp_path_factory.mktemp("mask")
    methods = ["none", "rag", "evidence"]
    asyncio.run(runner.run(Options(methods, ["locomo"], backend="scripted", results=folder)))
    return folder


@functools.cache
def make_board(results: Path, mask: Mask | None, thorough: bool = False) -> Board:
    options = BoardOptions(mask=mask, thorough=thorough)
    (board,) = boards(read_runs(results), options=options)
    return board


def test_the_audited_score_is_that_of_the_other_samples(results: Path) -> None:
    mask = Mask("wrong.txt", IDS)
    plain, board = make_board(results, None), make_board(results, mask, thorough=True)
    for row, before in zip(board.rows, plain.rows, strict=True):
        folder = next(run.path for run in read_runs(results) if str(run.path) == row.folder)
        lines = [json.loads(line) for line in (folder / "scores.jsonl").read_text().splitlines()]
        kept = [
            line["values"]["official"]["f1"][1]
            for line in lines
            if line["sample_id"] not in IDS and line["values"]["official"]["f1"][0] != 5
        ]
        assert row.columns["audited"] == pytest.approx(sum(kept) / len(kept))
        assert row.columns["audited/n"] == len(kept) == row.columns["audited/of"] - 2
        assert row.scores == before.scores and row.run == before.run
        assert "audited" not in before.columns
    names = list(board.columns)
    assert names.index("audited") == names.index("f1") + 1


def test_tables_state_hash_size_and_samples(results: Path) -> None:
    mask = Mask("wrong.txt", IDS)
    board = make_board(results, mask)
    assert mask.label == f"{mask.sha256[:12]}, 2 ids"
    note = next(note for note in board.notes if note.startswith("Mask: "))
    columns = board.rows[0].columns
    over = f"over {columns['audited/n']} of {columns['audited/of']};"
    assert mask.label in note and over in note
    assert "| audited |" in as_markdown([board])
    rows = json.loads(as_json([board]))
    assert all(row["mask"] == mask.label for row in rows)
    table = make_table(
        [make_board(results, mask, thorough=True)], PaperOptions(columns=["audited"])
    )
    assert [column.heading for column in table.columns] == ["f1 ↑", "audited"]
    assert any(mask.label in sentence for sentence in table.footnote)


def test_a_mask_is_known_by_its_ids_whatever_its_form(tmp_path: Path) -> None:
    forms = {
        "lines.txt": "# wrong golds\nlocomo_0_qa1\n\nlocomo_0_qa0\nlocomo_0_qa0\n",
        "list.json": json.dumps(list(IDS)),
        "objects.json": json.dumps([{"id": IDS[0]}, {"question_id": IDS[1], "error": "date"}]),
    }
    masks = []
    for name, text in forms.items():
        (tmp_path / name).write_text(text)
        masks.append(read_mask(tmp_path / name))
    assert len({mask.sha256 for mask in masks}) == 1 and {len(mask.ids) for mask in masks} == {2}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "names no sample"),
        ("# nothing\n", "names no sample"),
        ('{"a": 1}', "expected a JSON list"),
        ("[1, 2]", "entry 1: expected a sample id"),
        ('[{"name": "x"}]', "an object with one of id, sample_id, question_id"),
        ("[", "is not JSON"),
    ],
)
def test_a_file_that_is_no_mask_is_named(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "mask"
    path.write_text(text)
    with pytest.raises(UsageError, match=message):
        read_mask(path)
    with pytest.raises(UsageError, match="cannot be read"):
        read_mask(tmp_path / "none")


def test_ids_that_match_nothing_are_refused_and_those_beyond_a_limit_counted(
    results: Path, tmp_path: Path
) -> None:
    runs = read_runs(results)
    assert check_mask(Mask("m", IDS), runs) == 0
    with pytest.raises(UsageError, match=r"locomo has no sample 1 \(nobody\)"):
        check_mask(Mask("m", (*IDS, "nobody")), runs)
    with pytest.raises(UsageError, match="none of its 1 ids, such as nobody"):
        check_mask(Mask("m", ("nobody",)), runs)
    options = Options(["none"], ["locomo"], backend="scripted", limit=1, results=tmp_path)
    asyncio.run(runner.run(options))
    limited = read_runs(tmp_path)
    every = tuple(f"locomo_{index}_qa0" for index in range(12))
    assert check_mask(Mask("m", every), limited) == 11


def test_99_masked_answers_leave_1441_of_locomos_1540(results: Path) -> None:
    run = read_runs(results)[0]
    sizes = {1: 282, 2: 321, 3: 96, 4: 841, 5: 446}
    categories = [category for category, size in sizes.items() for _ in range(size)]
    names = [f"locomo_0_qa{index}" for index in range(len(categories))]
    scores = Vector(
        ids=[hash_id("locomo", "sample", name) for name in names],
        users=["u"] * len(names),
        values={"official": {"f1": [[float(category), 1.0] for category in categories]}},
    )
    masked = Mask("errors.json", tuple(names[:99])).hashed_ids("locomo")
    assert count_samples(run, "f1", scores) == 1540
    assert count_samples(run, "f1", without_samples(scores, masked)) == 1441


def test_the_question_alone_is_the_contamination_bound(results: Path) -> None:
    notes = make_board(results, None).notes
    (bound,) = [note for note in notes if note.startswith("Contamination bound: ")]
    assert bound.startswith("Contamination bound: none (") and "rag" not in bound
