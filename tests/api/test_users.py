"""Joining questions into users: by half a history, never by one record."""

from __future__ import annotations

import asyncio
import itertools
import json
import random
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from engine_fixtures import options
from unnamed_users import Nameless

from personabench.api import registry
from personabench.api.dataset import Dataset
from personabench.api.population import Population
from personabench.api.users import JoinedUsers, Marks, find_coinciding, open_split
from personabench.leaderboard import boards
from personabench.results.frames import load
from personabench.results.index import read_runs
from personabench.results.locate import find_dataset
from personabench.results.run_folder import RunFolder
from personabench.run import runner
from personabench.run.controls import apply_control
from personabench.run.selection import select
from personabench.run.shards import partition
from personabench.tasks import lamp
from personabench.types import Record

LAMP = ["lamp1", "lamp2m", "lamp2n", "lamp3", "lamp4", "lamp5", "lamp6", "lamp7"]


def records(*texts: str) -> list[Record]:
    """Records from "film tag" texts; their ids repeat in every history."""
    history = []
    for index, text in enumerate(texts):
        film, tag = text.split()
        history.append(Record(str(index), film, tag))
    return history


def users(**histories: list[Record]) -> dict[str, str]:
    return dict(JoinedUsers(Nameless(histories)).index())


def without_ids(task: str, folder: Path) -> Path:
    """Write a task's example data without user ids, as in the files of the user separation."""
    sample = Path(lamp.__file__).with_name("sample") / task
    folder.mkdir()
    questions = json.loads((sample / "dev_questions.json").read_text())
    for question in questions:
        del question["user_id"]
    (folder / "dev_questions.json").write_text(json.dumps(questions))
    (folder / "dev_outputs.json").write_bytes((sample / "dev_outputs.json").read_bytes())
    return folder


@pytest.mark.parametrize("task", LAMP)
def test_users_of_the_example_data_are_recovered_without_their_ids(
    task: str, tmp_path: Path
) -> None:
    opened = registry.load_class("task", task)()
    true = dict(opened.open("user/dev", None).index())
    joined = dict(open_split(opened, "user/dev", without_ids(task, tmp_path / task)).index())
    pairs = list(itertools.combinations(sorted(true), 2))
    expected = [true[first] == true[second] for first, second in pairs]
    actual = [joined[first] == joined[second] for first, second in pairs]
    assert actual == expected


def test_half_of_the_smaller_history_and_two_records_make_one_user() -> None:
    five = records("f1 war", "f2 war", "f3 war", "f4 war", "f5 war")
    assert users(q=five, half=records("f1 war", "f2 war", "g1 war", "g2 war"))["half"] == "q"
    assert (
        users(q=five, less=records("f1 war", "f2 war", "g1 war", "g2 war", "g3 war"))["less"]
        == "less"
    )
    assert users(q=five, one=records("f1 war"))["one"] == "one"
    assert users(q=five, tiny=records("f1 war", "f2 war"))["tiny"] == "q"
    assert (
        users(q=five, other_tags=records("f1 joy", "f2 joy", "f3 joy"))["other_tags"]
        == "other_tags"
    )
    assert (
        users(q=records("f1 war", "f1 war"), twice=records("f1 war", "f1 war"))["twice"] == "twice"
    )
    assert users(q=[], empty=[]) == {"q": "q", "empty": "empty"}


def test_many_peers_with_a_shared_record_stay_separate() -> None:
    crowd = {
        f"q{number}": records(f"f{number} war", f"f{number + 1} war", f"own{number} war")
        for number in range(50)
    }
    peers = {
        f"p{number}": records("hit war", f"a{number} x", f"b{number} x") for number in range(50)
    }
    joined = users(**crowd, **peers)
    assert all(user_id == sample_id for sample_id, user_id in joined.items())


def test_pairs_chain_and_the_first_id_names_the_user_whatever_the_order() -> None:
    parts = {
        f"q{start}": records(*(f"f{n} war" for n in range(start, start + 4)))
        for start in (0, 2, 4, 20)
    }
    joined = {"q0": "q0", "q2": "q0", "q4": "q0", "q20": "q20"}
    assert users(**parts) == joined
    assert users(**dict(reversed(parts.items()))) == joined


def test_ids_of_the_data_are_kept_and_never_joined() -> None:
    same = records("f1 war", "f2 war", "f3 war")
    named = JoinedUsers(
        Nameless({"q1": same, "q2": same, "q3": same, "q4": same[:1]}, {"q2": "ann", "q3": "ben"})
    )
    assert dict(named.index()) == {"q1": "ann", "q2": "ann", "q3": "ben", "q4": "q4"}
    assert named.user_counts() == {"named": 2, "joined": 0, "single": 1}


def test_a_joined_user_has_the_records_of_all_questions_once_oldest_first() -> None:
    def dated(*years: str) -> list[Record]:
        return [
            Record(str(index), None, f"in {year}", time=year) for index, year in enumerate(years)
        ]

    data = JoinedUsers(
        Nameless(
            {"q1": dated("2013", "2014", "2016"), "q2": dated("2012", "2013", "2014"), "q3": []}
        )
    )
    joined, single = data.population()
    assert (joined.id, [record.time for record in joined.history]) == (
        "q1",
        ["2012", "2013", "2014", "2016"],
    )
    assert (single.id, single.history) == ("q3", ())
    assert [len(sample.history) for sample in data.samples()] == [3, 3, 0]
    assert [sample.user_id for sample in data.samples()] == ["q1", "q1", "q3"]
    assert data.user_counts() == {"named": 0, "joined": 1, "single": 1}


def test_selection_shards_and_shuffled_histories_go_by_joined_users() -> None:
    histories = {
        f"p{person}-{question}": records(
            *(f"f{person}.{n} war" for n in range(question, question + 4))
        )
        for question in range(3)
        for person in range(6)
    }
    data = JoinedUsers(Nameless(histories))
    positions_by_user = [
        [index for index, (name, _) in enumerate(data.index()) if name[:3] == f"p{person}-"]
        for person in range(6)
    ]
    chosen = select(data, 1, 0)
    assert sorted(chosen) in positions_by_user
    shards = partition(data, select(data, None, 0), 3)
    for positions in positions_by_user:
        assert len({shards[position] for position in positions}) == 1
    for sample in apply_control(data, "shuffled", 0).samples():
        person = sample.id.split("-")[0]
        assert sample.history and sample.history_owner != f"{person}-0"
        assert not any(
            (record.stimulus or "").startswith(f"f{person[1:]}.") for record in sample.history
        )


def test_identified_data_is_returned_unread() -> None:
    class Named(Nameless):
        identified = True

        def load(self, position: int) -> Any:
            raise AssertionError("read")

    class Task(registry.load_class("task", "lamp4")):  # type: ignore[misc]
        def open(self, split: str, data: Path | None) -> Dataset:
            return opened

    opened = Named({"q": []})
    assert open_split(Task(), "dev", None) is opened


def test_a_run_counts_its_users_and_their_questions_as_one_cluster(tmp_path: Path) -> None:
    data = without_ids("lamp2m", tmp_path / "data")
    run_options = options(tmp_path / "r", "none,rag", "lamp2m", data=data)
    outcomes = asyncio.run(runner.run(run_options))
    for outcome in outcomes:
        assert (outcome.summary.n, outcome.summary.users) == (46, 13)
        assert outcome.summary.user_ids == {"named": 0, "joined": 13, "single": 0}
        assert "46 questions are taken for 13 users" in "".join(outcome.summary.warnings)
    scores = load(tmp_path / "r").samples
    assert len(set(scores["user_id"])) == 13
    (board,) = boards(read_runs(tmp_path / "r"))
    assert "Users of the split: 0 named by the data, 13 joined" in " ".join(board.notes)
    assert {row.users for row in board.rows} == {13}
    summary = RunFolder(outcomes[0].folder).summary()
    dataset = find_dataset(registry.load_class("task", "lamp2m")(), summary, str(data))
    assert dataset is not None
    assert len({user_id for _, user_id in dataset.index()}) == 13
    assert len(Population(dataset.population()).users) == 13


def test_coinciding_pairs_are_exact() -> None:
    rng = random.Random(0)
    for _ in range(100):
        histories = [_draw_history(rng) for _ in range(12)]
        pairs = set(find_coinciding(histories))
        for first, second in itertools.combinations(range(12), 2):
            expected = _coincide(set(histories[first]), set(histories[second]))
            assert (first, second) not in pairs or expected
            assert not expected or _is_connected(pairs, first, second)


def _draw_history(rng: random.Random) -> Marks:
    marks = [rng.randrange(12) for _ in range(rng.randrange(7))]
    return np.unique(np.array(marks, dtype=np.int64))


def _coincide(first: set[int], second: set[int]) -> bool:
    smaller = min(len(first), len(second))
    return len(first & second) >= max(2, smaller / 2)


def _is_connected(pairs: set[tuple[int, int]], start: int, goal: int) -> bool:
    reached = {start}
    size = 0
    while len(reached) > size:
        size = len(reached)
        for pair in pairs:
            if reached & set(pair):
                reached |= set(pair)
    return goal in reached


def test_thousands_of_histories_with_common_records_take_seconds() -> None:
    rng = np.random.default_rng(0)
    common = np.arange(20)
    histories = [
        np.unique(np.concatenate([common, rng.integers(100, 1 << 60, 180)])) for _ in range(5000)
    ]
    started = time.monotonic()
    assert list(find_coinciding([*histories, histories[7][:150]])) == [(7, 5000)]
    assert time.monotonic() - started < 60
