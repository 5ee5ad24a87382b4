"""CIPHER and its baselines over 60 rounds of PRELUDE, restated from the page.

The user goes by rules and the model by a stub, both written out here, so that every draft, cost and
preference is determined.  Requests are recognised by texts of our own, whatever the wording.
"""

from __future__ import annotations

import asyncio
import json
import re
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from personabench.api.prompts import Replacements
from personabench.models.backends.scripted import Scripted
from personabench.results.run_folder import RunFolder
from personabench.retrieval.embedders import Embedders
from personabench.run import runner
from personabench.types import Request

ROUNDS = 60
BASE = "The team met on Monday. They agreed on a plan."
SOURCES = {
    "news": ["bullet points"],
    "forum": ["all lower case", "uses an emoji"],
    "paper": ["ends with a question"],
    "film": ["all lower case", "bullet points"],
    "wiki": ["opens with a greeting"],
}
# In the table's order, by which the user applies fixes.
RULES: dict[str, tuple[Callable[[str], bool], Callable[[str], str]]] = {
    "all lower case": (lambda text: text == text.lower(), str.lower),
    "bullet points": (
        lambda text: all(line.startswith("- ") for line in text.splitlines() if line.strip()),
        lambda text: "\n".join(
            line if line.startswith("- ") else f"- {line}" for line in text.splitlines()
        ),
    ),
    "ends with a question": (
        lambda text: text.rstrip().endswith("?"),
        lambda text: f"{text} What do you think?",
    ),
    "uses an emoji": (lambda text: "🙂" in text, lambda text: f"{text} 🙂"),
    "opens with a greeting": (
        lambda text: re.split(r"\W", text, maxsplit=1)[0].lower() in ("hello", "hi", "dear"),
        lambda text: f"Hello,\n{text}",
    ),
}

TEXTS = {
    "cipher": {
        "infer_edits": {"system": "INFER", "user": "{pairs}"},
        "edit_pair": {"text": "<pair>{draft}<to>{final}</pair>"},
        "aggregate": {"system": "MERGE", "user": "{preferences}"},
        "notes": {"text": "<notes>{preference}</notes>"},
        "edited_examples": {"text": "<examples>{pairs}</examples>"},
    }
}


def write(phrases: str) -> str:
    """The base text, fixed for each phrase that some words hold."""
    text = BASE
    for phrase, (_, fix) in RULES.items():
        if phrase in phrases:
            text = fix(text)
    return text


def infer(pairs: Sequence[tuple[str, str]]) -> str:
    """The phrases that the first and the last edit brought, or a phrase of no use without one."""
    edited = [pair for pair in pairs if pair[0] != pair[1]]
    if not edited:
        return "no change was seen"
    return "; ".join(
        phrase
        for phrase, (holds, _) in RULES.items()
        if any(holds(final) and not holds(draft) for draft, final in (edited[0], edited[-1]))
    )


def merge(phrases: Sequence[str]) -> str:
    """The most frequent phrase, the first listed of equals."""
    return max(phrases, key=lambda phrase: (phrases.count(phrase), -phrases.index(phrase)))


def model(request: Request) -> str:
    """The stub model behind the code under test."""
    content = "\n".join(message.content for message in request.messages)
    pairs = re.findall(r"<pair>(.*?)<to>(.*?)</pair>", content, re.DOTALL)
    if content.startswith("INFER"):
        return infer(pairs)
    if content.startswith("MERGE"):
        return merge(re.findall(r"^- (.*)$", content, re.MULTILINE))
    if pairs:
        return write(infer(pairs[-1:]))
    notes = re.search(r"<notes>(.*?)</notes>", content, re.DOTALL)
    return write(notes[1] if notes else "")


def embed(texts: Sequence[str]) -> Any:
    """Vectors in which a document's source is nearest most of the time, but not always."""
    rows = []
    for text in texts:
        noise = np.random.default_rng(zlib.crc32(text.encode())).normal(size=5)
        marks = [float(f"from {source}" in text) for source in SOURCES]
        rows.append(np.array(marks) + 0.55 * noise)
    return np.array(rows, np.float32)


def measure(draft: str, final: str) -> int:
    """Levenshtein distance of words and marks."""
    a, b = (re.findall(r"\w+|[^\w\s]", text) for text in (draft, final))
    previous = list(range(len(b) + 1))
    for row, left in enumerate(a, 1):
        current = [row]
        for column, right in enumerate(b, 1):
            change = previous[column - 1] + (left != right)
            current.append(min(previous[column] + 1, current[-1] + 1, change))
        previous = current
    return previous[-1]


def react(draft: str, rules: Sequence[str]) -> str:
    """The user's version: each broken rule is fixed when its turn comes."""
    text = draft
    for phrase, (holds, fix) in RULES.items():
        if phrase in rules and not holds(text):
            text = fix(text)
    return text


class Document(NamedTuple):
    """A document with its source."""

    source: str
    text: str


def draw() -> list[Document]:
    """The documents of the trajectory of seed 0."""
    rng = np.random.default_rng(0)
    pool = []
    for source in SOURCES:
        order = rng.permutation(20)
        pool += [Document(source, document(source, n)) for n in order[: ROUNDS // len(SOURCES)]]
    return [pool[index] for index in rng.permutation(len(pool))]


def document(source: str, number: int) -> str:
    return f"Document {number} from {source}"


class Step(NamedTuple):
    """One round as the restated algorithm sees it."""

    draft: str
    final: str
    cost: int
    preference: str


def nearest(text: str, memory: Sequence[tuple[str, Any]], k: int) -> list[Any]:
    """What is remembered of the k nearest texts, nearest first, earlier ones first of equals."""
    vectors = embed([text, *(known for known, _ in memory)]).astype(np.float64)
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    cosines = unit[1:] @ unit[0]
    order = sorted(range(len(memory)), key=lambda index: (-round(cosines[index], 12), index))
    return [memory[index][1] for index in order[:k]]


def restate(method: str, k: int) -> list[Step]:
    """All rounds of a method."""
    steps: list[Step] = []
    memory: list[tuple[str, Any]] = []
    for number, (source, text) in enumerate(draw()):
        pairs = [(step.draft, step.final) for step in steps]
        preference = ""
        draft = write("")
        if method == "cipher" and memory:
            phrases = nearest(text, memory, k)
            preference = phrases[0] if k == 1 else merge(phrases)
        elif method == "continual" and pairs:
            preference = infer(pairs[-5:])
        elif method == "e_then_e" and number >= 5:
            preference = infer(pairs[:5])
        elif method == "icl_edit" and memory:
            draft = write(infer(nearest(text, memory, k)[:1]))
        if preference:
            draft = write(preference)

        final = react(draft, SOURCES[source])
        cost = measure(draft, final)
        steps.append(Step(draft, final, cost, preference))
        if method == "cipher":
            learned = infer([(draft, final)]) if cost > 0 else preference
            if learned:
                memory.append((text, learned))
        elif method == "icl_edit":
            memory.append((text, (draft, final)))
    return steps


@pytest.mark.parametrize(
    ("method", "k"),
    [
        ("none", 0),
        ("cipher", 1),
        ("cipher", 5),
        ("icl_edit", 5),
        ("continual", 0),
        ("e_then_e", 0),
    ],
)
def test_sixty_rounds_are_those_of_the_page(
    method: str, k: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def embed_texts(self: Embedders, texts: Sequence[str], name: str) -> Any:
        return embed(texts)

    monkeypatch.setattr(Embedders, "embed", embed_texts)
    for source in SOURCES:
        rows = [
            {"doc_id": f"{source}-{number}", "text": document(source, number)}
            for number in range(20)
        ]
        (tmp_path / f"{source}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    sources = [{"name": name, "rules": rules} for name, rules in SOURCES.items()]
    (tmp_path / "summ.json").write_text(json.dumps({"env": "summ", "sources": sources}))

    options = runner.Options(
        [method],
        ["prelude_summ"],
        data=tmp_path,
        backend="scripted",
        cache="off",
        prompts=None if method == "none" else Replacements("texts of the test", TEXTS),
        results=tmp_path / "results",
        assignments=[
            "task.user=rule",
            f"task.rounds={ROUNDS}",
            "task.trajectories=1",
            "task.accuracy=off",
            *([f"k={k}"] if k else []),
        ],
    )
    (outcome,) = asyncio.run(runner.run(options, backend=Scripted(answer=model)))
    lines = list(RunFolder(outcome.folder).iter_predictions())
    rounds = sorted((line.interaction for line in lines), key=lambda one: one["t"])
    assert len(rounds) == ROUNDS

    expected = restate(method, k)
    for played, step in zip(rounds, expected, strict=True):
        assert (played["draft"], played["final"], played["cost"]) == step[:3], played["t"]
        assert played.get("method", {}).get("preference", "") == step.preference
    total = outcome.summary.score("cumulative_cost")
    assert total == pytest.approx(sum(step.cost for step in expected))


def test_the_methods_differ_on_these_rounds() -> None:
    """Otherwise the rounds could not tell one algorithm from another.

    With this model `icl_edit` does as CIPHER with k = 1: both go by the nearest edit.
    """
    methods = [("none", 0), ("cipher", 1), ("cipher", 5), ("continual", 0), ("e_then_e", 0)]
    costs = {tuple(step.cost for step in restate(*method)) for method in methods}
    assert len(costs) == len(methods)
