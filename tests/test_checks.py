"""`personabench check` without a model: what holds, what does not, and what nobody can tell."""

from __future__ import annotations

import pytest

from personabench import registry
from personabench.checks import Finding, check_task
from personabench.errors import UsageError

LATE = "nothing later than its sample is visible"


def about_time(name: str, split: str) -> Finding:
    findings = check_task(registry.load("task", name)(), split, None)
    return next(finding for finding in findings if finding.what == LATE)


def test_data_without_dates_is_not_said_to_be_in_order() -> None:
    assert about_time("lamp4", "user/dev") == Finding(LATE, None, "not dated: not checkable")
    dated = about_time("reviews", registry.load("task", "reviews").default_split)
    assert dated.holds and "samples are dated" in dated.detail


def test_the_example_is_declared_by_a_task(monkeypatch: pytest.MonkeyPatch) -> None:
    assert registry.load("task", registry.example_task()).example
    monkeypatch.setattr(registry, "entries", lambda kind: {})
    with pytest.raises(UsageError, match="--task"):
        registry.example_task()
