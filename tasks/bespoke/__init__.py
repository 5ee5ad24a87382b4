"""BESPOKE: answer a query as a user with this chat and search history needs it (arXiv 2509.21106).

A judge grades an answer in the place of the annotator, from the annotator's rubric and examples,
and says for each gold claim whether the answer contains it.  The answer is written from what the
model knows; the paper's web search is not run.
"""

from __future__ import annotations

import dataclasses
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from personabench.api.dataset import Dataset
from personabench.api.judged import JudgedTask
from personabench.api.layout import Layout
from personabench.api.rows import ENDINGS, NoDataError, Row, read_rows
from personabench.api.task import JsonObject
from personabench.api.wording import Vocabulary
from personabench.errors import DataError
from personabench.hashing import digest
from personabench.metrics.judges import bespoke
from personabench.metrics.judges.fence import RULE, Fence
from personabench.metrics.metric import Metric, Value
from personabench.models.roles import Role
from personabench.types import Record, Sample, normalized

__all__ = ["Bespoke"]

CRITERIA: Mapping[str, str] = {
    "need": "does it meet the information need?",
    "depth": "is it as deep as this user wants?",
    "tone": "does its tone suit this user?",
    "style": "does it explain in the way that suits this user?",
}
MAX_EXAMPLES = 5
_SYSTEM = (
    "You grade an answer exactly as one annotator would, who wrote the rubric and graded the "
    f"examples that you are shown. {RULE}\n\n"
    + "\n".join(f"{name}: {question}" for name, question in CRITERIA.items())
    + "\n\nEach grade is a whole number from 1 (not at all) to 5 (fully). First give your reasons "
    "for each in a sentence. Then end with one line for each, in this order:\n"
    + "\n".join(f"{name}: NUMBER" for name in CRITERIA)
)
PROMPT = digest([_SYSTEM, bespoke.PROMPT, "rubric, examples, need, query, answer"])[:12]
"""The hash of the judge's wording."""
_GRADE_TOKENS = 512

Key = tuple[str, str]


def _mean_of_judged(values: npt.NDArray[np.float64]) -> float:
    """Mean over the samples that have the score; rows are (score, 1 if there is one else 0)."""
    judged = values[values[:, 1] == 1, 0]
    return float(judged.mean()) if len(judged) else float("nan")


def _count_judged(values: npt.NDArray[np.float64]) -> int:
    return int((values[:, 1] == 1).sum())


def _mean_of_scores(values: npt.NDArray[np.float64]) -> float:
    """The mean of the five scores' means; rows are five pairs as in `_mean_of_judged`."""
    pairs = values.reshape(len(values), -1, 2)
    means = [_mean_of_judged(pairs[:, place]) for place in range(pairs.shape[1])]
    return float(np.mean(means))


class Bespoke(JudgedTask):
    """Queries of annotators with their chat and search histories; answers are graded."""

    name = "bespoke"
    kind = "text"
    title = "BESPOKE: answer a query as this user needs it"
    source = "https://huggingface.co/datasets/yonsei-dli/BESPOKE (arXiv 2509.21106)"
    licence = "see its page"
    default_split = "all"
    offers = ("history", "population")
    max_tokens = 1024
    roles = ("judge",)
    judge_content = PROMPT
    words = Vocabulary(
        person="user",
        stimulus="query",
        response="answer",
        profile_question=(
            "What does this user want to know and why, how deep, in which tone, and in which way "
            "of explaining?"
        ),
        instruction="Reply with the answer only.",
        goal="Answer the query as this user needs it.",
        answer_form="the answer to the query",
    )
    metrics = (
        Metric("average", aggregate=_mean_of_scores),
        *(
            Metric(name, aggregate=_mean_of_judged, size=_count_judged)
            for name in (*CRITERIA, "recall")
        ),
    )

    @dataclasses.dataclass(frozen=True)
    class Params(Layout):
        """Options of the layout."""

    params: Params

    def open(self, split: str, data: Path | None) -> Dataset:
        dataset = super().open(split, data)
        if data is None:
            dataset.source = "example data, not BESPOKE"
        return dataset

    def load(self, split: str, data: Path | None) -> Iterator[Sample]:
        if data is None:
            raise NoDataError("the example data of bespoke are missing; name a folder")
        histories: dict[str, list[Record]] = defaultdict(list)
        for table in ("chat_history", "search_history"):
            for row in _read_table(data, table):
                text = row.read_text("history")
                record = Record(
                    f"{table}-{row.read_id('id')}", response=text, fields={"kind": table}
                )
                histories[row.read_id("user")].append(record)
        claims = _collect(data, "gold_information")
        rubrics = _collect(data, "personalized_rubric")
        examples = _collect(data, "evaluation_shot")
        for row in _read_table(data, "query_table"):
            key = row.read_id("user"), row.read_id("query-id")
            query = row.read_text("query")
            hidden = {
                "need": row.read_text("gold_information_need"),
                "rubric": "\n".join(rubrics.get(key, ())),
                "claims": msgspec.json.encode(read_claims(claims.get(key, ()))).decode(),
                "examples": msgspec.json.encode(list(examples.get(key, ()))).decode(),
            }
            yield Sample(
                f"{key[0]}-{key[1]}",
                user_id=key[0],
                input=query,
                stimulus=query,
                history=tuple(histories[key[0]]),
                hidden=hidden,
            )

    def describe(self, record: Record) -> str:
        is_chat = record.fields["kind"] == "chat_history"
        return f"{'Chat' if is_chat else 'Searches'}:\n{record.response}"

    async def assess(
        self, sample: Sample, output: str, interaction: JsonObject, judge: Role
    ) -> JsonObject | None:
        """Have the judge grade the answer and check the claims."""
        hidden = sample.hidden
        examples = msgspec.json.decode(hidden["examples"], type=list[str])
        # A graded example of this very answer would be its own grade.
        own = normalized(output)
        others = [text for text in examples if not own or own not in normalized(text)]
        parts = {
            "Rubric of the annotator": hidden["rubric"] or "(none)",
            "Graded examples": "\n\n".join(others[:MAX_EXAMPLES]) or "(none)",
            "Information need": hidden["need"],
            "Query": sample.input,
            "Answer to grade": output or "(empty)",
        }
        fence = Fence(*parts.values())
        question = "\n\n".join(f"{name}:\n{fence.wrap(text)}" for name, text in parts.items())
        graded = await bespoke.grade_answer(judge, _SYSTEM, question, list(CRITERIA), _GRADE_TOKENS)
        claims = msgspec.json.decode(hidden["claims"], type=list[str])
        entailed = await bespoke.check_claims(judge, claims, output)
        if graded.attempts > 1:
            judge.flag("judge_retried", graded.attempts - 1)
        if None in entailed:
            judge.flag("judge_unjudged_claims", entailed.count(None))
        if not graded.grades and None in entailed:
            return None
        return {"grades": dict(graded.grades), "claims": entailed, "evidence": graded.evidence}

    def measure_interaction(
        self, interaction: JsonObject, assessment: JsonObject | None, sample: Sample
    ) -> Mapping[str, Value]:
        """Return the five scores, 0 to 100, each with whether it is judged."""
        if not assessment:
            return {}
        scores = bespoke.score_answer(assessment["grades"], assessment["claims"], list(CRITERIA))
        pairs = {
            name: [scores.get(name, 0.0), float(name in scores)] for name in (*CRITERIA, "recall")
        }
        average = [number for pair in pairs.values() for number in pair]
        return {"average": average, **pairs}


def _read_table(data: Path, name: str) -> Iterator[Row]:
    """Read a table wherever it is below a folder.

    Raises:
        DataError: it is missing, unless it is one of examples or rubrics, or broken.
    """
    paths = [
        path
        for path in sorted(data.rglob(f"{name}.*"))
        if path.suffix in ENDINGS and path.is_file()
    ]
    if not paths:
        raise DataError(f"{data} has no table {name}, such as {name}.parquet; see docs/tasks")
    for path in paths:
        yield from read_rows(path)


def _collect(data: Path, name: str) -> dict[Key, list[str]]:
    """The values of a table by user and query."""
    values: dict[Key, list[str]] = defaultdict(list)
    for row in _read_table(data, name):
        values[row.read_id("user"), row.read_id("query-id")].append(row.read_text(f"{name}_value"))
    return values


def read_claims(values: Sequence[str]) -> list[str]:
    """Return the gold claims: those of a JSON list or of a field of one, else the texts."""
    claims = []
    for value in values:
        try:
            content: Any = msgspec.json.decode(value)
        except msgspec.DecodeError:
            content = value
        if isinstance(content, dict):
            content = content.get("gold_information", list(content.values()))
        claims += content if isinstance(content, list) else [content]
    return [re.sub(r"\s+", " ", str(claim)).strip() for claim in claims if str(claim).strip()]
