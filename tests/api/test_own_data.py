"""Tables of one's own become samples: columns and kinds are inferred, problems are all named."""

from __future__ import annotations

import csv
import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from personabench.api import registry
from personabench.api.own_data.cells import read_texts, read_time
from personabench.api.own_data.declaration import read_declaration, write_declaration
from personabench.api.own_data.inference import infer_declaration
from personabench.api.rows import read_rows
from personabench.errors import DataError, UsageError
from personabench.testing import check_task

USERS = [f"u{number}" for number in range(6)]


def write_csv(path: Path, rows: list[dict[str, Any]]) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def write_lines(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def questions(**columns: list[Any]) -> list[dict[str, Any]]:
    """Two questions of each user, with further columns."""
    rows = [
        {"user": user, "question": f"What does {user} order on day {day}?"}
        for user in USERS
        for day in (1, 2)
    ]
    for name, values in columns.items():
        for index, row in enumerate(rows):
            row[name] = values[index % len(values)]
    return rows


def chats(**columns: list[Any]) -> list[dict[str, Any]]:
    rows = [
        {"user": user, "text": f"{user} wrote message {number}.", "time": f"2024-0{number}-01"}
        for user in USERS
        for number in range(1, 5)
    ]
    for name, values in columns.items():
        for index, row in enumerate(rows):
            row[name] = values[index % len(values)]
    return rows


def infer(questions_path: Path, history: Path | None = None, **roles: str) -> Any:
    return infer_declaration(questions_path, history, roles, name="mine").declaration


@pytest.mark.parametrize(
    ("answers", "choices", "kind", "labels"),
    [
        (["1", "5", "3"], None, "ordinal", ("1", "2", "3", "4", "5")),
        (["yes", "no"], None, "category", ("yes", "no")),
        ([f"a sentence {number}" for number in range(12)], None, "text", ()),
        (["tea", "B"], "tea|coffee", "category", ()),
    ],
)
def test_the_kind_is_inferred(
    tmp_path: Path, answers: list[str], choices: str | None, kind: str, labels: tuple[str, ...]
) -> None:
    columns = {"answer": answers} | ({"choices": [choices]} if choices else {})
    declaration = infer(write_csv(tmp_path / "qa.csv", questions(**columns)))
    assert (declaration.kind, declaration.labels) == (kind, labels)


def test_a_letter_names_a_choice_and_the_task_passes_every_check(tmp_path: Path) -> None:
    rows = questions(answer=["tea", "B"], choices=[["tea", "coffee"]], time=["2024-03-15"])
    history = write_lines(tmp_path / "chats.jsonl", chats())
    declaration = infer(write_lines(tmp_path / "qa.jsonl", rows), history)
    write_declaration(tmp_path / "mine.toml", declaration)
    assert read_declaration(tmp_path / "mine.toml") == declaration

    task = registry.load_class("task", str(tmp_path / "mine.toml"))()
    dataset = task.open("dev", None)
    assert [sample.references for sample in dataset.samples()][:2] == [("tea",), ("coffee",)]
    # Those of the day of the question and later are hidden.
    assert [record.time for record in dataset.load(0).history] == [
        "2024-01-01",
        "2024-02-01",
        "2024-03-01",
    ]
    failed = [finding for finding in check_task(task) if finding.holds is False]
    assert failed == []


@pytest.mark.parametrize("ending", [".csv", ".json", ".jsonl", ".jsonl.gz", ".parquet"])
def test_every_format_gives_the_same_samples(tmp_path: Path, ending: str) -> None:
    rows = questions(answer=[1, 4, 2])
    path = tmp_path / f"qa{ending}"
    if ending == ".csv":
        write_csv(path, rows)
    elif ending == ".json":
        path.write_text(json.dumps(rows))
    elif ending == ".parquet":
        import pandas as pd

        pd.DataFrame(rows).to_parquet(path)
    else:
        plain = write_lines(tmp_path / "plain.jsonl", rows).read_bytes()
        path.write_bytes(gzip.compress(plain) if ending.endswith(".gz") else plain)

    declaration = infer(path)
    assert declaration.labels == ("1", "2", "3", "4")
    write_declaration(tmp_path / "mine.toml", declaration)
    dataset = registry.load_class("task", str(tmp_path / "mine.toml"))().open("dev", None)
    assert dataset.load(1).references == ("4",)
    assert len(dataset.index()) == 12


def test_records_inside_the_questions_need_no_second_table(tmp_path: Path) -> None:
    past = [
        [{"stimulus": "soup?", "response": "yes please"}, {"stimulus": "cake?", "response": "no"}]
    ]
    rows = questions(answer=[f"some long sentence {n}" for n in range(12)], history=past)
    declaration = infer(write_lines(tmp_path / "qa.jsonl", rows))
    assert declaration.questions.history == "history"
    assert declaration.history.answers
    write_declaration(tmp_path / "mine.toml", declaration)
    task = registry.load_class("task", str(tmp_path / "mine.toml"))
    assert task.offers == ("history", "population", "precedents")
    (first, _) = task().open("dev", None).load(0).history
    assert (first.stimulus, first.response) == ("soup?", "yes please")


def test_all_problems_are_named_with_their_lines(tmp_path: Path) -> None:
    path = tmp_path / "qa.csv"
    path.write_text(
        "user,question,answer,time\n"
        "a,How?,well,2024-01-01\n"
        "a,How?,badly,2024-01-01\n"
        ",Why?,because,01/02/2024\n"
        "b,,x,2024-01-01\n"
        "b,What\n"
        "c,Where?,,2024-02-30\n"
    )
    declaration = infer_declaration(path, None, {}, name="mine", kind="text").declaration
    write_declaration(tmp_path / "mine.toml", declaration)
    with pytest.raises(DataError) as error:
        registry.load_class("task", str(tmp_path / "mine.toml"))().open("dev", None)
    assert str(error.value).splitlines() == [
        "the data has 5 kinds of problem:",
        "  qa.csv, line 3: the question is that of an earlier row of the user, with another answer "
        "(line 2)",
        "  qa.csv, line 4: 'user' is empty",
        "  qa.csv, lines 4, 7: 'time' is no date such as 2024-01-31 or 2024-01-31T09:30 "
        "('01/02/2024')",
        "  qa.csv, line 5: 'question' is empty",
        "  qa.csv, line 6: the row cannot be read (the row has more or fewer cells than the header "
        "(4))",
    ]


def test_what_is_left_out_is_said(tmp_path: Path) -> None:
    rows = questions(answer=["", "a long sentence", "another sentence"], time=["2024-02-15"])
    history = write_lines(
        tmp_path / "chats.jsonl",
        [*chats(), {"user": "stranger", "text": "hi", "time": "2024-01-01"}],
    )
    write_declaration(tmp_path / "mine.toml", infer(write_csv(tmp_path / "qa.csv", rows), history))
    dataset = registry.load_class("task", str(tmp_path / "mine.toml"))().open("dev", None)
    assert dataset.warnings == (
        "qa.csv, lines 2, 5, 8, 11: 'answer' is empty; it gets no score",
        "qa.csv, lines 2, 3, 4, 5, 6 and 7 more: records that are not earlier than the question "
        "are hidden",
        "chats.jsonl: 1 users have no question",
    )


def test_unknown_roles_and_columns_are_corrected(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "qa.csv", questions(answer=["x"]))
    with pytest.raises(UsageError, match=r"did you mean question\?"):
        infer_declaration(path, None, {"quest": "question"}, name="mine")
    with pytest.raises(UsageError, match=r"has no column 'questio'; did you mean 'question'\?"):
        infer_declaration(path, None, {"question": "questio"}, name="mine")


def test_a_declaration_is_identified_by_its_content_and_not_by_places(tmp_path: Path) -> None:
    declaration = infer(write_csv(tmp_path / "qa.csv", questions(answer=["1", "2"])))
    hashes = []
    for name in ("one.toml", "two.toml"):
        write_declaration(tmp_path / name, declaration)
        if name == "two.toml":
            (tmp_path / "moved.csv").write_bytes((tmp_path / "qa.csv").read_bytes())
            text = (tmp_path / name).read_text().replace("qa.csv", "moved.csv")
            (tmp_path / name).write_text(f"# A remark.\n{text}")
        cls = registry.load_class("task", str(tmp_path / name))
        hashes.append(registry.source_hash(cls))
        assert registry.class_reference(cls) == str(tmp_path / name)
    assert hashes[0] == hashes[1]

    (tmp_path / "two.toml").write_text(
        (tmp_path / "two.toml").read_text().replace("max_tokens = 16", "max_tokens = 9")
    )
    changed = registry.load_class("task", str(tmp_path / "two.toml"))
    assert registry.source_hash(changed) != hashes[0]


def test_times_become_comparable() -> None:
    assert read_time("2024-05-01T10:00:00+02:00") == "2024-05-01T08:00:00"
    assert read_time(1700000000) == "1700000000"
    with pytest.raises(ValueError):
        read_time("yesterday")
    assert read_texts('["a", "b"]') == read_texts("a|b") == ("a", "b")


def test_broken_rows_are_refused_without_a_report(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"a": 1}\n{"a":\n')
    with pytest.raises(DataError, match=r"line 2: .*expected JSON"):
        list(read_rows(path))
    reported: list[tuple[str, int, str]] = []
    assert len(list(read_rows(path, report=lambda *row: reported.append(row)))) == 1
    assert [number for _, number, _ in reported] == [2]
