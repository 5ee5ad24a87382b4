"""Plans of PRELUDE: the calls of a user whom no draft suits, which no other user passes."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from personabench.models.backends.scripted import Scripted
from personabench.run import plan, runner

pytestmark = pytest.mark.usefixtures("quick_vectors")


@pytest.mark.parametrize("name", ["none", "cipher", "icl_edit", "continual", "e_then_e"])
def test_the_plan_predicts_the_calls_of_a_user_who_always_edits(name: str, tmp_path: Path) -> None:
    options = runner.Options(
        [name],
        ["prelude_summ"],
        limit=1,
        backend="scripted",
        results=tmp_path,
        assignments=["task.rounds=15"],
    )
    (forecast,) = asyncio.run(plan.plan(options))
    (outcome,) = asyncio.run(runner.run(options, backend=Scripted()))
    spent = {phase: int(used.calls) for phase, used in outcome.summary.usage.items()}
    assert forecast.calls == spent
    assert spent["simulate"] == 30
    assert forecast.to_pay == sum(spent.values()) - sum(
        int(used.cached) for used in outcome.summary.usage.values()
    )
    row = forecast.as_dict({})
    assert row["to_pay"] <= forecast.to_pay <= row["to_pay_at_most"]


RULES = [
    "all lower case",
    "bullet points",
    "ends with a question",
    "uses an emoji",
    "opens with a greeting",
]


@pytest.mark.parametrize(
    "rule",
    [
        *(pytest.param(rule, marks=pytest.mark.variants) for rule in RULES),
        "at most 3 words",
        "at most 99 words",
    ],
)
@pytest.mark.parametrize(("method", "update"), [("none", 0), ("cipher", 12), ("e_then_e", 1)])
def test_no_rule_is_kept_by_what_a_plan_takes_for_a_draft(
    method: str, update: int, rule: str, tmp_path: Path
) -> None:
    sources = [{"name": source, "rules": [rule]} for source in ("alpha", "beta")]
    (tmp_path / "summ.json").write_text(json.dumps({"env": "summ", "sources": sources}))
    for source in ("alpha", "beta"):
        rows = [{"doc_id": f"{source}{n}", "text": f"Note {n} about {source}"} for n in range(6)]
        (tmp_path / f"{source}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    options = runner.Options(
        [method], ["prelude_summ"], data=tmp_path, backend="scripted", results=tmp_path / "results",
        assignments=["task.user=rule", "task.rounds=12", "task.trajectories=1"],
    )  # fmt: skip
    (forecast,) = asyncio.run(plan.plan(options))
    assert forecast.calls == {"predict": 23 if method == "cipher" else 12} | (
        {"update": update} if update else {}
    )
    (outcome,) = asyncio.run(runner.run(options, backend=Scripted()))
    calls = sum(used.calls for used in outcome.summary.usage.values())
    row = forecast.as_dict({})
    assert calls <= row["calls_at_most"]
    assert calls <= row["to_pay_at_most"]


def make_accepting_user(one_in: int) -> Callable[[Any], str]:
    """A user who accepts one draft in so many, 0 for none at all."""
    looked = 0

    def answer(request: Any) -> str:
        nonlocal looked
        if "yes or no" not in request.messages[-1].content:
            return f"Mine, number {looked}."
        looked += 1
        return "yes" if one_in and looked % one_in == 0 else "no"

    return answer


@pytest.mark.parametrize(
    ("method", "calls", "half", "all_"),
    [
        pytest.param("none", 120, 20, 50, marks=pytest.mark.variants),
        pytest.param("icl_edit", 120, 20, 50, marks=pytest.mark.variants),
        pytest.param("continual", 159, 14, 33, marks=pytest.mark.variants),
        pytest.param("e_then_e", 121, 20, 50, marks=pytest.mark.variants),
        # Vectors by marker find the same neighbours again, so that most merges are one call.
        ("cipher", 165, 32, 106),
        pytest.param("cipher k=1", 160, 33, 100, marks=pytest.mark.variants),
    ],
)
def test_a_plan_bounds_the_calls_of_a_user_who_accepts_drafts(
    method: str, calls: int, half: int, all_: int, tmp_path: Path
) -> None:
    """By as much as the task's page says of distinct calls, for its 40 bundled rounds."""
    name, *assignments = method.split()
    for one_in, over in ((0, 0), (2, half), (1, all_)):
        options = runner.Options(
            [name], ["prelude_summ"], limit=1, backend="scripted", results=tmp_path / f"{one_in}",
            assignments=assignments,
        )  # fmt: skip
        (forecast,) = asyncio.run(plan.plan(options))
        user = Scripted(answer=make_accepting_user(one_in))
        (outcome,) = asyncio.run(runner.run(options, backend=Scripted(), roles={"simulator": user}))
        made_calls = sum(used.calls for used in outcome.summary.usage.values())
        row = forecast.as_dict({})
        assert forecast.total == calls
        assert row["calls"] <= made_calls <= calls <= row["calls_at_most"]
        assert 100 * (calls / made_calls - 1) == pytest.approx(over, abs=1.5)
