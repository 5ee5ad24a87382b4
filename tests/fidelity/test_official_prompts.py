"""LaMP's own prompts over BM25 records, with and without a length, restated from the page."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from restated_bm25 import rank

from personabench.api import registry
from personabench.models.backends.scripted import Scripted
from personabench.models.tokens import Tokens
from personabench.run import runner
from personabench.types import Request

K = 4
WORDS = [f"word{number}" for number in range(40)]

INPUTS = {
    "lamp1": (
        'For an author who has written the paper with the title "Mosses", which reference is '
        "related? Just answer with [1] or [2] without explanation. "
    ),
    "lamp2m": (
        "Which tag does this movie relate to among the following tags? Just answer with the tag "
        "name without further explanation. tags: [comedy, action] description: "
    ),
    "lamp2n": (
        "Which category does this article relate to among the following categories? Just answer "
        "with the category name without further explanation. categories: [sports, women] article: "
    ),
    "lamp3": (
        "What is the score of the following review on a scale of 1 to 5? just answer with 1, 2, "
        "3, 4, or 5 without further explanation. review: "
    ),
    "lamp4": "Generate a headline for the following article: ",
    "lamp5": "Generate a title for the following abstract of a paper: ",
    "lamp6": "Generate a subject for the following email: ",
    "lamp7": "Paraphrase the following tweet without any explanation before or after it: ",
}
FIELDS = {
    "lamp1": ("title", "abstract"),
    "lamp2m": ("tag", "description"),
    "lamp2n": ("title", "text", "category"),
    "lamp3": ("text", "score"),
    "lamp4": ("title", "text"),
    "lamp5": ("title", "abstract"),
    "lamp6": ("title", "text"),
    "lamp7": ("text",),
}
LABELS = {"tag": ("comedy", "action"), "category": ("sports", "women"), "score": ("1", "4", "5")}
GOLDS = {"lamp1": "[1]", "lamp2m": "comedy", "lamp2n": "sports", "lamp3": "4"}

ENTRIES = {
    "lamp1": '"{title}"',
    "lamp2m": 'the tag for the movie: "{description}" is "{tag}" ',
    "lamp2n": 'the category for the article: "{text}" is "{category}" ',
    "lamp3": '{score} is the score for "{text}" ',
    "lamp4": '"{title}" is the title for "{text}" ',
    "lamp5": '"{title}" is a title for "{abstract}" ',
    "lamp6": '"{title}" is the title for "{text}" ',
    "lamp7": '"{text}" ',
}
BRIDGES = {
    "lamp5": ". Following the given patterns ",
    "lamp7": " are written by a person. Following the given patterns ",
}
DOCUMENTS = {
    "lamp1": ("title", "abstract"),
    "lamp2m": ("description",),
    "lamp2n": ("title", "text"),
    "lamp3": ("text",),
    "lamp4": ("title", "text"),
    "lamp5": ("title", "abstract"),
    "lamp6": ("text",),
    "lamp7": ("text",),
}
LONG = {
    "lamp1": "title",
    "lamp2m": "description",
    "lamp2n": "text",
    "lamp3": "text",
    "lamp4": "text",
    "lamp6": "text",
}
"""The field that a length cuts; the reference counts other words than it writes in 5 and 7."""


def join(task: str, entries: Sequence[str], text: str) -> str:
    joined = ", and ".join(entries)
    if task == "lamp1":
        head, tail = text.split("title", 1)
        return f"{head}title, and {joined}{tail}"
    return joined + BRIDGES.get(task, ". ") + text


def cut(task: str, records: Sequence[dict[str, str]], text: str, length: int) -> str:
    """The prompt within a length, in words."""
    reserve = 0.6
    while reserve > -0.01:
        room = length - min(len(text.split()), int(length * round(reserve, 1)))
        charge = 2 * (len(records) - 1) + (0 if task == "lamp1" else 1)
        share = (room - charge) // len(records)
        carry = 0
        fields = []
        for record in records:
            blank = ENTRIES[task].format(**{**record, LONG[task]: " "})
            cost = 2 if task == "lamp1" else len(blank.split())
            allowance = share + carry - cost
            if allowance < 1:
                break
            kept = record[LONG[task]].split()[:allowance]
            carry = allowance - len(kept)
            fields.append({**record, LONG[task]: " ".join(kept)})
        if len(fields) == len(records):
            prompt = join(task, [ENTRIES[task].format(**one) for one in fields], text)
            return prompt if len(prompt.split()) <= length else " ".join(prompt.split()[:length])
        reserve -= 0.1
    return " ".join(text.split()[:length])


class Words(Tokens):
    """Words between white space as tokens."""

    def count(self, text: str) -> int:
        return len(text.split())

    def truncate(self, text: str, limit: int) -> str:
        return " ".join(text.split()[:limit])


def invent(rng: random.Random, task: str, longest: int) -> list[dict[str, str]]:
    """Entries whose texts share words with questions."""
    return [
        {
            name: rng.choice(LABELS[name])
            if name in LABELS
            else " ".join(rng.choices(WORDS, k=rng.randint(1, longest)))
            for name in FIELDS[task]
        }
        for _ in range(rng.randint(1, 9))
    ]


def ask(rng: random.Random, task: str, longest: int) -> tuple[str, str]:
    """An input and its query."""
    if task != "lamp1":
        query = " ".join(rng.choices(WORDS, k=rng.randint(1, longest)))
        return INPUTS[task] + query, query
    one, two = (" ".join(rng.choices(WORDS, k=3)) for _ in range(2))
    return f'{INPUTS[task]}[1]: "{one}" [2]: "{two}"', f"{one} {two}"


def write(folder: Path, task: str, questions: Sequence[tuple[str, list[dict[str, str]]]]) -> Path:
    """Write a split of inputs with their entries."""
    rows: list[dict[str, Any]] = []
    for number, (text, entries) in enumerate(questions):
        profile = [{"id": f"{number}-{index}", **made} for index, made in enumerate(entries)]
        rows.append({"id": f"q{number}", "input": text, "profile": profile})
    golds = [{"id": row["id"], "output": GOLDS.get(task, "A title")} for row in rows]
    official = f"LaMP_{task[4]}"
    folder.mkdir()
    (folder / "dev_questions.json").write_text(json.dumps(rows))
    (folder / "dev_outputs.json").write_text(json.dumps({"task": official, "golds": golds}))
    return folder


@pytest.mark.parametrize("task", list(ENTRIES))
def test_the_prompts_are_those_of_the_page(task: str, tmp_path: Path) -> None:
    rng = random.Random(53)
    questions = []
    expected = []
    for _ in range(30):
        text, query = ask(rng, task, 9)
        entries = invent(rng, task, 7)
        documents = [" ".join(made[name] for name in DOCUMENTS[task]) for made in entries]
        best = [entries[index] for index in rank(documents, query, K)]
        questions.append((text, entries))
        expected.append(join(task, [ENTRIES[task].format(**made) for made in best], text))

    prompts: list[str] = []

    def answer(request: Request) -> str:
        (message,) = request.messages
        prompts.append(message.content)
        return "answer"

    options = runner.Options(
        ["rag"],
        [task],
        data=write(tmp_path / "data", task, questions),
        backend="scripted",
        cache="off",
        results=tmp_path / "results",
        assignments=[f"k={K}", "task.template=lamp-official"],
    )
    asyncio.run(runner.run(options, backend=Scripted(answer=answer)))
    assert sorted(prompts) == sorted(expected)


@pytest.mark.parametrize("task", list(LONG))
def test_the_length_budget_is_that_of_the_page(task: str, tmp_path: Path) -> None:
    rng = random.Random(59)
    questions = [(ask(rng, task, 30)[0], invent(rng, task, 25)[:K]) for _ in range(250)]
    cls = registry.load_class("task", task)
    dataset = cls().open("user/dev", write(tmp_path / "data", task, questions))

    effects: set[str] = set()
    for position, (text, entries) in enumerate(questions):
        length = rng.randint(6, 160)
        sample = dataset.load(position)
        budgeted = cls(cls.Params(template="lamp-official", length=length))
        rendered = budgeted.render(sample, sample.history, "", Words())
        assert rendered.messages[0].content == cut(task, entries, text, length)
        effects |= set(rendered.flags)
    assert {"tokens_dropped", "bare_fallback", "input_truncated"} <= effects
