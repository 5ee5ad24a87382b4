"""Loading of LaMP files: errors name file, record and field; both shapes load alike."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from lamp_files import GOLDS, entry, question, write, write_outputs

from personabench.errors import DataError, UsageError
from personabench.tasks.lamp import Lamp1, Lamp2M, Lamp2N, Lamp3, Lamp4, Lamp5, Lamp6, Lamp7
from personabench.tasks.lamp.forms import FORMS, parse_split
from personabench.tasks.lamp.records import SAMPLES, LampData

TASKS = {cls.name: cls for cls in (Lamp1, Lamp2M, Lamp2N, Lamp3, Lamp4, Lamp5, Lamp6, Lamp7)}


@pytest.mark.parametrize("task", sorted(TASKS))
def test_every_dataset_loads(tmp_path: Path, task: str) -> None:
    write(tmp_path, task, [question(task, "011"), question(task, "012", [])])
    dataset = LampData(task, "dev", tmp_path)
    first, second = dataset.samples()
    assert (first.id, first.user_id, first.references) == (
        "011",
        "011",
        (GOLDS.get(task, "A Gold Title"),),
    )
    assert first.history[0].fields == {
        key: value for key, value in entry(task).items() if key != "id"
    }
    assert second.history == ()
    assert (first.choices, dataset.identified, dataset.dated) == (FORMS[task].labels, False, False)
    assert dataset.warnings == ()


def test_acceptance_12_ids_stay_strings_and_both_shapes_load_alike(tmp_path: Path) -> None:
    questions = [question("lamp4", "011"), question("lamp4", "11")]
    write(tmp_path / "list", "lamp4", questions)
    write(
        tmp_path / "golds", "lamp4", {"task": "LaMP_4", "golds": questions}, {"011": "A", "11": "B"}
    )
    plain, wrapped = (LampData("lamp4", "dev", tmp_path / name) for name in ("list", "golds"))
    assert [question_id for question_id, _ in plain.index()] == ["011", "11"]
    assert [sample.view() for sample in plain.samples()] == [
        sample.view() for sample in wrapped.samples()
    ]


def test_record_parts(tmp_path: Path) -> None:
    parts = {
        "lamp1": (None, "Ferns on Roofs\nFerns grow on old roofs."),
        "lamp2m": ("A baker inherits a circus.", "comedy"),
        "lamp2n": ("The cup final was sold out.", "sports"),
        "lamp3": ("Solid kettle, loud lid.", "4"),
        "lamp7": (None, "rain again lol"),
    }
    for task, expected in parts.items():
        (record,) = (
            LampData(task, "dev", write(tmp_path / task, task, [question(task, "1")]))
            .load(0)
            .history
        )
        assert (record.stimulus, record.response) == expected


@pytest.mark.parametrize("task", sorted(name for name in TASKS if FORMS[name].stimulus))
def test_a_record_of_what_is_asked_about_can_be_told(tmp_path: Path, task: str) -> None:
    """Guards against a question's own answer compare what records and questions respond to."""
    about = entry(task)[FORMS[task].long_field]
    asked_question = question(task, "1", input=f"{FORMS[task].wording} {about}")
    sample = LampData(task, "dev", write(tmp_path, task, [asked_question])).load(0)
    assert sample.history[0].stimulus == sample.stimulus == about


def test_dated_histories_are_sorted_stably_and_years_come_first(tmp_path: Path) -> None:
    dates = ["2013-01-02", 2013, "2012-12-31", "2013-01-02", "2013-1-1"]
    profile = [entry("lamp7", number, date=date) for number, date in enumerate(dates)]
    dataset = LampData(
        "lamp7", "dev", write(tmp_path, "lamp7", [question("lamp7", "1", profile, user_id="ann")])
    )
    assert [record.id for record in dataset.load(0).history] == ["p2", "p1", "p4", "p0", "p3"]
    assert dataset.load(0).history[1].time == "2013"
    assert (dataset.dated, dataset.identified, dataset.load(0).user_id) == (True, True, "ann")


def test_one_missing_date_keeps_file_order(tmp_path: Path) -> None:
    profiles = [
        [entry("lamp7", 0, date="2020"), entry("lamp7", 1, date="2010")],
        [entry("lamp7", 2)],
    ]
    questions = [question("lamp7", str(number), profile) for number, profile in enumerate(profiles)]
    dataset = LampData("lamp7", "dev", write(tmp_path, "lamp7", questions))
    assert not dataset.dated
    assert [record.id for record in dataset.load(0).history] == ["p0", "p1"]


def test_population_is_one_user_per_user_id(tmp_path: Path) -> None:
    questions = [
        question("lamp7", str(number), user_id=user) for number, user in enumerate(["a", "b", "a"])
    ]
    dataset = LampData("lamp7", "dev", write(tmp_path, "lamp7", questions))
    assert [user.id for user in dataset.population()] == ["a", "b"]


DEFECTS: dict[str, tuple[str, Any, str]] = {
    "score as number": (
        "lamp3",
        {"profile": [entry("lamp3"), entry("lamp3", 1, score=4)]},
        r"record q1: profile\[1\].score \(entry id 'p1'\): Expected `str`, got `int`",
    ),
    "missing field": (
        "lamp4",
        {"profile": [entry("lamp4", title=None)]},
        r"record q1: profile\[0\].*field `title`",
    ),
    "profile no list": ("lamp4", {"profile": {}}, r"record q1: profile: Expected `array`"),
    "number as id": ("lamp4", {"id": 11}, r"record number 2 \(id 11\): id: .*JSON strings"),
    "number as entry id": (
        "lamp4",
        {"profile": [entry("lamp4", id=7)]},
        r"record q1: profile\[0\].id .*`int`",
    ),
    "input missing": ("lamp4", {"input": None}, r"record q1: input: Expected `str`, got `null`"),
    "no date": (
        "lamp4",
        {"profile": [entry("lamp4", date="last May")]},
        r"record q1: profile\[0\].date: 'last May'",
    ),
    "no object": ("lamp4", None, r"record number 2 is not an object"),
    "unfilled mail": (
        "lamp6",
        {"input": "Generate a subject for the following email: 12/345.txt"},
        "record q1 .*Avocado",
    ),
    "unfilled profile": (
        "lamp6",
        {"profile": [entry("lamp6", text="77.txt")]},
        "record q1 .*Avocado",
    ),
}


@pytest.mark.parametrize("name", sorted(DEFECTS))
def test_defects_are_located(tmp_path: Path, name: str) -> None:
    task, changes, message = DEFECTS[name]
    broken = [] if changes is None else question(task, "q1", **changes)
    write(tmp_path, task, [question(task, "q0"), broken], {"q0": "x", "q1": "y"})
    with pytest.raises(DataError, match=f"dev_questions.json: {message}"):
        LampData(task, "dev", tmp_path)


def test_question_ids_must_be_unique(tmp_path: Path) -> None:
    write(tmp_path, "lamp4", [question("lamp4", question_id) for question_id in ("1", "2", "1")])
    with pytest.raises(DataError, match=r"repeated: 1 \(1\)"):
        LampData("lamp4", "dev", tmp_path)


def test_output_ids_must_equal_question_ids(tmp_path: Path) -> None:
    write(
        tmp_path,
        "lamp4",
        [question("lamp4", str(number)) for number in range(9)],
        {"0": "x", "new": "y"},
    )
    with pytest.raises(DataError, match=r"missing: 8 \(1, 2, 3, 4, 5, ...\), extra: 1 \(new\)"):
        LampData("lamp4", "dev", tmp_path)


@pytest.mark.parametrize(
    ("stated", "golds", "message"),
    [
        ("LaMP_4", [("1", "comedy")], "LaMP_4, but lamp2m is LaMP_2"),
        ("LaMP_2", [("1", "sports")], "record 1: gold 'sports'"),
        ("LaMP_2", [("1", 3)], r"Expected `str`, got `int`.*\(record 1\)"),
        ("LaMP_2", [("1", "comedy"), ("1", "action")], r"repeated: 1 \(1\)"),
    ],
)
def test_output_files_are_checked(tmp_path: Path, stated: str, golds: Any, message: str) -> None:
    write(tmp_path, "lamp2m", [question("lamp2m", "1")])
    write_outputs(tmp_path / "dev_outputs.json", stated, golds)
    with pytest.raises(DataError, match=message):
        LampData("lamp2m", "dev", tmp_path)


def test_a_hyphen_in_the_task_name_is_accepted(tmp_path: Path) -> None:
    write(tmp_path, "lamp3", [question("lamp3", "1")], stated="LaMP-3")
    assert LampData("lamp3", "dev", tmp_path).load(0).references == ("4",)


@pytest.mark.parametrize(("task", "twin"), [("lamp2m", "lamp2n"), ("lamp2n", "lamp2m")])
def test_the_two_second_datasets_are_told_apart(tmp_path: Path, task: str, twin: str) -> None:
    write(tmp_path, twin, [question(twin, "1")])
    with pytest.raises(
        DataError, match=f"record 1 belongs to {twin}, not to {task}; use the task {twin}"
    ):
        LampData(task, "dev", tmp_path)


@pytest.mark.parametrize("profile", [[], None])
def test_mixed_second_datasets_are_refused(tmp_path: Path, profile: list[Any] | None) -> None:
    write(
        tmp_path,
        "lamp2m",
        [question("lamp2m", "1"), question("lamp2n", "2", profile)],
        {"1": "comedy", "2": "comedy"},
    )
    with pytest.raises(DataError, match=r"record 2 belongs to lamp2n.*mixes both"):
        LampData("lamp2m", "dev", tmp_path)


def test_profiles_tell_the_second_datasets_apart_where_the_input_does_not(tmp_path: Path) -> None:
    write(tmp_path, "lamp2n", [question("lamp2n", "1", input="mangled")])
    with pytest.raises(DataError, match="belongs to lamp2n"):
        LampData("lamp2m", "dev", tmp_path)


def test_a_mangled_input_loads_with_a_warning(tmp_path: Path) -> None:
    write(
        tmp_path,
        "lamp2m",
        [question("lamp2m", "110", input="A lighthouse keeper sings."), question("lamp2m", "111")],
    )
    dataset = LampData("lamp2m", "dev", tmp_path)
    assert dataset.load(0).stimulus == "A lighthouse keeper sings."
    (warning,) = dataset.warnings
    assert "1 (110)" in warning


def _cut(content: bytes) -> bytes:
    return content[: content.index(b"q2") + 40]


def _stray(content: bytes) -> bytes:
    return content.replace(b'"id": "q2"', b'"id": x"q2"')


def _bytes(content: bytes) -> bytes:
    return content.replace(b'"id": "q2"', b'"id": "q2\xff"')


@pytest.mark.parametrize("damage", [_cut, _stray, _bytes])
def test_broken_files_name_byte_line_and_the_last_question(
    tmp_path: Path, damage: Callable[[bytes], bytes]
) -> None:
    write(tmp_path, "lamp4", [])
    path = tmp_path / "dev_questions.json"
    whole = json.dumps([question("lamp4", f"q{number}") for number in range(4)], indent=1).encode()
    path.write_bytes(damage(whole))
    intact = next(
        (
            index
            for index, (a, b) in enumerate(zip(whole, path.read_bytes(), strict=False))
            if a != b
        ),
        None,
    )
    offset = len(damage(whole)) if intact is None else intact
    line = 1 + whole[:offset].count(b"\n")
    last = "q2" if damage is _cut else "q1"
    with pytest.raises(
        DataError, match=f"at byte {offset}, line {line}, after the question id {last}"
    ):
        LampData("lamp4", "dev", tmp_path)


def test_a_web_page_is_called_one(tmp_path: Path) -> None:
    write(tmp_path, "lamp4", [])
    (tmp_path / "dev_questions.json").write_text("<html><body>Not found</body></html>")
    with pytest.raises(DataError, match="HTML page"):
        LampData("lamp4", "dev", tmp_path)


@pytest.mark.parametrize("content", ["", "[]", '{"task": "LaMP_4"}', "3"])
def test_files_without_questions_are_refused(tmp_path: Path, content: str) -> None:
    write(tmp_path, "lamp4", [])
    (tmp_path / "dev_questions.json").write_text(content)
    with pytest.raises(DataError, match=r"dev_questions\.json"):
        LampData("lamp4", "dev", tmp_path)


@pytest.mark.parametrize(
    ("task", "split", "folder"),
    [
        ("lamp4", "dev", "LaMP_4/dev"),
        ("lamp4", "time/train", "time/LaMP_4/train"),
        ("lamp2m", "user/dev", "LaMP_2/new/dev"),
        ("lamp2m", "time/dev", "time/LaMP_2/new/dev"),
        ("lamp2n", "dev", "LaMP_2/dev"),
        ("lamp4", "dev", "."),
        ("lamp4", "time/dev", "."),
    ],
)
def test_places(tmp_path: Path, task: str, split: str, folder: str) -> None:
    write(tmp_path / folder, task, [question(task, "1")], split=split.split("/")[-1])
    dataset = TASKS[task]().open(split, tmp_path)
    assert [question_id for question_id, _ in dataset.index()] == ["1"]
    assert f"{dataset.separation}/{dataset.split}".endswith(split)


def test_a_missing_file_lists_the_places_looked_at(tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        LampData("lamp2m", "time/dev", tmp_path)
    assert str(tmp_path / "dev_questions.json") in str(caught.value)
    assert str(tmp_path / "time/LaMP_2/new/dev/dev_questions.json") in str(caught.value)


def test_golds_may_be_missing_for_test_only(tmp_path: Path) -> None:
    for split in ("dev", "test"):
        write(tmp_path, "lamp4", [question("lamp4", "1")], split=split)
        (tmp_path / f"{split}_outputs.json").unlink()
    assert LampData("lamp4", "test", tmp_path).load(0).references == ()
    with pytest.raises(DataError, match=r"dev_outputs\.json is missing"):
        LampData("lamp4", "dev", tmp_path)


def test_time_files_without_users_or_dates_are_told(tmp_path: Path) -> None:
    write(tmp_path, "lamp4", [question("lamp4", "1")])
    assert "user separation" in LampData("lamp4", "time/dev", tmp_path).warnings[0]


def test_the_hash_covers_questions_and_golds(tmp_path: Path) -> None:
    hashes = set()
    for text, gold in (("a", "x"), ("b", "x"), ("a", "y"), ("a", "x")):
        write(tmp_path, "lamp4", [question("lamp4", "1", [entry("lamp4", text=text)])], {"1": gold})
        hashes.add(LampData("lamp4", "dev", tmp_path).hash)
    assert len(hashes) == 3


@pytest.mark.parametrize("text", ["", "val", "user", "place/dev", "user/dev/1", "dev/"])
def test_unknown_splits_are_refused(text: str) -> None:
    with pytest.raises(UsageError, match="train"):
        parse_split(text)


def test_the_example_data_has_dev_only() -> None:
    with pytest.raises(UsageError, match="--data"):
        Lamp4().open("time/test", None)


def test_audit_finds_golds_in_their_own_profile(tmp_path: Path) -> None:
    leaking = question("lamp5", "1", [entry("lamp5", title="A  gold TITLE")])
    dataset = Lamp5().open("dev", write(tmp_path / "5", "lamp5", [leaking, question("lamp5", "2")]))
    assert Lamp5().audit(dataset) == ["the gold text occurs in the same profile: 1 (1) of 2"]
    cited = [
        question("lamp1", "1", [entry("lamp1", title="Roofs of Lead")]),
        question("lamp1", "2"),
    ]
    assert (
        "1 (1) of 2" in Lamp1().audit(Lamp1().open("dev", write(tmp_path / "1", "lamp1", cited)))[0]
    )
    rated = Lamp3().open("dev", write(tmp_path / "3", "lamp3", [question("lamp3", "1")]))
    assert Lamp3().audit(rated) == []


BUNDLED = sorted(path.name for path in SAMPLES.iterdir())


@pytest.mark.parametrize("task", BUNDLED)
def test_example_datas(task: str) -> None:
    dataset = TASKS[task]().open("dev", None)
    samples = list(dataset.samples())
    users = [sample.user_id for sample in samples]
    assert dataset.sample
    assert dataset.source == "example data, not LaMP"
    assert dataset.dated and dataset.identified and dataset.warnings == ()
    assert len(set(users)) >= 12
    assert min(users.count(user) for user in users) >= 2
    assert all(8 <= len(sample.history) <= 20 for sample in samples)
    assert TASKS[task]().open("time/dev", None).hash == dataset.hash


@pytest.mark.parametrize("task", BUNDLED)
@pytest.mark.parametrize("scorer", ["official", "lenient"])
def test_bundled_golds_score_the_maximum(task: str, scorer: str) -> None:
    instance = TASKS[task]()
    best = {"MAE": 0.0, "RMSE": 0.0}
    for sample in instance.open("dev", None).samples():
        parsed = instance.parse(sample.references[0], sample, scorer)
        values = instance.measure(parsed, sample)
        assert parsed is not None
        for metric in instance.metrics:
            value = values[metric.name]
            assert (
                value[0] == value[1]
                if isinstance(value, list)
                else value == best.get(metric.name, 1.0)
            ), sample.id


@pytest.mark.parametrize("task", BUNDLED)
def test_example_datas_do_not_leak(task: str) -> None:
    instance = TASKS[task]()
    assert instance.audit(instance.open("dev", None)) == []


def test_all_eight_samples_are_bundled() -> None:
    assert sorted(TASKS) == BUNDLED
