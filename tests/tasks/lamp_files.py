"""Synthetic records in LaMP's file format."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from personabench.api.task import Task
from personabench.models.tokens import Tokens
from personabench.tasks.lamp.forms import FORMS
from personabench.types import Record, Sample

ENTRIES: dict[str, dict[str, str]] = {
    "lamp1": {"title": "Ferns on Roofs", "abstract": "Ferns grow on old roofs."},
    "lamp2m": {"tag": "comedy", "description": "A baker inherits a circus."},
    "lamp2n": {"title": "Cup Final", "text": "The cup final was sold out.", "category": "sports"},
    "lamp3": {"text": "Solid kettle, loud lid.", "score": "4"},
    "lamp4": {"title": "Bridge Shut Again", "text": "The old bridge is closed for repairs."},
    "lamp5": {"title": "On Ferns", "abstract": "We count ferns."},
    "lamp6": {"title": "Lunch on Friday", "text": "Shall we meet for lunch on Friday?"},
    "lamp7": {"text": "rain again lol"},
}
GOLDS = {"lamp1": "[1]", "lamp2m": "comedy", "lamp2n": "sports", "lamp3": "4"}
CITATION = (
    'For an author who has written the paper with the title "{title}", which reference is related? '
    'Just answer with [1] or [2] without explanation. [1]: "{one}" [2]: "{two}"'
)


def words_of(task: str, query: str = "Seven words of text for a question") -> str:
    """An official input of a task."""
    if task == "lamp1":
        return CITATION.format(title="Mosses", one="Ferns in Town", two="Roofs of Lead")
    return f"{FORMS[task].wording} {query}"


def entry(task: str, number: int = 0, **changes: Any) -> dict[str, Any]:
    """A profile entry; a change to None drops the field."""
    fields: dict[str, Any] = {"id": f"p{number}", **ENTRIES[task], **changes}
    return {key: value for key, value in fields.items() if value is not None}


def question(task: str, question_id: str, profile: Any = None, **changes: Any) -> dict[str, Any]:
    """A question record with one entry unless a profile is given."""
    fields = {
        "id": question_id,
        "input": words_of(task),
        "profile": [entry(task)] if profile is None else profile,
    }
    return {**fields, **changes}


def write(
    folder: Path,
    task: str,
    questions: Any,
    golds: Mapping[str, Any] | None = None,
    *,
    split: str = "dev",
    stated: str | None = None,
) -> Path:
    """Write the two files of a split; golds default to a fitting one per question."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{split}_questions.json").write_text(json.dumps(questions), encoding="utf-8")
    if golds is None:
        golds = {
            question["id"]: GOLDS.get(task, "A Gold Title")
            for question in questions
            if isinstance(question, dict)
        }
    write_outputs(folder / f"{split}_outputs.json", stated or FORMS[task].official, golds.items())
    return folder


def write_outputs(path: Path, stated: str, pairs: Any) -> Path:
    """Write an output or prediction file."""
    content = {
        "task": stated,
        "golds": [{"id": sample_id, "output": output} for sample_id, output in pairs],
    }
    path.write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")
    return path


class Whitespace(Tokens):
    """Words separated by whitespace as tokens."""

    def count(self, text: str) -> int:
        return len(text.split())

    def truncate(self, text: str, limit: int) -> str:
        return " ".join(text.split()[:limit])


def record(task: str, number: int = 0, **changes: str) -> Record:
    """A record of a task, as the loader makes it."""
    return FORMS[task].make_record(f"p{number}", {**ENTRIES[task], **changes}, None)


def sample(
    task: str, gold: str | None = None, text: str | None = None, sample_id: str = "q0"
) -> Sample:
    """A sample of a task, without history."""
    references = () if gold is None else (gold,)
    input_text = words_of(task) if text is None else text
    return Sample(sample_id, "u", input_text, references=references, choices=FORMS[task].labels)


def scores(
    task: Task, golds: Sequence[str], answers: Sequence[str], scorer: str
) -> tuple[dict[str, float], int]:
    """A task's metrics over parallel golds and answers, and the number of parse failures."""
    import numpy as np

    samples = [sample(task.name, gold) for gold in golds]
    parsed = [
        task.parse(answer, target, scorer) for answer, target in zip(answers, samples, strict=True)
    ]
    values = [task.measure(read, target) for read, target in zip(parsed, samples, strict=True)]
    metrics = {
        m.name: m.aggregate(np.array([value[m.name] for value in values])) for m in task.metrics
    }
    return metrics, sum(read is None for read in parsed)
