"""The bounds of a plan contain the truth, whatever the length of the replies."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from engine_fixtures import options

from personabench.api import registry
from personabench.api.compatibility import judge_fit
from personabench.hashing import digest
from personabench.models.backends.scripted import Scripted, fill_schema, letters
from personabench.run import runner
from personabench.run.plan import plan
from personabench.types import Request, to_json

TASKS = ("lamp3", "lamp4", "reviews")
QUICK = {("lamp4", name) for name in ("summary", "cipher", "compsum")}
METHODS = {
    entry.name: registry.load_class("method", entry.name)
    for entry in registry.list_entries("method").values()
    if entry.origin == "built-in" and not entry.facts.get("external")
}
METHODS |= {
    name: registry.load_class("method", name) for name in ("rag+self_critic", "rag+self_recheck")
}
PRICES = {"scripted": {"input": 1.0, "output": 3.0}}


def cells() -> list[Any]:
    parameters = []
    for task in TASKS:
        task_class = registry.load_class("task", task)
        for name, method_class in METHODS.items():
            if judge_fit(method_class, task_class)[0] == "refused":
                continue
            marks = () if (task, name) in QUICK else (pytest.mark.variants,)
            parameters.append(pytest.param(task, name, marks=marks, id=f"{task}-{name}"))
    return parameters


def speaker(task: str, share: float) -> Callable[[Request], str]:
    """Replies that fill a share of their allowance: labels, texts and lists as a model gives them,
    some with the headings that a method reads, some without."""
    labels = registry.load_class("task", task)().labels

    def answer(request: Request) -> str:
        name = letters(digest(request.messages))
        number = int(digest([name, "choice"])[:6], 16)
        size = max(1, int(3 * share * request.max_tokens))
        if request.schema is not None:
            return fill(request, name, number, size)
        words = (f"{name} says " * (size // 8 + 1))[:size].strip()
        if labels and request.max_tokens <= 16:
            return f"{labels[number % len(labels)]}"
        if number % 2:
            return words
        headed = f"Writing style: {words[: size // 3]}\nContent focus: {words[: size // 3]}"
        return f"{headed}\nAnswer: {words[: size // 8]}"[: max(size, 90)]

    return answer


def fill(request: Request, name: str, number: int, size: int) -> str:
    """JSON of about a size, with as many entries in its lists as fit, or fewer."""
    one = len(fill_schema(request.schema, mark=name))
    entries = number % (size // (2 * one) + 1)
    value = msgspec.json.decode(fill_schema(request.schema, mark=name, entries=entries))
    missing = size - len(to_json(value))
    for key, part in value.items():
        if isinstance(part, str) and missing > 0:
            value[key] = part + (f" {name}" * (missing // 13))
            missing = 0
    return to_json(value)


@pytest.mark.parametrize("share", [pytest.param(0.1, marks=pytest.mark.slow), 0.75, 1.0])
@pytest.mark.parametrize(("task", "method"), cells())
def test_a_plan_contains_what_a_run_costs(
    tmp_path: Path, task: str, method: str, share: float
) -> None:
    chosen = options(tmp_path, method, task, limit=5, wording="full", prices=PRICES)
    (forecast,) = asyncio.run(plan(chosen))
    row = forecast.as_dict(PRICES)

    model = Scripted(answer=speaker(task, share))
    (outcome,) = asyncio.run(runner.run(chosen, backend=model))
    usage = outcome.summary.usage.values()
    truth = {
        "calls": sum(phase.calls for phase in usage),
        "to_pay": len(model.requests),
        "input_tokens": sum(phase.input_tokens for phase in usage),
        "output_tokens": sum(phase.output_tokens for phase in usage),
        "price": outcome.summary.spent,
    }
    for name, amount in truth.items():
        assert row[name] <= amount <= row[f"{name}_at_most"], (name, row)
