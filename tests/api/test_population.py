"""The population: everybody of a split, and who is nobody else at a sample."""

from __future__ import annotations

import msgspec

from personabench.api.population import Population
from personabench.types import Record, Sample, User


def user(name: str, *records: tuple[str, str]) -> User:
    return User(name, tuple(Record(record, f"about {text}", text) for record, text in records))


def test_users_stay_apart_whatever_they_share() -> None:
    users = [user("a", ("1", "x")), user("b", ("1", "x"))]
    people = Population(users)
    assert people.users == users
    assert [(owner, record.response) for owner, record in people.records()] == [
        ("a", "x"),
        ("b", "x"),
    ]


def test_the_hash_depends_on_who_has_what() -> None:
    base = Population([user("a", ("1", "x")), user("b", ("2", "y"))])
    other = Population([user("a", ("1", "x")), user("b", ("3", "y"))])
    assert base.hash == Population(iter(base.users)).hash != other.hash


def test_an_empty_population() -> None:
    people = Population([])
    assert list(people.users) == list(people.records()) == []


def test_whoever_lent_the_history_is_nobody_else() -> None:
    people = Population([user("a", ("1", "x")), user("b", ("2", "y"))])
    sample = Sample("s", "a", "?")
    assert people.people_of(sample) == {"a"}
    assert people.people_of(msgspec.structs.replace(sample, history_owner="b")) == {"a", "b"}
