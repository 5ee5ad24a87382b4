"""Controls on histories: none, the newest N, somebody else's."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

import pytest
from engine_fixtures import Jittery, options

from personabench.api import registry
from personabench.api.dataset import Dataset
from personabench.errors import UsageError
from personabench.models.backends.base import BackendOptions
from personabench.models.backends.scripted import Scripted
from personabench.results.run_folder import RunFolder
from personabench.run import runner
from personabench.run.controls import apply_control
from personabench.types import Record, Sample, User


class People(Dataset):
    """Users as a mapping of names to the texts of their records; two samples each, the second sees
    one record more."""

    separation, split, hash, source, dated = "user", "dev", "h", "people", True

    def __init__(self, texts: dict[str, Sequence[str]]) -> None:
        self.texts = texts

    def index(self) -> Sequence[tuple[str, str]]:
        return [(f"{user}-{number}", user) for user in self.texts for number in range(2)]

    def load(self, position: int) -> Sample:
        name, user = self.index()[position]
        shown = self.texts[user][: len(self.texts[user]) - 1 + position % 2]
        history = tuple(Record(f"{user}{at}", None, text) for at, text in enumerate(shown))
        return Sample(name, user, "what now?", history=history, references=("gold",))


def responses(sample: Sample) -> list[str]:
    return [record.response for record in sample.history]


MANY = {
    f"u{user:02d}": [f"text {user}.{number}" for number in range(2 + user % 5)]
    for user in range(40)
}


def test_own_is_the_dataset_itself_and_others_are_refused() -> None:
    people = People(MANY)
    assert apply_control(people, "own", 0) is people
    for wrong in ("", "size", "size=", "size=-1", "size=x", "Shuffled"):
        with pytest.raises(UsageError, match="choose own, none, shuffled or size=N"):
            apply_control(people, wrong, 0)


def test_size_keeps_the_newest_and_none_keeps_nothing() -> None:
    people = People(MANY)
    assert not any(sample.history for sample in apply_control(people, "none", 0).samples())
    assert not any(sample.history for sample in apply_control(people, "size=0", 0).samples())
    for own, cut in zip(
        people.samples(), apply_control(people, "size=2", 0).samples(), strict=True
    ):
        assert cut.history == own.history[-2:]
        assert (cut.id, cut.references, cut.input) == (own.id, own.references, own.input)


def test_a_controlled_dataset_keeps_its_index_facts_and_population() -> None:
    people = People(MANY)
    for control in ("none", "size=1", "shuffled"):
        seen = apply_control(people, control, 0)
        assert seen.index() == people.index() and list(seen.population()) == list(
            people.population()
        )
        assert (seen.source, seen.hash, seen.dated, seen.identified) == ("people", "h", True, True)


@pytest.mark.parametrize(
    "task", ["lamp1", "lamp2m", "lamp2n", "lamp3", "lamp4", "lamp5", "lamp6", "lamp7"]
)
@pytest.mark.parametrize("seed", [0, 1])
def test_acceptance_13_shuffled_never_gives_own_entries(task: str, seed: int) -> None:
    dataset = registry.load_class("task", task)().open("user/dev", None)
    owners: dict[str, set[tuple[str | None, str]]] = {}
    for user in dataset.population():
        owners[user.id] = {(record.stimulus, record.response) for record in user.history}
    for own, lent in zip(
        dataset.samples(), apply_control(dataset, "shuffled", seed).samples(), strict=True
    ):
        entries = {(record.stimulus, record.response) for record in lent.history}
        assert entries and not entries & owners[own.user_id]
        assert any(entries <= other for user, other in owners.items() if user != own.user_id)
        assert len(lent.history) <= len(own.history)


def test_acceptance_13_one_owner_lends_to_all_samples_of_a_user_and_sizes_match() -> None:
    people = People(MANY)
    lent = list(apply_control(people, "shuffled", 3).samples())
    for first, second in zip(lent[::2], lent[1::2], strict=True):
        donors = {text.split(".")[0] for text in responses(first) + responses(second)}
        assert len(donors) == 1 and donors != {f"text {int(first.user_id[1:])}"}
    for own, other in zip(people.samples(), lent, strict=True):
        assert len(other.history) == len(own.history)


def test_acceptance_13_the_seed_and_nothing_else_decides() -> None:
    people = People(MANY)
    forwards = [responses(sample) for sample in apply_control(people, "shuffled", 5).samples()]
    shuffled = apply_control(people, "shuffled", 5)
    backwards = [responses(shuffled.load(position)) for position in reversed(range(80))]
    assert backwards[::-1] == forwards
    assert [
        responses(sample) for sample in apply_control(people, "shuffled", 6).samples()
    ] != forwards


def test_acceptance_13_the_same_at_any_concurrency(tmp_path: Path) -> None:
    scores = []
    for concurrency in (1, 64):
        chosen = options(
            tmp_path / str(concurrency), "rag", history="shuffled", concurrency=concurrency
        )
        (out,) = asyncio.run(runner.run(chosen, backend=Jittery()))
        lines = {line.sample_id: line.output for line in RunFolder(out.folder).iter_predictions()}
        scores.append((lines, (out.folder / "scores.jsonl").read_bytes()))
        assert out.summary.history == "shuffled"
    assert scores[0] == scores[1]


def test_nobody_who_shares_an_entry_lends() -> None:
    people = People(
        {"a": ["x", "y", "z"], "b": ["x", "q", "r"], "c": ["k", "l", "m"], "d": ["z", "m", "n"]}
    )
    lent = {
        sample.id: responses(sample) for sample in apply_control(people, "shuffled", 0).samples()
    }
    assert lent["a-1"] == ["k", "l", "m"] and lent["a-0"] == ["l", "m"]
    assert lent["c-1"] in (["x", "y", "z"], ["x", "q", "r"])


def test_who_has_nobody_to_borrow_from_gets_nothing() -> None:
    people = People({"a": ["x", "y"], "b": ["y", "z"]})
    assert [responses(sample) for sample in apply_control(people, "shuffled", 0).samples()] == [
        [],
        [],
        [],
        [],
    ]


def test_the_longest_lends_where_none_is_long_enough() -> None:
    people = People({"a": list("abcdefgh"), "b": ["p", "q"], "c": ["r", "s", "t"]})
    assert responses(apply_control(people, "shuffled", 0).load(1)) == ["r", "s", "t"]


def test_the_population_holds_the_longest_history_and_no_gold() -> None:
    users = list(People(MANY).population())
    assert [user.id for user in users] == sorted(MANY) and all(
        isinstance(user, User) for user in users
    )
    assert all(len(user.history) == len(MANY[user.id]) for user in users)


def test_a_control_of_histories_is_refused_where_there_are_none(tmp_path: Path) -> None:
    for history in ("shuffled", "none", "size=2"):
        with pytest.raises(UsageError, match="users of prelude_summ have no history"):
            asyncio.run(runner.run(options(tmp_path, "none", "prelude_summ", history=history)))


def test_samples_without_a_donor_and_with_a_short_one_are_counted() -> None:
    alike = {"a": ["same", "a2", "a3"], "b": ["same", "b2", "b3"]}
    people = apply_control(People(alike), "shuffled", 0)
    assert [people.flags(at) for at in range(4)] == [{"no_donor": 1.0}] * 4
    uneven = apply_control(
        People({"long": ["l1", "l2", "l3", "l4"], "short": ["s1", "s2"]}), "shuffled", 0
    )
    assert [uneven.flags(at) for at in range(4)] == [{"short_donor": 1.0}] * 2 + [{}] * 2
    assert [len(uneven.load(at).history) for at in range(4)] == [2, 2, 1, 2]
    assert People(alike).flags(0) == apply_control(People(alike), "size=1", 0).flags(0) == {}


def test_an_adapter_for_each_user_is_no_shuffled_history(tmp_path: Path) -> None:
    for adapter, refused in (("of-{user_id}", True), ("one", False), (None, False)):
        model = Scripted(BackendOptions(adapter=adapter))
        asked = runner.run(
            options(tmp_path / str(adapter), "none", "lamp4", history="shuffled", limit=1),
            backend=model,
        )
        if refused:
            with pytest.raises(UsageError, match="each user's own adapter would answer"):
                asyncio.run(asked)
        else:
            asyncio.run(asked)
        assert bool(model.requests) is not refused


class Asked(People):
    """Dated: two users were asked about days that the other has a record of, one of them before
    that record."""

    def load(self, position: int) -> Sample:
        name, user = self.index()[position]
        other = {"a": "b", "b": "a"}[user]
        days = [
            Record(
                f"{user}{day}", f"Day {day} of {user}!", f"{user} said {day}", time=f"2020-01-{day}"
            )
            for day in range(1, 7)
        ]
        return Sample(
            name,
            user,
            "?",
            f"day 3 of {other}",
            tuple(days),
            time="2020-01-5" if user == "a" else None,
        )


def test_what_the_owner_is_asked_about_and_what_is_newer_than_the_question_is_not_lent() -> None:
    lent = apply_control(Asked({"a": "xx", "b": "xx"}), "shuffled", 0)
    assert [record.id for record in lent.load(0).history] == ["b1", "b2", "b4", "b5"]
    assert [record.id for record in lent.load(2).history] == ["a1", "a2", "a4", "a5", "a6"]
    assert [sample.history_owner for sample in lent.samples()] == ["b", "b", "a", "a"]
    assert lent.flags(0) == lent.flags(2) == {"short_donor": 1.0}
