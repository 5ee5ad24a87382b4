"""Texts in other scripts: Unicode variants of ROUGE, and warnings about uncovered references."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest
from engine_fixtures import headlines, options

from personabench.api import registry
from personabench.leaderboard import boards
from personabench.leaderboard.run_comparison import compare_runs
from personabench.metrics.perseval import rouge_distance
from personabench.metrics.scripts import LATIN, SPACED, split_words
from personabench.metrics.text import ROUGE, rouge, rouge_with_variants
from personabench.models.backends.scripted import Scripted
from personabench.results.index import Run, read_published_runs, read_runs
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
def test_the_same_text_in_any_script_scores_one_with_the_variant_and_zero_officially(
    text: str,
) -> None:
    assert rouge_with_variants(text, text) == {
        "rouge-1": 0.0,
        "rouge-L": 0.0,
        "rouge-1-unicode": 1.0,
        "rouge-L-unicode": 1.0,
    }
    assert rouge_with_variants(text, "A new bridge")["rouge-1-unicode"] == 0.0
    assert not LATIN.covers(text)
    assert rouge_distance(text, text) == 0.0


def test_words_are_letters_digits_and_their_marks() -> None:
    assert split_words(HINDI) == HINDI.split()
    assert split_words("Don’t look_back, Ünal: 42%") == ["don", "t", "look", "back", "ünal", "42"]
    assert split_words(RUSSIAN) == RUSSIAN.lower().split() and split_words(KOREAN) == KOREAN.split()
    assert split_words("cafe\u0301 CAFÉ") == ["café", "café"]
    assert split_words("\u0301x 👍️") == ["x"]
    assert split_words("می\u200cخواهم") == ["میخواهم"]
    assert split_words("") == []


def test_scripts_without_spaces_are_taken_by_characters() -> None:
    assert split_words(CHINESE) == list(CHINESE)
    assert split_words("น้ำมัน") == ["น้", "ำ", "มั", "น"]
    assert split_words("iPhone 15发布") == ["iphone", "15", "发", "布"]
    assert split_words("東京タワー") == ["東", "京", "タ", "ワ", "ー"]
    near = rouge_with_variants("北京地铁新线开通", CHINESE)
    assert near["rouge-1-unicode"] == near["rouge-L-unicode"] == pytest.approx(2 * 8 / 18)


@pytest.mark.parametrize(
    ("prediction", "reference"),
    [("The cat's hat", "a cat hat!"), ("x_y 3.5", "X Y 3 5"), ("", "x"), ("", "")],
)
def test_on_ascii_the_variant_is_the_official_score(prediction: str, reference: str) -> None:
    values = rouge_with_variants(prediction, reference)
    every = rouge(prediction, reference, every_script=True)
    assert (
        rouge(prediction, reference) == every == {name: values[f"{name}-unicode"] for name in every}
    )


def test_texts_that_tokenizers_do_not_cover() -> None:
    assert (
        SPACED.covers(HINDI)
        and SPACED.covers(RUSSIAN)
        and SPACED.covers(KOREAN)
        and SPACED.covers("")
    )
    assert (
        not SPACED.covers(CHINESE) and not SPACED.covers(THAI) and not SPACED.covers("iOS 今日开通")
    )
    assert LATIN.covers("iOS 今日开通") and LATIN.covers("7") and not LATIN.covers("!?")
    metrics = {metric.name: metric for metric in registry.load_class("task", "reviews").metrics}
    assert metrics["bleu"].scope == SPACED and metrics["rouge-1"].scope == LATIN


def files(folder: Path, golds: list[str]) -> tuple[Path, Path]:
    paths = folder / "golds.json", folder / "answers.json"
    for path in paths:
        rows = [{"id": str(index), "output": gold} for index, gold in enumerate(golds)]
        path.write_text(json.dumps({"task": "LaMP_4", "golds": rows}, ensure_ascii=False))
    return paths


def test_score_warns_if_more_than_a_tenth_of_references_is_not_covered(tmp_path: Path) -> None:
    task = registry.load_class("task", "lamp4")()
    golds, answers = files(tmp_path, [HINDI, CHINESE, "A new bridge opens"])
    scores = score_files(task, answers, golds, "official", partial=False)
    assert scores.metrics == pytest.approx(
        {"rouge-1": 1 / 3, "rouge-L": 1 / 3, "rouge-1-unicode": 1.0, "rouge-L-unicode": 1.0}
    )
    (warning,) = scores.warnings
    assert warning.startswith("rouge-1, rouge-L: 2 of 3 references hold no letter a-z")
    assert "rouge-1-unicode, rouge-L-unicode" in warning
    for few in ([HINDI, *["A new bridge"] * 9], ["", *["A new bridge"] * 3]):
        golds, answers = files(tmp_path, few)
        assert score_files(task, answers, golds, "official", partial=False).warnings == ()


def test_the_command_shows_the_variant_if_it_differs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from personabench.cli.score import score

    for texts, differs in (([THAI, "A bridge"], True), (["A bridge", "A road"], False)):
        golds, answers = files(tmp_path, texts)
        score(answers, "lamp4", golds)
        captured = capsys.readouterr()
        assert ("rouge-1-unicode 1.0000" in captured.out) is differs
        assert ("warning: rouge-1, rouge-L: 1 of 2" in captured.err) is differs


def in_script(folder: Path, text: str) -> Path:
    """Synthetic headline questions whose golds are in some script."""
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
    runs = [Run(out.summary, out.folder)]
    (board,) = boards(runs)
    assert (
        board.columns["rouge-1-unicode"] == "rouge-1-unicode ↑"
        and board.rows[0].scores["rouge-1-unicode"] == 0.5
    )


def test_tables_in_english_look_as_they_did(tmp_path: Path) -> None:
    data = in_script(tmp_path / "data", "A new bridge")
    outcomes = asyncio.run(runner.run(options(tmp_path / "r", "none,rag", "lamp4", data=data)))
    assert {metric.name for metric in ROUGE} == set(outcomes[0].summary.metrics["official"])
    assert not any("references" in warning for out in outcomes for warning in out.summary.warnings)
    runs = read_runs(tmp_path / "r")
    (board,) = boards(runs)
    assert not any(
        "unicode" in name for name in (*board.columns, *board.all_columns, *board.rows[0].columns)
    )
    assert compare_runs(*runs).metrics.keys() == {"rouge-1", "rouge-L"}


def test_published_results_without_the_variant_are_ranked_with_runs(tmp_path: Path) -> None:
    published = [
        run
        for run in read_published_runs(Path(__file__).parents[2] / "results")
        if run.summary.task == "lamp4"
    ]
    for run in published:
        # As earlier versions published them.
        for facts in (*run.summary.metrics.values(), run.summary.higher_is_better):
            facts.pop("rouge-1-unicode", None)
        run.summary.variants.pop("rouge-1-unicode", None)
    # Words that only the variant counts.
    backend = Scripted(answer=lambda request: "новости the")
    asyncio.run(runner.run(options(tmp_path, "none", "lamp4"), backend=backend))
    (own_run,) = read_runs(tmp_path)
    (board,) = boards([*published, own_run])
    assert "rouge-1-unicode" in board.columns and len(board.rows) == len(published) + 1
    assert {row.scores.get("rouge-1-unicode") for row in board.rows if row.published} == {None}
    published_run = next(run for run in published if run.summary.method == "none")
    assert compare_runs(published_run, own_run, allow_mismatch=True).metrics.keys() >= {
        "rouge-1",
        "rouge-L",
    }
