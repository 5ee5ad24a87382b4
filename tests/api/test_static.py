"""Tasks that only yield samples: ids, hash, order and checks come from the engine."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

from personabench import Message, Record, Sample, Task, Vocabulary
from personabench.api import static
from personabench.api.registry import load_class
from personabench.api.users import open_split
from personabench.errors import DataError, PluginError, UsageError
from personabench.testing import check_task, trial

WORDS = Vocabulary(person="reader", stimulus="book", response="review")
SAMPLE = Sample(user_id="ann", input="What of Dune?", references=("long",))


def task_of(samples: Iterable[Any], **attributes: Any) -> Task:
    """A task of given samples."""

    def load(self: Task, split: str, data: Path | None) -> Iterable[Any]:
        return samples

    members = {"__module__": __name__, "name": "given", "words": WORDS, "load": load, **attributes}
    task: Task = type("Given", (Task,), members)()
    return task


def open_samples(samples: Iterable[Any], **attributes: Any) -> list[Sample]:
    return list(open_split(task_of(samples, **attributes), "dev", None).samples())


def refuse(samples: Iterable[Any], **attributes: Any) -> str:
    """The message with which samples are refused."""
    with pytest.raises(DataError) as refusal:
        open_samples(samples, **attributes)
    return str(refusal.value)


# Ids --------------------------------------------------------------------------------------------


def test_ids_depend_on_content_and_not_on_the_order() -> None:
    questions = [
        Sample(user_id=user, input=text, history=[Record(response="a"), Record(response="b")])
        for user, text in (("ann", "x"), ("ann", "y"), ("bob", "x"))
    ]
    forward, backward = open_samples(questions), open_samples(questions[::-1])
    assert {(line.id, line.user_id, line.input) for line in forward} == {
        (line.id, line.user_id, line.input) for line in backward
    }
    assert len({line.id for line in forward}) == 3
    first, second = forward[0].history
    assert first.id != second.id
    assert forward[1].history == forward[0].history


def test_ids_do_not_tell_the_reference() -> None:
    ids = {
        open_samples([Sample(input="x", references=(gold,), hidden={"fact": gold})])[0].id
        for gold in ("yes", "no")
    }
    assert len(ids) == 1


def test_equal_questions_and_equal_records_get_ids_of_their_own() -> None:
    record = Record(response="again")
    first, second = open_samples([Sample(user_id="ann", input="x", history=[record, record])] * 2)
    assert first.id != second.id
    assert len({line.id for line in first.history}) == 2


def test_ids_of_the_data_are_used() -> None:
    (sample,) = open_samples([Sample(id="q7", input="x", history=[Record(id="r1", response="a")])])
    assert (sample.id, sample.history[0].id) == ("q7", "r1")


def test_questions_without_users_are_joined_by_their_histories() -> None:
    shared = [Record(response="a"), Record(response="b"), Record(response="c")]
    questions = [
        Sample(input="x", history=shared),
        Sample(input="y", history=shared),
        Sample(input="z", history=[Record(response="d"), Record(response="e")]),
    ]
    first, second, third = open_samples(questions)
    assert first.user_id == second.user_id != third.user_id


# The dataset ------------------------------------------------------------------------------------


class CountedFile(tempfile.SpooledTemporaryFile[bytes]):
    """A spooled file that counts its bytes, and its moves to the disk."""

    moves = 0
    size = 0

    def rollover(self) -> None:
        CountedFile.moves += 1
        super().rollover()

    def write(self, content: Any) -> int:
        CountedFile.size += len(content)
        return super().write(content)


def test_samples_are_the_same_in_memory_and_on_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    def make_samples() -> Iterable[Sample]:
        for user in "ab":
            for number in range(20):
                yield Sample(
                    user_id=user,
                    input=f"question {number}",
                    history=[Record(stimulus="s" * 900, response=user)],
                    references=["gold"],
                    attributes={"stars": "5"},
                    dialogue=[Message("user", "hi")],
                    hidden={"fact": "f"},
                )

    monkeypatch.setattr(tempfile, "SpooledTemporaryFile", CountedFile)
    in_memory = open_split(task_of(list(make_samples())), "dev", None)
    assert CountedFile.moves == 0
    assert CountedFile.size < 40 * 900, "equal histories are stored once"

    monkeypatch.setattr(static, "MEMORY_LIMIT", 64)
    on_disk = open_split(task_of(make_samples()), "dev", None)
    assert CountedFile.moves > 0
    assert list(in_memory.samples()) == list(on_disk.samples())
    assert in_memory.hash == on_disk.hash
    assert on_disk.load(25) == on_disk.load(25)


def test_every_value_is_part_of_the_hash() -> None:
    def hash_of(sample: Sample) -> str:
        return open_split(task_of([sample]), "dev", None).hash

    variants = [
        SAMPLE,
        Sample(user_id="bob", input="What of Dune?", references=("long",)),
        Sample(user_id="ann", input="What of Dune?", references=("short",)),
        Sample(user_id="ann", input="What of Dune?", references=("long",), time="2024-01-01"),
        Sample(
            user_id="ann",
            input="What of Dune?",
            references=("long",),
            history=(Record(response="a"),),
        ),
    ]
    assert len({hash_of(sample) for sample in variants}) == len(variants)
    assert hash_of(SAMPLE) == hash_of(SAMPLE)


def test_a_dataset_is_dated_if_every_record_is() -> None:
    dated, undated = Record(response="a", time="2024-01-01"), Record(response="b")

    def is_dated(*history: Record) -> bool:
        return open_split(task_of([Sample(input="x", history=history)]), "dev", None).dated

    assert is_dated(dated)
    assert not is_dated(dated, undated)
    assert not is_dated()


def test_a_history_in_another_order_than_of_time_is_reported() -> None:
    late, early = (Record(response="a", time=time) for time in ("2024-10-1", "2024-9-30"))
    backward = open_split(
        task_of([Sample(id="q", user_id="u", input="x", history=[late, early])]), "dev", None
    )
    assert backward.warnings and "1 histories are not in time order" in backward.warnings[0]
    assert (
        open_split(
            task_of([Sample(id="q", user_id="u", input="x", history=[early, late])]), "dev", None
        ).warnings
        == ()
    )


def test_splits_are_declared() -> None:
    task = task_of([SAMPLE], splits=("dev", "time/test"))
    dataset = open_split(task, "time/test", None)
    assert (dataset.separation, dataset.split) == ("time", "test")
    with pytest.raises(UsageError, match="given has no split 'train'; it has: dev, time/test"):
        open_split(task, "train", None)


# Messages ---------------------------------------------------------------------------------------


def broken_midway() -> Iterable[Sample]:
    yield SAMPLE
    raise KeyError("stars")


@pytest.mark.parametrize(
    ("samples", "message"),
    [
        ([], r"Given.load .* yields no samples"),
        (None, r"Given.load .* returns NoneType, expected samples"),
        (SAMPLE, r"Given.load .* returns Sample, expected samples"),
        ("text", r"Given.load .* returns str, expected samples"),
        ([SAMPLE, {"input": "x"}], r"sample 2: expected a Sample, got \{'input': 'x'\} \(dict\)"),
        ([Sample(id="q", input="x")] * 2, r"sample 2 \('q'\): sample 1 has the same id"),
    ],
)
def test_broken_sets_of_samples_are_named(samples: Any, message: str) -> None:
    refusal = refuse(samples)
    assert re.search(message, refusal), refusal


def test_a_failure_midway_names_the_sample_before_it() -> None:
    with pytest.raises(PluginError, match=r"Given.load after sample 1 \(.*\): .*'stars'"):
        open_samples(broken_midway())


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"input": ""}, "input is empty"),
        ({"input": None}, "input is None, expected text"),
        ({"input": "x\ud800"}, "input holds half a character at position 1"),
        ({"user_id": b"ann"}, r"user_id is b'ann' \(bytes\), expected text"),
        ({"references": [5]}, r"references\[0\] is 5 \(int\), expected text; write str\(5\)"),
        ({"references": "abc"}, r"references is 'abc' \(str\), expected a list .* write \['abc'\]"),
        ({"attributes": [1]}, r"attributes is \[1\] \(list\), expected a dictionary of texts"),
        ({"dialogue": ["hi"]}, r"dialogue\[0\] is 'hi' \(str\), expected a Message"),
        ({"evidence": [9]}, r"evidence\[0\] is 9 \(int\), expected text"),
        ({"history": [("a", 1)]}, r"history\[0\] is \('a', 1\) \(tuple\), expected a Record"),
        ({"history": {"a": 1}}, r"history is \{'a': 1\} \(dict\), expected a list or tuple"),
    ],
)
def test_broken_fields_of_a_sample_are_named(fields: dict[str, Any], message: str) -> None:
    refusal = refuse([SAMPLE, Sample(**{"id": "q", "input": "x", **fields})])
    assert re.search(rf"Given\.load .*, sample 2 \('q'\): {message}", refusal), refusal


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"response": 4.5}, r"history\[1\].response is 4.5 \(float\)"),
        ({"time": 2024}, r"history\[1\].time is 2024 \(int\)"),
        ({"response": ""}, r"history\[1\] is empty, expected"),
        ({"id": "first"}, "two records of its history have the id 'first'"),
        ({"fields": {"n": 1}}, r"history\[1\].fields\['n'\] is 1"),
    ],
)
def test_broken_fields_of_a_record_are_named(fields: dict[str, Any], message: str) -> None:
    history = [Record(id="first", response="a"), Record(**{"response": "b", **fields})]
    refusal = refuse([Sample(input="x", history=history)])
    assert re.search(message, refusal), refusal


SCALE = {"kind": "ordinal", "labels": ("1", "5")}


@pytest.mark.parametrize(
    ("attributes", "gold", "message"),
    [
        (
            {"kind": "category", "labels": ("a", "b")},
            "c",
            r"references\[0\] is 'c', expected one of: a, b",
        ),
        ({"kind": "category"}, "c", "needs `labels`, or `choices` in every sample"),
        (SCALE, "9", r"references\[0\] '9' is not a number from 1 to 5"),
        (SCALE, "good", "'good' is not a number from 1 to 5"),
    ],
)
def test_references_that_cannot_be_scored_are_named(
    attributes: dict[str, Any], gold: str, message: str
) -> None:
    refusal = refuse([Sample(input="x", references=[gold])], **attributes)
    assert re.search(message, refusal), refusal
    # A task that measures by itself decides by itself.
    own = {**attributes, "measure": lambda self, parsed, sample: {}}
    assert open_samples([Sample(input="x", references=[gold])], **own)


@pytest.mark.parametrize(
    ("attributes", "message"),
    [
        ({"kind": "catgory"}, "Given .*: kind is 'catgory', expected text or category or ordinal"),
        ({"words": None}, "Given .* has no `words`; write words = Vocabulary"),
        ({"words": Vocabulary(person=1, stimulus="a", response="b")}, "words.person is 1"),
        ({"labels": "ab"}, "labels is 'ab', expected a tuple of texts"),
        ({"history_format": "lists"}, "history_format is 'lists', expected auto or turns or list"),
        ({"splits": "dev"}, "splits is 'dev', expected a tuple of texts"),
        (
            {"kind": "ordinal"},
            r"labels is \(\), expected the whole numbers",
        ),
        ({"kind": "ordinal", "labels": ("low", "high")}, "of an ordinal task's scale"),
    ],
)
def test_broken_declarations_are_named(attributes: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        task_of([SAMPLE], **attributes)


def test_a_task_without_load_and_open_says_so() -> None:
    class Bare(Task):
        name = "bare"
        words = WORDS

    with pytest.raises(UsageError, match=r"Bare .* has neither `load`, which yields samples, nor"):
        Bare().open("dev", None)


# Use --------------------------------------------------------------------------------------------


def ask_tea(gold: str) -> list[Sample]:
    return [Sample(user_id="ann", input="Does Ann prefer tea or coffee?", references=[gold])]


def find_quote_check(task: Task) -> tuple[bool | None, str]:
    (finding,) = (
        line for line in check_task(task) if "gold answer" in line.what and "quote" in line.what
    )
    return finding.holds, finding.detail


def test_a_question_that_quotes_its_gold_is_counted_if_declared() -> None:
    holds, detail = find_quote_check(task_of(ask_tea("tea")))
    assert holds is False and "quotes_gold = True" in detail
    holds, detail = find_quote_check(task_of([*ask_tea("tea"), SAMPLE], quotes_gold=True))
    assert holds is True and detail.startswith("1 of 2 do: ")
    assert find_quote_check(task_of(ask_tea("fee")))[0] is True, "'coffee' does not quote 'fee'"


def test_data_that_changes_between_two_readings_is_reported() -> None:
    numbers = iter(range(100))

    def load(self: Task, split: str, data: Path | None) -> Iterable[Sample]:
        yield Sample(input=f"question {next(numbers)}", references=["x"])

    def is_the_same(task: Task) -> bool | None:
        (finding,) = (line for line in check_task(task) if "opened again" in line.what)
        return finding.holds

    assert is_the_same(task_of([SAMPLE])) is True
    assert is_the_same(task_of([], load=load)) is False


def test_data_may_be_a_file_only_for_tasks_that_read_files(tmp_path: Path) -> None:
    from personabench.api.registry import load_class

    file = tmp_path / "data.jsonl"
    file.write_text("{}")
    assert list(open_split(task_of([SAMPLE]), "dev", file).index())
    opening = {"open": lambda self, split, data: task_of([SAMPLE]).open(split, None)}
    assert list(open_split(task_of([], **opening, accepts_file=True), "dev", file).index())
    with pytest.raises(UsageError, match="given reads a folder of files; name the folder"):
        open_split(task_of([], **opening), "dev", file)
    with pytest.raises(UsageError, match="lamp4 reads a folder of files; name the folder"):
        open_split(load_class("task", "lamp4")(), "user/dev", file)


@pytest.mark.parametrize("method", ["none", "rag", "summary", "dpl", "copy_nearest", "full"])
def test_methods_run_on_static_tasks(method: str, answered: Callable[[Task, str], None]) -> None:
    history = [Record(stimulus=f"book {n}", response=f"review {n}") for n in range(4)]
    questions = [
        Sample(user_id=user, input="Write a review.", references=["good"], history=history)
        for user in ("ann", "bob", "cleo")
    ]
    answered(task_of(questions), method)


@pytest.fixture
def answered() -> Callable[[Task, str], None]:
    def check(task: Task, method: str) -> None:
        dataset = open_split(task, "dev", None)
        result = trial(method, task, dataset=dataset, scored=False)
        assert [line.error for line in result.predictions] == [None] * len(dataset.index())

    return check


def test_a_task_that_opens_its_data_says_so_when_it_is_loaded() -> None:
    with pytest.raises(UsageError, match=r"has no `load`: its samples come from `open`"):
        load_class("task", "lamp4")().load("user/dev", None)
