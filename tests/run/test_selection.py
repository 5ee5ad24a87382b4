"""The users of a run: drawn by a seed, or those with the longest histories."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from engine_fixtures import options

from personabench.api import registry
from personabench.api.dataset import Dataset
from personabench.api.users import open_split
from personabench.errors import UsageError
from personabench.leaderboard import boards
from personabench.results.index import read_runs
from personabench.run import runner
from personabench.run.controls import apply_control
from personabench.run.merge import find_shards, merge_shards
from personabench.run.runner import Outcome
from personabench.run.selection import select
from personabench.run.shards import Shard


def example(task: str = "lamp4") -> Dataset:
    opened = registry.load_class("task", task)()
    return open_split(opened, opened.default_split, None)


def lengths_of(dataset: Dataset) -> dict[str, int]:
    lengths: dict[str, int] = {}
    for sample in dataset.samples():
        lengths[sample.user_id] = max(lengths.get(sample.user_id, 0), len(sample.history))
    return lengths


def users_of(dataset: Dataset, positions: list[int]) -> list[str]:
    index = dataset.index()
    return list(dict.fromkeys(index[position][1] for position in positions))


def select_longest(dataset: Dataset, count: int | None = None, seed: int = 0) -> list[int]:
    return select(dataset, None, seed, count, longest=True)


def test_the_longest_histories_come_first_and_ties_by_id() -> None:
    dataset = example()
    lengths = lengths_of(dataset)
    expected = sorted(lengths, key=lambda user: (-lengths[user], user))
    assert len(set(lengths.values())) < len(lengths), "there are ties"
    assert users_of(dataset, select_longest(dataset)) == expected
    assert expected != users_of(dataset, select(dataset, None, 0))
    # Whatever the seed; and a smaller number is the beginning of a larger one.
    four = select_longest(dataset, 4)
    assert select_longest(dataset, 9, seed=3)[: len(four)] == four


@pytest.mark.parametrize("control", ["none", "size=1", "shuffled"])
def test_a_control_has_the_users_of_the_run_that_it_is_compared_with(control: str) -> None:
    dataset = example()
    assert select_longest(apply_control(dataset, control, 0), 5) == select_longest(dataset, 5)


def test_users_without_histories_cannot_be_ordered() -> None:
    with pytest.raises(UsageError, match=r"--users longest:3: no user of .* has a history"):
        select_longest(example("penguin"), 3)


def run(results: Path, users: int, *, longest: bool = True, **changes: Any) -> Outcome:
    chosen = options(results, users=users, longest=longest, **changes)
    (outcome,) = asyncio.run(runner.run(chosen))
    return outcome


def test_a_larger_number_extends_the_run_and_a_draw_is_another_run(tmp_path: Path) -> None:
    four = run(tmp_path, 4)
    six = run(tmp_path, 6)
    drawn = run(tmp_path, 6, longest=False)
    assert six.folder == four.folder != drawn.folder
    assert (four.summary.users, six.summary.users, drawn.summary.users) == (4, 6, 6)
    assert (six.summary.selection, drawn.summary.selection) == ("longest", "")
    # The calls of the first four are in the run's own ledger, and nothing is called again.
    assert run(tmp_path, 6).summary.usage == six.summary.usage

    (board,) = boards(read_runs(tmp_path))
    settings = {row.label: row.setting for row in board.rows}
    assert settings.keys() == {"none", "none (users=longest)"}
    # Rows of other users are of another setting, so no test compares them.
    assert len(set(settings.values())) == 2
    assert any("Users of 1 of 2 runs: those with the longest" in note for note in board.notes)


def test_shards_of_the_longest_are_merged_into_the_run_that_was_never_split(
    tmp_path: Path,
) -> None:
    whole = run(tmp_path / "whole", 5)
    parts = tmp_path / "parts"
    for number in (1, 2):
        shard = Shard(number, 2)
        run(shard.results(parts), 5, shard=shard)
    ((name, shards),) = find_shards(parts).items()
    merged = merge_shards(parts, name, shards, data=None)
    assert merged.summary.fingerprint == whole.summary.fingerprint
    assert merged.summary.metrics == whole.summary.metrics
    assert merged.summary.selection == "longest"
