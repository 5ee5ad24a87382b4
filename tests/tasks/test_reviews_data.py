"""Review data: the example data, copies of the published data, and splits from tables."""

from __future__ import annotations

import asyncio
import csv
import dataclasses
import gzip
import json
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import datasets
import pytest

from personabench.api import registry
from personabench.api.dataset import Dataset
from personabench.api.population import Population
from personabench.errors import DataError, UsageError
from personabench.run import runner
from personabench.run.score_file import open_run, score_predictions
from personabench.tasks.reviews.construct import Rules
from personabench.tasks.reviews.records import format_time

SMALL: dict[str, int] = {
    "min_chars": 1,
    "item_reviewers": 2,
    "min_reviews": 3,
    "inputs": 1,
    "base_reviewers": 2,
    "base_reviews": 1,
}


def reviews(**params: Any) -> Any:
    cls = registry.load_class("task", "reviews")
    return cls(cls.Params(**params))


def row(user: str, *asins: str, start: int = 1_600_000_000_000) -> dict[str, Any]:
    written = [
        {
            "asin": asin,
            "rating": 4.0,
            "title": f"On {asin}",
            "text": f'{user} says "{asin}" is fine.\n\n-----\n\nReally.',
            "timestamp": start + number * 86_400_000,
        }
        for number, asin in enumerate(asins)
    ]
    return {"user_id": user, "profile": written[:-1], "data": written[-1]}


ROWS = [row("ann", "a", "b", "c"), row("bob", "b", "c", "a"), row("cem", "c", "a", "b")]
META = [
    {"asin": name, "title": f"Thing {name}", "description": f"A thing named {name}."}
    for name in "abcd"
]


def lines(path: Path, rows: list[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def copy(root: Path, form: str, category: str = "Books") -> Path:
    """Write a copy of the published data as JSON lines, parquet or arrow."""
    main, meta = root / "DPL-main" / category, root / "DPL-meta" / category
    if form == "jsonl":
        lines(main / "test.jsonl", ROWS)
        lines(meta / "full.jsonl", META)
        return root
    if form == "cache":
        main = root / "datasets--SnowCharmQ--DPL-main" / "snapshots" / "abc" / category
        meta = root / "datasets--SnowCharmQ--DPL-meta" / "snapshots" / "def" / category
    tables = {"test": datasets.Dataset.from_list(ROWS), "full": datasets.Dataset.from_list(META)}
    for folder, name in ((main, "test"), (meta, "full")):
        folder.mkdir(parents=True)
        if form == "arrow":
            datasets.DatasetDict({name: tables[name]}).save_to_disk(str(folder))
        else:
            tables[name].to_parquet(str(folder / f"{name}-00000-of-00001.parquet"))
    return root


def seen(data: Dataset) -> list[Any]:
    return list(data.samples())


def test_example_data_is_what_its_page_says() -> None:
    task = reviews()
    test, val = task.open("test", None), task.open("House_and_Hills/val", None)
    assert (
        test.sample
        and test.dated
        and test.identified
        and not [w for w in test.warnings if "METEOR" not in w]
    )
    assert len(test.index()) == len(val.index()) == 12
    reviewers: dict[str, set[str]] = defaultdict(set)
    texts = []
    for sample in seen(test):
        assert len(sample.history) in (8, 9) and sample.time > sample.history[-1].time
        texts += [sample.references[0], *(record.response for record in sample.history)]
        for record in sample.history:
            reviewers[record.item].add(sample.user_id)
        assert sample.item not in {record.item for record in sample.history}
    assert len(reviewers) == 15 and min(map(len, reviewers.values())) >= 6
    assert len(set(texts)) == len(texts) == 113 and min(map(len, texts)) >= 200
    assert all(len(sample.history) in (7, 8) for sample in seen(val))
    assert {s.id for s in seen(val)} <= {r.id for s in seen(test) for r in s.history}
    assert task.audit(test) == task.audit(val) == []


@pytest.mark.parametrize("form", ["jsonl", "parquet", "arrow", "cache"])
def test_every_form_of_a_copy_reads_the_same(
    form: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "hf")
    data = reviews().open("Books/test", copy(tmp_path / "data", form))
    assert (data.separation, data.split) == ("Books", "test")
    assert data.index() == [("ann-c", "ann"), ("bob-a", "bob"), ("cem-b", "cem")]
    first = data.load(0)
    assert first.references == (ROWS[0]["data"]["text"],) and first.item == "c"
    assert first.stimulus == "Thing c\nA thing named c."
    assert first.attributes == {"rating": "4", "review_title": "On c"}
    assert [record.id for record in first.history] == ["ann-a", "ann-b"]
    assert first.history[0].time == "2020-09-13T12:26:40"
    population = Population(data.population())
    assert {record.item for _, record in population.records()} == {"a", "b", "c"}
    gold = {sample.references[0] for sample in seen(data)}
    assert not gold & {record.response for _, record in population.records()}


def test_several_categories_must_be_named(tmp_path: Path) -> None:
    copy(tmp_path, "jsonl")
    assert reviews().open("test", tmp_path).separation == "Books"
    copy(tmp_path, "jsonl", "CDs_and_Vinyl")
    with pytest.raises(UsageError, match="Books, CDs_and_Vinyl: name one"):
        reviews().open("test", tmp_path)
    with pytest.raises(UsageError, match="no category 'Games'"):
        reviews().open("Games/test", tmp_path)
    with pytest.raises(UsageError, match="no split 'train'"):
        reviews().open("train", tmp_path)
    with pytest.raises(DataError, match="Books/val"):
        reviews().open("Books/val", tmp_path)


def test_a_broken_row_is_named(tmp_path: Path) -> None:
    copy(tmp_path, "jsonl")
    path = tmp_path / "DPL-main" / "Books" / "test.jsonl"
    broken: Any = json.loads(json.dumps(ROWS))
    del broken[1]["profile"][0]["title"]
    lines(path, broken)
    with pytest.raises(DataError, match=r"test\.jsonl: row 1: .*`title`.*profile"):
        reviews().open("test", tmp_path)
    broken = json.loads(json.dumps(ROWS))
    broken[2]["data"]["timestamp"] = "some day"
    lines(path, broken)
    with pytest.raises(DataError, match=r"row 2 \(user cem\): timestamp 'some day'"):
        reviews().open("test", tmp_path)
    lines(path, [*ROWS, ROWS[0]])
    with pytest.raises(DataError, match=r"more than once: 1 \(ann-c\)"):
        reviews().open("test", tmp_path)
    lines(path, [])
    with pytest.raises(DataError, match="no rows"):
        reviews().open("test", tmp_path)


def test_both_repositories_are_needed(tmp_path: Path) -> None:
    lines(tmp_path / "DPL-main" / "Books" / "test.jsonl", ROWS)
    with pytest.raises(DataError, match="fetch both"):
        reviews().open("test", tmp_path)
    lines(tmp_path / "DPL-meta" / "Books" / "full.jsonl", META[:2])
    data = reviews().open("test", tmp_path)
    assert any("1 (c) items have no title" in warning for warning in data.warnings)
    assert data.load(0).stimulus is None and "Item:" not in data.load(0).input


def table(path: Path, rows: list[tuple[str, str, int, str, str, int]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(
            ("user_id", "item_id", "rating", "review_title", "review_text", "timestamp")
        )
        writer.writerows(rows)
    return path.parent


def everyone(users: str, items: str) -> list[tuple[str, str, int, str, str, int]]:
    return [
        (user, item, 5, f"title {item}", f"{user} on {item}", 1_400_000_000 + day * 86_400)
        for user in users
        for day, item in enumerate(items)
    ]


def test_splits_are_made_from_a_table(tmp_path: Path) -> None:
    folder = table(tmp_path / "mine.csv", everyone("uvw", "abcd"))
    data = reviews(**SMALL | {"inputs": 2}).open("test", folder)
    assert (data.separation, data.split) == ("table", "test")
    assert data.index() == [("u-d", "u"), ("v-d", "v"), ("w-d", "w")]
    assert [record.item for record in data.load(0).history] == ["a", "b", "c"]
    val = reviews(**SMALL | {"inputs": 2}).open("val", folder)
    assert val.index()[0] == ("u-c", "u") and [r.item for r in val.load(0).history] == ["a", "b"]
    assert any("no item has a title or description" in warning for warning in data.warnings)
    with pytest.raises(UsageError, match=r"inputs=2"):
        reviews(**SMALL).open("val", folder)
    with pytest.raises(UsageError, match="no DPL-main folder"):
        reviews(**SMALL).open("Books/test", folder)


def test_answers_about_a_table_are_compared_between_users(tmp_path: Path) -> None:
    folder = table(tmp_path / "mine.csv", everyone("uvw", "abcd"))
    chosen = runner.Options(["copy_nearest"], ["reviews"], backend="scripted", results=tmp_path)
    assignments = [f"task.{name}={value}" for name, value in SMALL.items()]
    options = dataclasses.replace(chosen, data=folder, assignments=assignments)
    (outcome,) = asyncio.run(runner.run(options))
    task, references = open_run(outcome.folder, None)
    scores = score_predictions(task, outcome.folder, references, "official", False)
    assert scores.metrics["rouge-1"] == outcome.summary.metrics["official"]["rouge-1"]
    shared = scores.divergence
    assert not isinstance(shared, str) and (shared.stimuli, shared.samples) == (1, 3)


def test_each_rule_is_applied(tmp_path: Path) -> None:
    rows = everyone("uvw", "abcd")
    rows += [
        ("x", item, 5, "t", f"x on {item}", 1_400_000_000) for item in "ab"
    ]  # two reviews: too few
    rows += [("u", "lonely", 5, "t", "u on lonely", 1_399_000_000)]  # an item with one reviewer
    rows += [
        ("v", "a", 1, "t", "v  on\na,  later", 1_400_040_000)
    ]  # the newer review of an item is kept
    rows += [("w", "b", 1, "t", "w on a", 1_399_000_000)]  # an older copy of a text is not
    rows += [("u", "e", 5, "t", "", 1_400_000_000)]  # incomplete
    data = reviews(**SMALL).open("test", table(tmp_path / "mine.csv", rows))
    samples = {sample.user_id: sample for sample in seen(data)}
    assert sorted(samples) == ["u", "v", "w"]
    assert [record.item for record in samples["u"].history] == ["a", "b", "c"]
    assert samples["v"].history[0].response == "v on a, later"
    assert [record.response for record in samples["w"].history] == ["w on a", "w on b", "w on c"]
    assert "1 of 18 rows lack a field and are left out" in data.warnings


def test_rules_hold_to_a_fixpoint(tmp_path: Path) -> None:
    """c has two reviewers until y, with too few reviews, goes; then x has too few, and so on."""
    rows = everyone("uvw", "abd")
    rows += [("x", item, 5, "t", f"x on {item}", 1_400_000_000 + n) for n, item in enumerate("abc")]
    rows += [("y", item, 5, "t", f"y on {item}", 1_400_000_000) for item in "c"]
    data = reviews(**SMALL).open("test", table(tmp_path / "mine.csv", rows))
    assert [user for _, user in data.index()] == ["u", "v", "w"]
    people = Counter(record.item for user in data.population() for record in user.history)
    assert people == {"a": 3, "b": 3}


def test_people_to_compare_with_need_not_be_asked(tmp_path: Path) -> None:
    rows = everyone("uv", "abcd") + everyone("wx", "abd")
    folder = table(tmp_path / "mine.csv", rows)
    data = reviews(**SMALL, asked_reviews=3).open("test", folder)
    assert [user for _, user in data.index()] == ["u", "v"]
    assert [user.id for user in data.population()] == ["u", "v", "w", "x"]
    assert {"w-d", "x-d"}.isdisjoint(
        record.id for user in data.population() for record in user.history
    )


def test_published_bounds_are_the_defaults_and_a_small_table_is_told_so(tmp_path: Path) -> None:
    assert Rules() == Rules(200, 100, 2000, 8, 18, 500, 10, 5, 8, 0)
    folder = table(tmp_path / "mine.csv", everyone("uvw", "abcd"))
    with pytest.raises(
        DataError,
        match=r"exclude every user.*12 rows; 12 complete; 0 by 0 users.*task\.min_chars=1",
    ):
        reviews().open("test", folder)
    with pytest.raises(ValueError, match="min_reviews must exceed inputs"):
        Rules(min_reviews=5)


def test_items_are_described_beside_the_table_or_in_it(tmp_path: Path) -> None:
    long = (
        "A description that is long enough for the rules: its length lies between the bounds of "
        "one hundred and two thousand characters."
    )
    folder = tmp_path / "two"
    folder.mkdir()
    with gzip.open(folder / "Toys.jsonl.gz", "wt", encoding="utf-8") as file:
        for user, item, rating, title, text, timestamp in everyone("uvw", "abcd"):
            review = {
                "user_id": user,
                "parent_asin": item,
                "asin": "other",
                "rating": rating,
                "title": title,
                "text": text,
            }
            file.write(json.dumps(review | {"timestamp": timestamp * 1000}) + "\n")
    described = [
        {"parent_asin": item, "title": f"Toy {item}", "description": ["Product Description", long]}
        for item in "abd"
    ]
    lines(folder / "meta_Toys.jsonl", described)
    data = reviews(**SMALL).open("test", folder)
    sample = data.load(0)
    assert sample.stimulus == f"Toy d\n{long}" and [record.item for record in sample.history] == [
        "a",
        "b",
    ]
    folder = tmp_path / "one"
    rows = [
        {"reviewerID": user, "asin": item, "overall": 3, "summary": title, "reviewText": text,
         "unixReviewTime": timestamp, "item_title": f"Toy {item}", "item_description": long}
        for user, item, _, title, text, timestamp in everyone("uvw", "abcd")
    ]  # fmt: skip
    lines(folder / "reviews.json", rows)
    assert reviews(**SMALL).open("test", folder).load(0).stimulus == f"Toy d\n{long}"


def test_an_item_without_a_title_is_searched_by_its_description(tmp_path: Path) -> None:
    long = " ".join(f"word{number}" for number in range(40))
    rows = [
        {"reviewerID": user, "asin": item, "overall": 3, "summary": title, "reviewText": text,
         "unixReviewTime": timestamp, "item_title": "" if item == "d" else "Toy",
         "item_description": long}
        for user, item, _, title, text, timestamp in everyone("uvw", "abcd")
    ]  # fmt: skip
    lines(tmp_path / "reviews.json", rows)
    task = reviews(**SMALL)
    sample = task.open("test", tmp_path).load(0)
    title = sample.attributes["review_title"]
    assert sample.item == "d" and task.query_text(sample) == f"{title} {long}"
    (record, *_) = sample.history
    assert task.document_text(record) == f"{record.fields['review_title']} {long}"
    assert long in sample.input and "untitled" not in task.describe(record)


def test_a_broken_table_is_named(tmp_path: Path) -> None:
    folder = table(
        tmp_path / "mine.csv", [("u", "a", 5, "t", "text", 1), ("v", "a", "five", "t", "text", 1)]
    )  # type: ignore[list-item]
    with pytest.raises(DataError, match=r"mine\.csv: line 3: rating: 'five' is not a number"):
        reviews(**SMALL).open("test", folder)
    late: Any = ("u", "a", 5, "t", "text", "soon")
    folder = table(tmp_path / "late" / "mine.csv", [late])
    with pytest.raises(DataError, match="line 2: 'soon' is not a time"):
        reviews(**SMALL).open("test", folder)
    (tmp_path / "mine.csv").write_text("user_id,rating\nu,5\n")
    with pytest.raises(DataError, match=r"no column for the item.*it has: user_id, rating"):
        reviews(**SMALL).open("test", tmp_path)
    (tmp_path / "more.csv").write_text("")
    with pytest.raises(DataError, match=r"one table of reviews.*found: mine\.csv, more\.csv"):
        reviews(**SMALL).open("test", tmp_path)
    (tmp_path / "text").mkdir()
    (tmp_path / "text" / "r.jsonl").write_text('{"user_id": "u"\n')
    with pytest.raises(DataError, match=r"r\.jsonl: line 1"):
        reviews(**SMALL).open("test", tmp_path / "text")


@pytest.mark.parametrize(
    ("timestamp", "formatted"),
    [
        (1393545600, "2014-02-28"),
        (1393545600000, "2014-02-28"),
        ("1393545601", "2014-02-28T00:00:01"),
        (1600000000123, "2020-09-13T12:26:40.123"),
        ("2021-05-04", "2021-05-04"),
        ("2021-05-04T02:00:00+02:00", "2021-05-04"),
    ],
)
def test_times_are_iso(timestamp: int | str, formatted: str) -> None:
    assert format_time(timestamp) == formatted
