"""The population: all users of a split, and the users that are not peers at a sample."""

from __future__ import annotations

import msgspec
from toy_methods import Days

from personabench.api.population import Population, read_population
from personabench.types import Record, Sample, User


def user(name: str, *records: tuple[str, str]) -> User:
    return User(name, tuple(Record(record, f"about {text}", text) for record, text in records))


def test_users_with_equal_records_stay_separate() -> None:
    users = [user("a", ("1", "x")), user("b", ("1", "x"))]
    population = Population(users)
    assert population.users == users
    assert [(user_id, record.response) for user_id, record in population.records()] == [
        ("a", "x"),
        ("b", "x"),
    ]


def test_the_hash_depends_on_users_and_their_records() -> None:
    base = Population([user("a", ("1", "x")), user("b", ("2", "y"))])
    changed = Population([user("a", ("1", "x")), user("b", ("3", "y"))])
    assert base.hash == Population(iter(base.users)).hash != changed.hash


def test_an_empty_population() -> None:
    population = Population([])
    assert list(population.users) == list(population.records()) == []


def test_the_history_owner_is_not_a_peer() -> None:
    population = Population([user("a", ("1", "x")), user("b", ("2", "y"))])
    sample = Sample("s", "a", "?")
    assert population.non_peers(sample) == {"a"}
    assert population.non_peers(msgspec.structs.replace(sample, history_owner="b")) == {"a", "b"}


def test_equal_histories_are_held_once() -> None:
    population = Population([user("a", ("1", "x"), ("2", "y"))])
    (held,) = population.users
    sample = Sample("s", "a", "?", history=user("a", ("1", "x")).history)
    shared = population.share_history(sample)
    assert shared == sample and shared.history[0] is held.history[0]

    # Another history of the user stays as it is, and so does that of a user outside the split.
    others = [user("a", ("1", "z")), user("a", ("2", "y")), user("c", ("1", "x"))]
    for other in others:
        sample = Sample("s", other.id, "?", history=other.history)
        assert population.share_history(sample).history[0] is other.history[0]


def test_what_a_method_derives_is_built_once_by_its_key() -> None:
    population = Population([user("a", ("1", "x"))])
    first = population.derive(("sizes", 1), lambda: [len(population.users)])
    assert population.derive(("sizes", 1), lambda: []) is first
    assert population.derive(("sizes", 2), lambda: [2]) == [2]


def test_the_population_of_a_dataset_is_read_once() -> None:
    dataset = Days()
    population = read_population(dataset)
    assert [one.id for one in population.users] == ["a", "b", "c"]
    assert read_population(dataset) is population
    assert read_population(Days()) is not population
