"""Texts in other scripts: scored beside the official ROUGE, and told of where the official tokenizer sees nothing."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest
from engine_fixtures import headlines, options

from personabench.api import registry
from personabench.leaderboard import boards
from personabench.leaderboard.comparison import compare
from personabench.metrics.perseval import distance
from personabench.metrics.scripts import LATIN, SPACED, words
from personabench.metrics.text import ROUGE, rouge, rouge_beside
from personabench.results.index import Run, references, summaries
from personabench.run import runner
from personabench.run.score_file import score_files

HINDI, CHINESE, RUSSIAN, THAI = (
    "मुंबई में भारी बारिश",
    "北京地铁新线今日开通",
    "Выставка открылась в Москве",
    "ราคาน้ำมันปรับลดลง",
)
KOREAN, ARABIC = "서울에 비가 온다", "افتتاح الجسر الجديد"
SEVERAL = [HINDI, CHINESE, RUSSIAN, THAI, KOREAN, ARABIC]


@pytest.mark.parametrize("text", SEVERAL)
def test_the_same_text_in_any_script_scores_one_beside_the_official_nought(text: str) -> None:
    assert rouge_beside(text, text) == {
        "rouge-1": 0.0,
        "rouge-L": 0.0,
        "rouge-1-unicode": 1.0,
        "rouge-L-unicode": 1.0,
    }
    assert rouge_beside(text, "A new bridge")["rouge-1-unicode"] == 0.0
    assert not LATIN.sees(text)
    assert distance(text, text) == 0.0


def test_words_are_letters_digits_and_their_marks() -> None:
    assert words(HINDI) == HINDI.split()
    assert words("Don’t look_back, Ünal: 42%") == ["don", "t", "look", "back", "ünal", "42"]
    assert words(RUSSIAN) == RUSSIAN.lower().split() and words(KOREAN) == KOREAN.split()
    assert words("cafe\u0301 CAFÉ") == ["café", "café"]
    assert words("\u0301x 👍️") == ["x"]
    assert words("می\u200cخواهم") == ["میخواهم"]
    assert words("") == []


def test_scripts_without_spaces_are_taken_by_characters() -> None:
    assert words(CHINESE) == list(CHINESE)
    assert words("น้ำมัน") == ["น้", "ำ", "มั", "น"]
    assert words("iPhone 15发布") == ["iphone", "15", "发", "布"]
    assert words("東京タワー") == ["東", "京", "タ", "ワ", "ー"]
    near = rouge_beside("北京地铁新线开通", CHINESE)
    assert near["rouge-1-unicode"] == near["rouge-L-unicode"] == pytest.approx(2 * 8 / 18)


@pytest.mark.parametrize(
    ("one", "other"), [("The cat's hat", "a cat hat!"), ("x_y 3.5", "X Y 3 5"), ("", "x"), ("", "")]
)
def test_on_ascii_the_variant_is_the_official_score(one: str, other: str) -> None:
    values = rouge_beside(one, other)
    every = rouge(one, other, every_script=True)
    assert rouge(one, other) == every == {name: values[f"{name}-unicode"] for name in every}


def test_what_tokenizers_do_not_see() -> None:
    assert SPACED.sees(HINDI) and SPACED.sees(RUSSIAN) and SPACED.sees(KOREAN) and SPACED.sees("")
    assert not SPACED.sees(CHINESE) and not SPACED.sees(THAI) and not SPACED.sees("iOS 今日开通")
    assert LATIN.sees("iOS 今日开通") and LATIN.sees("7") and not LATIN.sees("!?")
    metrics = {metric.name: metric for metric in registry.load("task", "reviews").metrics}
    assert metrics["bleu"].sight == SPACED and metrics["rouge-1"].sight == LATIN


def files(folder: Path, golds: list[str]) -> tuple[Path, Path]:
    made = folder / "golds.json", folder / "answers.json"
    for path in made:
        lines = [{"id": str(at), "output": gold} for at, gold in enumerate(golds)]
        path.write_text(json.dumps({"task": "LaMP_4", "golds": lines}, ensure_ascii=False))
    return made


def test_score_warns_where_more_than_a_tenth_of_references_is_not_seen(tmp_path: Path) -> None:
    task = registry.load("task", "lamp4")()
    golds, answers = files(tmp_path, [HINDI, CHINESE, "A new bridge opens"])
    found = score_files(task, answers, golds, "official", partial=False)
    assert found.metrics == pytest.approx(
        {"rouge-1": 1 / 3, "rouge-L": 1 / 3, "rouge-1-unicode": 1.0, "rouge-L-unicode": 1.0}
    )
    (warning,) = found.warnings
    assert warning.startswith("rouge-1, rouge-L: 2 of 3 references hold no letter a-z")
    assert "rouge-1-unicode, rouge-L-unicode" in warning
    for few in ([HINDI, *["A new bridge"] * 9], ["", *["A new bridge"] * 3]):
        golds, answers = files(tmp_path, few)
        assert score_files(task, answers, golds, "official", partial=False).warnings == ()


def test_the_command_shows_the_variant_where_it_differs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from personabench.cli.score import score

    for texts, shown in (([THAI, "A bridge"], True), (["A bridge", "A road"], False)):
        golds, answers = files(tmp_path, texts)
        score("lamp4", answers, golds)
        told = capsys.readouterr()
        assert ("rouge-1-unicode 1.0000" in told.out) is shown
        assert ("warning: rouge-1, rouge-L: 1 of 2" in told.err) is shown


def in_script(folder: Path, text: str) -> Path:
    """Invented headline questions whose golds are in some script."""
    headlines(folder, users=6)
    path = next(folder.rglob("dev_outputs.json"))
    outputs = json.loads(path.read_text())
    for number, gold in enumerate(outputs["golds"]):
        gold["output"] = f"{text} {number}" if text.isascii() else text
    path.write_text(json.dumps(outputs))
    return folder


def test_a_run_in_another_script_warns_and_shows_the_variant(tmp_path: Path) -> None:
    data = in_script(tmp_path / "data", HINDI)
    (out,) = asyncio.run(runner.run(options(tmp_path / "r", "none", "lamp4", data=data)))
    assert "6 of 6 references hold no letter a-z" in " ".join(out.summary.warnings)
    assert out.summary.variants == {"rouge-1-unicode": "rouge-1", "rouge-L-unicode": "rouge-L"}
    values = out.summary.metrics["official"]
    values["rouge-1-unicode"] = 0.5
    made = [Run(out.summary, out.folder)]
    (board,) = boards(made)
    assert (
        board.columns["rouge-1-unicode"] == "rouge-1-unicode ↑"
        and board.rows[0].scores["rouge-1-unicode"] == 0.5
    )


def test_tables_in_english_look_as_they_did(tmp_path: Path) -> None:
    data = in_script(tmp_path / "data", "A new bridge")
    outcomes = asyncio.run(runner.run(options(tmp_path / "r", "none,rag", "lamp4", data=data)))
    assert {metric.name for metric in ROUGE} == set(outcomes[0].summary.metrics["official"])
    assert not any("references" in warning for out in outcomes for warning in out.summary.warnings)
    made = summaries(tmp_path / "r")
    (board,) = boards(made)
    assert not any(
        "unicode" in name for name in (*board.columns, *board.all_columns, *board.rows[0].columns)
    )
    assert compare(*made).metrics.keys() == {"rouge-1", "rouge-L"}


def test_published_results_without_the_variant_still_stand_beside_runs(tmp_path: Path) -> None:
    published = [
        run
        for run in references(Path(__file__).parents[2] / "results")
        if run.summary.task == "lamp4"
    ]
    asyncio.run(runner.run(options(tmp_path, "none", "lamp4")))
    (mine,) = summaries(tmp_path)
    mine.summary.metrics["official"]["rouge-1-unicode"] += 0.01
    (board,) = boards([*published, mine])
    assert "rouge-1-unicode" in board.columns and len(board.rows) == len(published) + 1
    assert {row.scores.get("rouge-1-unicode") for row in board.rows if row.published} == {None}
    theirs = next(run for run in published if run.summary.method == "none")
    assert compare(theirs, mine, allow_mismatch=True).metrics.keys() >= {"rouge-1", "rouge-L"}
