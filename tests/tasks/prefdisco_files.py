"""Small synthetic PrefDisco record files, and scripted models for runs on them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from personabench import Request
from personabench.models.backends.base import BackendOptions
from personabench.models.backends.scripted import Scripted
from personabench.models.roles import RoleName
from personabench.results.run_folder import RunFolder
from personabench.run.options import Options
from personabench.run.runner import Outcome, run
from personabench.types import Prediction

Wants = Mapping[str, tuple[str, int]]
WANTS: Wants = {"Length": ("short", 5), "Tone": ("kind", 3), "Order": ("answer first", 2)}


def make_row(number: int, persona: str, wants: Wants = WANTS, **changes: Any) -> dict[str, Any]:
    """A record of problem `number` by a persona whose wishes have values and importances."""
    criteria = [
        {
            "preference": name,
            "description": f"whether {name} fits",
            "weight": 1 / len(wants),
            "levels": [
                {"score": score, "description": f"{name} level {score}"} for score in (1, 3, 5)
            ],
        }
        for name in wants
    ]
    return {
        "type": "personalized_problem",
        "problem_id": f"problem_{number}_{persona}",
        "original_problem": {
            "question": f"What is asked in problem number {number}?",
            "choices": ["first thing", "second thing", "third thing"],
            "answer": 1,
        },
        "persona": {
            "id": persona,
            "name": f"Pat {persona.capitalize()}",
            "minimal_necessary_description": f"the summary of {persona}",
            "demographics": {
                "age": 40,
                "occupation": "baker",
                "location": "Ulm",
                "hobbies": ["chess", "tea"],
            },
            "backstory": f"the backstory of {persona}",
        },
        "persona_preferences": {
            name: {
                "value": value,
                "local_importance": importance,
                "justification": f"because {name}",
                "type": "personal",
            }
            for name, (value, importance) in wants.items()
        },
        "evaluation_rubric": {"evaluation_criteria": criteria},
        "generation_success": True,
        **changes,
    }


def write_set(folder: Path, rows: Sequence[Any], name: str = "own") -> Path:
    """Write a folder with one set."""
    folder.mkdir(parents=True, exist_ok=True)
    texts = [json.dumps({"type": "metadata", "dataset": "invented"}), *map(json.dumps, rows)]
    (folder / f"{name}.jsonl").write_text("\n".join(texts) + "\n", encoding="utf-8")
    return folder


def make_judge(
    grade: Callable[[str], Any] = lambda text: 3, correct: Any = 1
) -> Callable[[Request], str]:
    """A judge that grades by the text of its request, and finds answers correct."""

    def answer(request: Request) -> str:
        text = request.messages[-1].content
        if "Reference answer:" in text:
            return json.dumps({"justification": "compared", "correct": correct})
        return json.dumps({"justification": "read", "score": grade(text)})

    return answer


def word_reply(text: str) -> str:
    """A simulated user's reply."""
    return json.dumps({"thought": "what is asked?", "response": text})


class PlayedRun:
    """A finished run with the scripted models that took part in it."""

    def __init__(
        self, model: Scripted, roles: dict[RoleName, Scripted], outcomes: list[Outcome]
    ) -> None:
        self.model, self.roles, self.outcomes = model, roles, outcomes

    @property
    def summary(self) -> Mapping[str, Any]:
        return self.outcomes[-1].summary

    @property
    def lines(self) -> dict[str, Prediction]:
        return {
            line.sample_id: line for line in RunFolder(self.outcomes[-1].folder).iter_predictions()
        }

    @property
    def metrics(self) -> Mapping[str, float]:
        metrics: Mapping[str, float] = self.summary.metrics["official"]
        return metrics


def play(
    results: Path,
    data: Path | None,
    model: Callable[[Request], str],
    *,
    task: str = "prefdisco",
    methods: str = "none",
    simulator: Callable[[Request], str] | None = None,
    judge: Callable[[Request], str] | None = None,
    judge_name: str = "judge",
    **options: Any,
) -> PlayedRun:
    """Run a method on a folder's only set."""
    under_test = Scripted(BackendOptions(model="tested"), model)
    roles: dict[RoleName, Scripted] = {
        "judge": Scripted(BackendOptions(model=judge_name), judge or make_judge())
    }
    if task == "prefdisco" or "task.ask=true" in options.get("assignments", ()):
        roles["simulator"] = Scripted(
            BackendOptions(model="simulated"), simulator or (lambda _: word_reply("Short, please."))
        )
    run_options = Options(
        methods.split(","), [task], data=data, backend="scripted", results=results, **options
    )
    return PlayedRun(
        under_test, roles, asyncio.run(run(run_options, backend=under_test, roles=dict(roles)))
    )
