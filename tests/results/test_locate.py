"""What is looked up about old runs."""

from __future__ import annotations

from personabench.results.locate import find_task


def test_a_run_whose_options_the_task_takes_no_more_has_no_task() -> None:
    assert find_task("prefdisco", {"wording": "of another time"}, "") is None
    assert find_task("prefdisco", {"h": 3}, "") is None and find_task("gone", {}, "") is None
    task = find_task("prefdisco", {"max_turns": 2}, "")
    assert task is not None and task.params.max_turns == 2
