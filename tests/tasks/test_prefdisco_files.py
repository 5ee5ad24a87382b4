"""PrefDisco's files: records kept, counted or refused, rows that become problems, downloads."""

from __future__ import annotations

import hashlib
import json
import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from loopback import folder_server, serving
from prefdisco_files import WANTS, make_row, write_set

from personabench.api.downloads import read_manifest
from personabench.errors import DataError, UsageError
from personabench.tasks.prefdisco import PrefDisco
from personabench.tasks.prefdisco.download import download
from personabench.tasks.prefdisco.files import (
    EXAMPLE_FILE,
    RecordFile,
    find_sets,
    locate_set,
    read_records,
)
from personabench.tasks.prefdisco.sources import (
    SOURCES,
    Problem,
    normalize_row,
    parse_problem,
    read_rows,
)


def load_set(folder: Path, *records: Any) -> RecordFile:
    return read_records(write_set(folder, records) / "own.jsonl")


def change_row(change: Callable[[dict[str, Any]], object]) -> dict[str, Any]:
    record: dict[str, Any] = json.loads(json.dumps(make_row(0, "ann")))
    change(record)
    return record


def get_criteria(record: dict[str, Any]) -> list[dict[str, Any]]:
    criteria: list[dict[str, Any]] = record["evaluation_rubric"]["evaluation_criteria"]
    return criteria


def test_acceptance_8_loader(tmp_path: Path) -> None:
    surplus = change_row(
        lambda record: get_criteria(record).append(
            {**get_criteria(record)[0], "preference": "Height"}
        )
    )
    records = load_set(tmp_path / "surplus", surplus)
    assert [criterion.name for criterion in records.entries[0].criteria] == list(WANTS)
    assert records.counts["surplus"] == 1

    records = load_set(tmp_path / "missing", change_row(lambda record: get_criteria(record).pop()))
    assert (
        records.counts["missing"],
        len(records.entries[0].criteria),
        len(records.entries[0].preferences),
    ) == (1, 2, 3)

    records = load_set(
        tmp_path / "weights",
        change_row(
            lambda record: [criterion.update(weight=0.4) for criterion in get_criteria(record)]
        ),
    )
    assert records.counts["weights"] == 1
    assert "weights" in records.warnings()[0]
    assert len(records.entries) == 1
    assert not load_set(tmp_path / "sound", make_row(0, "ann")).counts.total()

    records = load_set(
        tmp_path / "double",
        make_row(0, "ann"),
        make_row(0, "ann"),
        make_row(1, "ann", evaluation_rubric={}),
    )
    assert [criterion.id for criterion in records.entries] == ["problem_0_ann"]
    assert (records.counts["duplicate"], records.counts["no_criteria"]) == (1, 1)

    assert normalize_row(
        {
            "context": "Kim fell.",
            "question": "Why?",
            "answerA": "ice",
            "answerB": "fun",
            "label": "1",
        }
    ) == (Problem("Kim fell.\n\nWhy?", {"A": "ice", "B": "fun"}, "A"))
    assert normalize_row({"question": "Why?", "choices": ["ice", "fun"], "answer": 0}).answer == "A"


@pytest.mark.parametrize(
    ("change", "counted"),
    [
        (lambda record: record.update(type="note"), "unknown_type"),
        (lambda record: record.update(generation_success=False), "failed"),
        (lambda record: record["original_problem"].pop("question"), "no_question"),
        (
            lambda record: record["persona_preferences"]["Tone"].update(local_importance=6),
            "importance",
        ),
        (
            lambda record: record["persona_preferences"]["Tone"].update(local_importance="high"),
            "importance",
        ),
        (lambda record: get_criteria(record)[0]["levels"].pop(), "levels"),
        (lambda record: get_criteria(record)[0].update(weight=-0.1), "weights"),
        (lambda record: get_criteria(record)[0].update(weight="nan"), "weights"),
        (lambda record: get_criteria(record)[0].update(weight=10**400), "weights"),
        (
            lambda record: get_criteria(record).append({**get_criteria(record)[0], "weight": 0}),
            "surplus",
        ),
        (lambda record: record.update(original_problem=None), "no_question"),
        (lambda record: record["original_problem"].update(image="images/none.png"), "no_image"),
    ],
)
def test_defects_of_a_record_are_counted(
    tmp_path: Path, change: Callable[[dict[str, Any]], object], counted: str
) -> None:
    records = load_set(tmp_path, make_row(1, "bob"), change_row(change))
    assert records.counts[counted] == 1
    assert "problem_1_bob" in [entry.id for entry in records.entries]


def test_levels_may_be_a_mapping_and_values_numbers(tmp_path: Path) -> None:
    def change(record: dict[str, Any]) -> None:
        get_criteria(record)[0]["levels"] = {"1": "low", "3": "middle", "5": "high", "best": "none"}
        record["persona_preferences"]["Length"]["value"] = 4

    entry = load_set(tmp_path, change_row(change)).entries[0]
    assert entry.criteria[0].levels == {"1": "low", "3": "middle", "5": "high"}
    assert entry.preferences["Length"].value == "4"


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "line 2 is not JSON"),
        ('{"type": "personalized_problem", "problem_id": "x"}', "line 2: field persona is missing"),
        (
            json.dumps(change_row(lambda record: get_criteria(record)[0].pop("preference"))),
            "criterion 1 of problem_0_ann",
        ),
        (
            '{"type": "personalized_problem", "problem_id": ["x"]}',
            "line 2: field problem_id is missing or not str",
        ),
        (
            json.dumps(
                make_row(
                    0,
                    "ann",
                    original_problem={"question": "?", "choices": {"label": ["A"], "text": []}},
                )
            ),
            "line 2: problem_0_ann: options have 1 labels and 0 texts",
        ),
    ],
)
def test_a_broken_line_is_named(tmp_path: Path, line: str, message: str) -> None:
    path = tmp_path / "own.jsonl"
    path.write_text('{"type": "metadata"}\n' + line + "\n")
    with pytest.raises(DataError, match=message):
        read_records(path)


def test_a_file_without_usable_records_is_refused_with_the_reasons(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no usable records .1 lines of an unknown type"):
        load_set(tmp_path, {"type": "other"})


# One row of each kind of source


@pytest.mark.parametrize(
    ("source_row", "problem"),
    [
        (
            {"problem": "1+1?", "solution": "count", "answer": "2"},
            Problem("1+1?", {}, "2", "count"),
        ),
        ({"ID": 1, "Question": "How many?", "Answer": 204}, Problem("How many?", {}, "204")),
        (
            {
                "context": "All are wet.",
                "query": "Which?",
                "options": ["a", "b"],
                "correct_option": 1,
            },
            Problem("All are wet.\n\nWhich?", {"A": "a", "B": "b"}, "B"),
        ),
        (
            {
                "question": "Which?",
                "options": {"A": "ab", "B": "cd"},
                "answer": "cd",
                "answer_idx": "B",
            },
            Problem("Which?", {"A": "ab", "B": "cd"}, "B"),
        ),
        (
            {
                "question": "Where?",
                "choices": {"label": ["A", "B"], "text": ["bank", "sea"]},
                "answerKey": "B",
            },
            Problem("Where?", {"A": "bank", "B": "sea"}, "B"),
        ),
        (
            {
                "question": "Which?",
                "choices": ["a", "b"],
                "answer": 1,
                "lecture": "L",
                "solution": "S",
                "image": None,
            },
            Problem("Which?", {"A": "a", "B": "b"}, "B", "L\n\nS"),
        ),
        (
            {"question": "Which?", "options": ["ab", "cd"], "correct_answer": "cd"},
            Problem("Which?", {"A": "ab", "B": "cd"}, "B"),
        ),
        (
            {"question": "Which?", "options": ["2", "1"], "answer": 0},
            Problem("Which?", {"A": "2", "B": "1"}, "A"),
        ),
        (
            {"question": "Which?", "options": ["1", "2"], "answer": "1"},
            Problem("Which?", {"A": "1", "B": "2"}, "A"),
        ),
        (
            {"question": "Which?", "choices": '["a", "b"]', "answer": "1"},
            Problem("Which?", {"A": "a", "B": "b"}, "B"),
        ),
        ({"prompt": "Say it."}, Problem("Say it.")),
    ],
)
def test_rows_become_problems(source_row: dict[str, Any], problem: Problem) -> None:
    assert normalize_row(source_row) == problem


def test_the_parsed_problem_is_used_as_it_is() -> None:
    parsed = {
        "question": "Parsed?",
        "options": {"A": "x"},
        "answer": "A",
        "solution": None,
        "image": "i.png",
    }
    assert parse_problem({"parsed_problem": parsed, "original_problem": {"question": "no"}}) == (
        Problem("Parsed?", {"A": "x"}, "A", "", "i.png")
    )
    assert parse_problem({"original_problem": "bare text"}) == Problem("bare text")
    assert Problem("Which?", {"A": "x", "B": "y"}).text == "Which?\nA. x\nB. y"


@pytest.mark.parametrize("suffix", [".jsonl", ".json", ".csv"])
def test_local_files_are_sources(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"quiz{suffix}"
    listed = [{"question": f"Number {number}?", "answer": str(number)} for number in range(3)]
    if suffix == ".csv":
        path.write_text(
            "question,answer\n" + "".join(f"{row['question']},{row['answer']}\n" for row in listed)
        )
    else:
        path.write_text(
            json.dumps(listed) if suffix == ".json" else "\n".join(map(json.dumps, listed))
        )
    assert read_rows(str(path), 2) == ("quiz", listed[:2])


def test_sources_that_cannot_be_read_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="neither a file nor one of math, aime"):
        read_rows("maths", 3)
    (tmp_path / "bad.jsonl").write_text('{"text": "no question"}')
    with pytest.raises(DataError, match="row 1 has no question"):
        read_rows(str(tmp_path / "bad.jsonl"), 3)
    (tmp_path / "cells.csv").write_text("question,choices\nWhich?,red or blue\n")
    with pytest.raises(
        DataError, match="row 1: options must be a JSON list or mapping, not 'red or blue'"
    ):
        read_rows(str(tmp_path / "cells.csv"), 3)
    assert len(SOURCES) == 10
    assert {source.seed for source in SOURCES.values()} >= {111, 999, 1000}


def test_benchmarks_are_drawn_with_their_seed(monkeypatch: pytest.MonkeyPatch) -> None:
    loaded: list[tuple[Any, ...]] = []

    def load(hub: str, config: str | None, split: str) -> list[dict[str, Any]]:
        loaded.append((hub, config, split))
        return [{"question": f"Number {number}?"} for number in range(50)]

    monkeypatch.setattr("datasets.load_dataset", load)
    for name, source in SOURCES.items():
        label, rows = read_rows(name, 3)
        indices = random.Random(source.seed).sample(range(50), 3)
        assert (label, rows) == (name, [{"question": f"Number {index}?"} for index in indices])
    assert ("lighteval/mmlu", "all", "test") in loaded
    assert (
        "tau/commonsense_qa",
        None,
        "validation",
    ) in loaded

    def refused(*_: Any, **__: Any) -> None:
        raise ConnectionError("no way there")

    monkeypatch.setattr("datasets.load_dataset", refused)
    with pytest.raises(
        DataError,
        match=r"HuggingFaceH4/MATH-500 could not be loaded .*no way there.*local JSON lines",
    ):
        read_rows("math", 3)


# Folders of sets


def test_sets_are_found_in_the_released_layout_and_by_name(tmp_path: Path) -> None:
    for name in ("benchmark_1k/math", "benchmark_5k/medqa"):
        write_set(tmp_path / "prefdisco" / name, [make_row(0, "ann")], "train")
    write_set(tmp_path, [make_row(0, "ann")], "personalized_own")
    assert set(find_sets(tmp_path)) == {"math", "5k/medqa", "own"}
    assert locate_set("math", tmp_path)[:2] == ("1k", "math")
    assert locate_set("5k/medqa", tmp_path)[:2] == (
        "5k",
        "medqa",
    )
    assert locate_set("own", tmp_path)[:2] == ("local", "own")
    with pytest.raises(UsageError, match="no PrefDisco set 'sample'; it has: own, math, 5k/medqa"):
        locate_set("sample", tmp_path)
    with pytest.raises(UsageError, match="example data has no split 'math'"):
        locate_set("math", None)
    dataset = PrefDisco().open("5k/medqa", tmp_path)
    assert (dataset.separation, dataset.split, len(dataset.index())) == ("5k", "medqa", 1)
    assert dataset.warnings == ("1 records; the released set has 5,000",)


def test_records_with_images_are_kept_or_skipped(tmp_path: Path) -> None:
    pictured = change_row(lambda record: record["original_problem"].update(image="here.png"))
    data = write_set(tmp_path, [pictured, make_row(1, "bob")])
    (data / "here.png").write_bytes(b"png")
    assert len(PrefDisco().open("own", data).index()) == 2
    skipped = PrefDisco(PrefDisco.Params(images="skip")).open("own", data)
    assert [name for name, _ in skipped.index()] == ["problem_1_bob"]
    assert skipped.warnings == ("1 records have an image, which is not sent; they are left out",)


def test_the_example_data_keeps_every_rule() -> None:
    entries, counts, _ = read_records(EXAMPLE_FILE)
    assert not counts.total()
    assert len(entries) == 48
    assert len({entry.key for entry in entries}) == 4
    assert len({entry.persona_id for entry in entries}) == 12
    for entry in entries:
        assert len(entry.criteria) == len(entry.preferences) == 8
        assert {1, 5} & {preference.importance for preference in entry.preferences.values()}
        assert sum(preference.type == "expertise" for preference in entry.preferences.values()) in (
            0,
            1,
        )
        assert all(preference.justification for preference in entry.preferences.values())


def test_options_that_cannot_work_are_refused() -> None:
    for bad in ({"fixed_questions": 3}, {"max_turns": 0}, {"wording": "mine"}):
        with pytest.raises(ValueError):
            PrefDisco.Params(**bad)


# Download


COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Path, str]]:
    """The file that a local hub serves as MATH's set, and the hub's address."""
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    root = tmp_path / "hub/datasets/stellalisy/prefq-bench/resolve"
    path = root / COMMIT / "benchmark_1k/math/train.jsonl"
    api = tmp_path / "hub/api/datasets/stellalisy/prefq-bench"
    api.parent.mkdir(parents=True)
    api.write_text(
        json.dumps({"id": "stellalisy/prefq-bench", "sha": COMMIT, "tags": [], "siblings": []})
    )
    write_set(path.parent, [make_row(number, "ann") for number in range(3)], "train")
    with serving(folder_server(tmp_path / "hub")) as server:
        yield path, server.url


def test_a_set_is_fetched_checked_and_opened(tmp_path: Path, hub: tuple[Path, str]) -> None:
    stored, url = hub
    notices: list[str] = []
    for _ in range(2):
        (path,) = download("math", tmp_path / "data", base_url=url, notice=notices.append)
    assert notices == ["benchmark_1k/math/train.jsonl has 3 usable records; expected 1,000"]
    (entry,) = read_manifest(tmp_path / "data" / "prefdisco").values()
    assert (entry.sha256, entry.count) == (hashlib.sha256(stored.read_bytes()).hexdigest(), 3)
    assert (
        entry.url
        == f"{url}/datasets/stellalisy/prefq-bench/resolve/{COMMIT}/benchmark_1k/math/train.jsonl"
    )
    (tmp_path / "hub/api/datasets/stellalisy/prefq-bench").unlink()
    shutil.copytree(stored.parent, stored.parents[1] / "aime")
    download("aime", tmp_path / "data", base_url=url, notice=notices.append)
    assert len(notices) == 2 and "aime" in notices[1], (
        "the folder's commit is asked for, without the API"
    )
    assert len(PrefDisco().open("math", tmp_path / "data").index()) == 3
    path.write_text("altered")
    with pytest.raises(DataError, match="not the file that the manifest records"):
        download("math", tmp_path / "data", base_url=url)


def test_a_response_that_is_not_the_data_is_discarded(
    tmp_path: Path, hub: tuple[Path, str]
) -> None:
    stored, url = hub
    stored.write_text('{"type": "metadata"}\n')
    with pytest.raises(
        DataError, match=r"not the data: .* no usable records.*Nothing was kept. Check the address"
    ):
        download("math", tmp_path / "data", base_url=url)
    stored.unlink()
    (tmp_path / "hub/api/datasets/stellalisy/prefq-bench").unlink()
    notices: list[str] = []
    with pytest.raises(DataError, match=r"resolve/main/.*status 404.*Check the address"):
        download(
            "math", tmp_path / "data", base_url=url, notice=notices.append, wait=lambda _: None
        )
    assert "names no commit" in notices[0]
    with pytest.raises(UsageError, match="no set '5k/math' to fetch"):
        download("5k/math", tmp_path / "data", base_url=url)
    assert {path.name for path in (tmp_path / "data").rglob("*") if path.is_file()} <= {
        ".download.lock"
    }
