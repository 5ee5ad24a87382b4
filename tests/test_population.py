"""The population: people, merged where the data does not say who is who."""

from __future__ import annotations

import msgspec

from personabench.population import Population
from personabench.types import Record, Sample, User


def user(name: str, *records: tuple[str, str]) -> User:
    return User(name, tuple(Record(record, f"about {text}", text) for record, text in records))


def test_identified_users_stay_apart_whatever_they_share() -> None:
    users = [user("a", ("1", "x")), user("b", ("1", "x"))]
    people = Population(users, merge=False)
    assert people.users == users and people.owner("b") == "b"
    assert [(owner, record.response) for owner, record in people.records()] == [("a", "x"), ("b", "x")]


def test_users_who_share_a_record_are_one_person() -> None:
    users = [
        user("a", ("1", "x"), ("2", "y")),
        user("b", ("3", "z")),
        user("c", ("2", "y"), ("4", "w")),
        user("d", ("5", "w"), ("6", "v")),
    ]
    people = Population(users, merge=True)
    assert {name: people.owner(name) for name in "abcd"} == {"a": "a", "b": "b", "c": "a", "d": "a"}
    (one, other) = people.users
    assert (one.id, other.id) == ("a", "b")
    assert [record.id for record in one.history] == ["1", "2", "4", "5", "6"]


def test_a_shared_id_or_a_shared_text_is_enough_and_a_shared_stimulus_is_not() -> None:
    by_id = Population([user("a", ("1", "x")), user("b", ("1", "y"))], merge=True)
    by_text = Population([user("a", ("1", "x")), user("b", ("2", "x"))], merge=True)
    assert len(by_id.users) == len(by_text.users) == 1
    one, two = (User(name, (Record(name, "the same film", name),)) for name in "ab")
    assert len(Population([one, two], merge=True).users) == 2


def test_someone_unknown_is_nobody_else() -> None:
    assert Population([user("a", ("1", "x"))], merge=True).owner("stranger") == "stranger"


def test_the_hash_depends_on_who_has_what() -> None:
    base = Population([user("a", ("1", "x")), user("b", ("2", "y"))], merge=False)
    same = Population([user("a", ("1", "x")), user("b", ("2", "y"))], merge=True)
    other = Population([user("a", ("1", "x")), user("b", ("3", "y"))], merge=False)
    assert base.hash == same.hash != other.hash


def test_a_merged_history_is_oldest_first_where_it_is_dated() -> None:
    def dated(name: str, *times: str) -> User:
        return User(name, tuple(Record(f"r{time}", None, f"text {time}", time=time) for time in times))

    (person,) = Population(
        [dated("a", "2013-01-02", "2014-05-01"), dated("b", "2012-12-31", "2014-05-01")], merge=True
    ).users
    assert [record.time for record in person.history] == ["2012-12-31", "2013-01-02", "2014-05-01"]


def test_an_empty_population() -> None:
    people = Population([], merge=True)
    assert list(people.users) == list(people.records()) == [] and people.owner("a") == "a"


def test_whoever_lent_the_history_is_nobody_else() -> None:
    people = Population([user("a", ("1", "x")), user("c", ("1", "x")), user("b", ("2", "y"))], merge=True)
    sample = Sample("s", "c", "?")
    assert people.people_of(sample) == {"a"}
    assert people.people_of(msgspec.structs.replace(sample, lender="b")) == {"a", "b"}
