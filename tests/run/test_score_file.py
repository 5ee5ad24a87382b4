"""Scoring files: refused with every reason named, or scored in part and said so."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from personabench.errors import DataError, UsageError
from personabench.run.score_file import read_references, score_files, score_predictions
from personabench.tasks.lamp import Lamp2N, Lamp3, Lamp4


def outputs(path: Path, task: str, pairs: Any) -> Path:
    path.write_text(
        json.dumps(
            {"task": task, "golds": [{"id": each, "output": output} for each, output in pairs]}
        )
    )
    return path


@pytest.fixture
def references(tmp_path: Path) -> Path:
    return outputs(tmp_path / "golds.json", "LaMP_3", [("011", "5"), ("012", "3"), ("013", "1")])


def test_equal_ids_are_scored_in_any_order(tmp_path: Path, references: Path) -> None:
    answers = outputs(tmp_path / "a.json", "LaMP-3", [("013", "1"), ("011", "4"), ("012", None)])
    found = score_files(Lamp3(), answers, references, "official", partial=False)
    # By the task's own metrics alone: further ones may take longer than all of them.
    assert found.extras == {}
    assert score_predictions(
        Lamp3(), answers, read_references(Lamp3(), references), "official", partial=False
    ).extras.keys() == {"accuracy"}
    assert (found.n, found.partial, found.warnings) == (3, False, ())
    assert found.metrics == {"MAE": 1.0, "RMSE": pytest.approx((5 / 3) ** 0.5)}
    assert (found.parse_failures, found.null_outputs) == (1, 1)


def test_acceptance_6_missing_extra_and_repeated_ids_are_named(
    tmp_path: Path, references: Path
) -> None:
    pairs = [("011", "5"), ("012", "3"), ("012", "1"), ("new", "1")]
    answers = outputs(tmp_path / "a.json", "LaMP_2", pairs)
    with pytest.raises(DataError) as caught:
        score_files(Lamp3(), answers, references, "official", partial=False)
    message = str(caught.value)
    for part in (
        "LaMP_2",
        "lamp3",
        "missing: 1 (013)",
        "extra: 1 (new)",
        "repeated: 1 (012)",
        "--partial",
    ):
        assert part in message
    found = score_files(Lamp3(), answers, references, "official", partial=True)
    assert (found.n, found.partial, found.metrics["MAE"]) == (2, True, 0.0)
    assert (found.missing, found.extra, found.repeated) == (("013",), ("new",), ("012",))
    assert len(found.warnings) == 3


def test_acceptance_6_hash_seeds_give_equal_bytes(tmp_path: Path, references: Path) -> None:
    answers = outputs(
        tmp_path / "a.json", "LaMP_3", [(f"0{number}", "5") for number in range(8, 20)]
    )
    code = (
        "import sys; from pathlib import Path; from personabench.tasks.lamp import Lamp3\n"
        "from personabench.run.score_file import score_files\n"
        "print(score_files(Lamp3(), Path(sys.argv[1]), Path(sys.argv[2]), 'lenient', True))"
    )
    printed = {
        subprocess.run(
            [sys.executable, "-c", code, str(answers), str(references)],
            env={**os.environ, "PYTHONHASHSEED": seed},
            check=True,
            capture_output=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(printed) == 1


def test_json_lines_are_predictions_too(tmp_path: Path, references: Path) -> None:
    lines = tmp_path / "a.jsonl"
    pairs = {"011": "5", "012": 3, "013": "one star"}
    lines.write_text(
        "\n".join(json.dumps({"id": each, "output": output}) for each, output in pairs.items())
    )
    assert score_files(Lamp3(), lines, references, "lenient", partial=False).metrics["MAE"] == 0.0
    lines.write_text(lines.read_text() + '\n{"id": 14, "output": "1"}\n')
    with pytest.raises(DataError, match="line 4"):
        score_files(Lamp3(), lines, references, "lenient", partial=False)


def test_a_broken_first_line_is_named_and_a_byte_order_mark_is_none(
    tmp_path: Path, references: Path
) -> None:
    lines = tmp_path / "a.jsonl"
    good = [json.dumps({"id": each, "output": "5"}) for each in ("011", "012", "013")]
    lines.write_text("\n".join(good), encoding="utf-8-sig")
    assert score_files(Lamp3(), lines, references, "official", partial=False).n == 3
    for first in (
        '{"id": "011", "outp',
        '{"id": 11, "output": "5"}',
        '{"output": "5"}',
        '{"id": "011"}',
    ):
        lines.write_text("\n".join([first, *good[1:]]))
        with pytest.raises(DataError, match=r"a.jsonl: line 1: .*expected"):
            score_files(Lamp3(), lines, references, "official", partial=False)


def test_acceptance_5_a_gold_outside_its_list_names_the_id(tmp_path: Path) -> None:
    golds = outputs(tmp_path / "g.json", "LaMP_2", [("110", "sports"), ("111", "comedy")])
    with pytest.raises(DataError, match=r"record 111: gold 'comedy'"):
        score_files(Lamp2N(), golds, golds, "official", partial=True)


def test_files_without_a_common_id_are_refused(tmp_path: Path, references: Path) -> None:
    answers = outputs(tmp_path / "a.json", "LaMP_3", [("999", "5")])
    with pytest.raises(DataError, match="share no id"):
        score_files(Lamp3(), answers, references, "official", partial=True)


@pytest.mark.parametrize(
    "content", ["", "{", "[]", '{"task": "LaMP_3"}', '{"golds": [{"id": 1, "output": "5"}]}']
)
def test_what_is_no_prediction_file_is_refused(
    tmp_path: Path, references: Path, content: str
) -> None:
    answers = tmp_path / "a.json"
    answers.write_text(content)
    with pytest.raises(DataError, match="not a prediction file"):
        score_files(Lamp3(), answers, references, "official", partial=True)


def test_unknown_scorers_and_missing_files_are_refused(tmp_path: Path, references: Path) -> None:
    with pytest.raises(UsageError, match="official, lenient"):
        score_files(Lamp3(), references, references, "strict", partial=False)
    with pytest.raises(DataError, match="no file"):
        score_files(Lamp3(), tmp_path / "none.json", references, "official", partial=False)


def test_written_predictions_can_be_scored(tmp_path: Path) -> None:
    golds = outputs(tmp_path / "g.json", "LaMP_4", [("011", "Don’t Look"), ("012", "Rain")])
    written = tmp_path / "submission.json"
    pieces = Lamp4().submission([("011", "Don’t Look"), ("012", "Snow")])
    written.write_text("".join(pieces), encoding="utf-8")
    assert json.loads(written.read_text(encoding="utf-8"))["task"] == "LaMP_4"
    assert score_files(Lamp4(), written, golds, "official", partial=False).metrics["rouge-1"] == 0.5
