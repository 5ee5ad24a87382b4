"""Conformance checks without a model: they hold, fail, or cannot be made."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from personabench import Context, Message, Method, Sample
from personabench.api import registry
from personabench.errors import UsageError
from personabench.testing.checks import check_method, check_task
from personabench.testing.finding import Finding

LATE = "nothing later than its sample is visible"


def check_dates(name: str, split: str) -> Finding:
    findings = check_task(registry.load_class("task", name)(), split, None)
    return next(finding for finding in findings if finding.what == LATE)


def test_the_order_of_undated_data_is_not_checkable() -> None:
    assert check_dates("lamp4", "user/dev") == Finding(LATE, None, "not dated: not checkable")
    dated = check_dates("reviews", registry.load_class("task", "reviews").default_split)
    assert dated.holds and "samples are dated" in dated.detail


@pytest.mark.parametrize(
    "task",
    [
        "lamp4",
        *(pytest.param(name, marks=pytest.mark.variants) for name in ("personamem", "prefdisco")),
    ],
)
def test_hidden_facts_in_a_prompt_are_detected(monkeypatch: pytest.MonkeyPatch, task: str) -> None:
    class Nosy(Method):
        name = "nosy"

        async def predict(self, sample: Sample, state: Any, ctx: Context) -> str:
            return (
                await ctx.complete([Message("user", str(dict(sample.hidden)))], max_tokens=9)
            ).text

    class Oracle(Nosy):
        name = "oracle"
        privileged = True

    leak_check = "no prompt or answer contains anything hidden"

    def run_checks(method: type[Method]) -> dict[str, bool | None]:
        return {finding.what: finding.holds for finding in check_method(method(), task, limit=2)}

    assert run_checks(Nosy)[leak_check] is True
    assert leak_check not in run_checks(Oracle)
    monkeypatch.setattr(
        Sample, "view", lambda self, privileged=False: msgspec.structs.replace(self, references=())
    )
    leaking = run_checks(Nosy)
    assert leaking[leak_check] is False
    assert leaking["no prompt or answer contains a reference"] is True


def test_the_example_is_declared_by_a_task(monkeypatch: pytest.MonkeyPatch) -> None:
    assert registry.load_class("task", registry.example_task()).example
    monkeypatch.setattr(registry, "list_entries", lambda kind: {})
    with pytest.raises(UsageError, match="--task"):
        registry.example_task()
