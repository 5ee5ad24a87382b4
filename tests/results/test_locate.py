"""What is looked up about old runs."""

from __future__ import annotations

from personabench.results.locate import task_of


def test_a_run_whose_options_the_task_takes_no_more_has_no_task() -> None:
    assert task_of("prefdisco", {"wording": "of another time"}, "") is None
    assert task_of("prefdisco", {"h": 3}, "") is None and task_of("gone", {}, "") is None
    task = task_of("prefdisco", {"max_turns": 2}, "")
    assert task is not None and task.params.max_turns == 2
