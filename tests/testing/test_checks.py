"""`personabench check` without a model: what holds, what does not, and what nobody can tell."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from personabench import Context, Message, Method, Sample
from personabench.api import registry
from personabench.errors import UsageError
from personabench.testing.checks import Finding, check_method, check_task

LATE = "nothing later than its sample is visible"


def about_time(name: str, split: str) -> Finding:
    findings = check_task(registry.load("task", name)(), split, None)
    return next(finding for finding in findings if finding.what == LATE)


def test_data_without_dates_is_not_said_to_be_in_order() -> None:
    assert about_time("lamp4", "user/dev") == Finding(LATE, None, "not dated: not checkable")
    dated = about_time("reviews", registry.load("task", "reviews").default_split)
    assert dated.holds and "samples are dated" in dated.detail


@pytest.mark.parametrize("task", ["lamp4", "personamem", "prefdisco"])
def test_what_is_hidden_and_gets_into_a_prompt_is_found(
    monkeypatch: pytest.MonkeyPatch, task: str
) -> None:
    class Nosy(Method):
        name = "nosy"

        async def predict(self, sample: Sample, state: Any, ctx: Context) -> str:
            return (
                await ctx.complete([Message("user", str(dict(sample.hidden)))], max_tokens=9)
            ).text

    class Oracle(Nosy):
        name = "oracle"
        privileged = True

    what = "no prompt contains anything hidden"

    def found(method: type[Method]) -> dict[str, bool | None]:
        return {finding.what: finding.holds for finding in check_method(method(), task, limit=2)}

    assert found(Nosy)[what] is True and what not in found(Oracle)
    monkeypatch.setattr(
        Sample, "view", lambda self, privileged=False: msgspec.structs.replace(self, references=())
    )
    leaking = found(Nosy)
    assert leaking[what] is False and leaking["no prompt contains a reference"] is True


def test_the_example_is_declared_by_a_task(monkeypatch: pytest.MonkeyPatch) -> None:
    assert registry.load("task", registry.example_task()).example
    monkeypatch.setattr(registry, "entries", lambda kind: {})
    with pytest.raises(UsageError, match="--task"):
        registry.example_task()
