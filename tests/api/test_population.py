"""The population: all users of a split, and the users that are not peers at a sample."""

from __future__ import annotations

import msgspec

from personabench.api.population import Population
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
