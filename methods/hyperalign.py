"""Hypotheses about the user: inferred once from the user's texts, shown with every question.

One call per user states how the user communicates, free of topics, so that nothing of the history
leaks into answers about something else.  On tasks whose answers are labels the hypotheses are
about decisions.  Optionally some records are put aside, and only the hypotheses that they support
best are kept.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypedDict

from personabench import Context, Message, Method, PromptFile, Record, Sample, User
from personabench.hashing import fold_text
from personabench.methods.parsed_reply import has_words, request_parsed
from personabench.methods.rpm.pairs import select_visible_records
from personabench.methods.rpm.replies import read_rows, to_whole_number
from personabench.models.client import encodable
from personabench.models.json_reply import JsonScanner
from personabench.types import normalized

PROMPTS = PromptFile(__file__, "hyperalign.prompts.toml")
SUPPORT = {"supports": 1, "neutral": 0, "contradicts": -1}
# One text shows no habit.
FEWEST_RECORDS = 2
_LIST = re.compile(r"\[\s*(?=\")")
_STRING = re.compile(r'[\s,]*"((?:[^"\\]|\\.)*)"(?=\s*(?:[,\]]|\Z))', re.DOTALL)
_BULLET = re.compile(r"^(?:[-*•–]|\d{1,3}[.)])[^\S\n]+")


class Hypotheses(TypedDict):
    """The state of a user; no hypotheses for one with fewer than two records."""

    hypotheses: list[str]


class HyPerAlign(Method):
    """Infer hypotheses about the user's style and decisions once; answer with them."""

    name = "hyperalign"
    paper = "HyPerAlign, Garbacea and Tan, arXiv 2505.00038"
    needs = ("history",)
    designed_for = ()
    prompts = (PROMPTS,)

    @dataclass(frozen=True)
    class Params:
        """max_hypotheses: hypotheses kept of the reply, the first ones.

        select: none, or validate: keep those that records put aside support best.
        n_validation: the newest records, which are put aside; n_selected: hypotheses kept.
        attributes: show the written description of the user too, if the history has one.
        history_cap: newest records used.
        infer_max_tokens, validate_max_tokens: maximum tokens of the two kinds of calls.
        """

        max_hypotheses: int = 10
        select: Literal["none", "validate"] = "none"
        n_validation: int = 4
        n_selected: int = 5
        attributes: bool = False
        history_cap: int = 20
        infer_max_tokens: int = 512
        validate_max_tokens: int = 256

        def __post_init__(self) -> None:
            for name in ("max_hypotheses", "n_validation", "n_selected", "history_cap"):
                if getattr(self, name) < 1:
                    raise ValueError(f"{name} must be at least 1, not {getattr(self, name)}")

    def visible(self, sample: Sample) -> tuple[Record, ...]:
        """The history without records that repeat the question."""
        return select_visible_records(sample, letters=False)

    async def profile(self, user: User, ctx: Context) -> Hypotheses:
        """The user's hypotheses: 1 call, with `validate` one more per record put aside."""
        p = self.params
        records = user.history[-p.history_cap :]
        if len(records) < FEWEST_RECORDS:
            return Hypotheses(hypotheses=[])

        validation: Sequence[Record] = ()
        if p.select == "validate" and len(records) >= p.n_validation + FEWEST_RECORDS:
            validation = records[-p.n_validation :]
            records = records[: -p.n_validation]
        elif p.select == "validate":
            ctx.flag("validation_skipped")

        hypotheses = await self._infer(records, ctx)
        if validation and hypotheses:
            hypotheses = await self._select(hypotheses, validation, ctx)
        return Hypotheses(hypotheses=hypotheses)

    async def predict(self, sample: Sample, state: Hypotheses, ctx: Context) -> str:
        hypotheses = state["hypotheses"]
        if not hypotheses:
            ctx.flag("no_hypotheses" if sample.history else "empty_history")
            return await ctx.answer(sample)

        ctx.flag("hypotheses", len(hypotheses))
        content = "\n".join(f"- {hypothesis}" for hypothesis in hypotheses)
        attributes = ctx.task.persona(sample) if self.params.attributes else ""
        if attributes:
            content = f"{attributes}\n\n{content}"
        return await ctx.answer(sample, notes=ctx.part(PROMPTS, "notes", content=content))

    async def _infer(self, records: Sequence[Record], ctx: Context) -> list[str]:
        """The hypotheses of one reply; flagged `raw_hypothesis` if it is no list of any form."""
        p = self.params
        messages = ctx.fit(
            lambda newest_first: _inference_prompt(newest_first[::-1], p.max_hypotheses, ctx),
            records[::-1],
            p.infer_max_tokens,
        )
        reply = await request_parsed(
            "infer",
            messages,
            lambda text: text.strip() or None,
            ctx,
            reminder=ctx.part(PROMPTS, "infer_reminder"),
            max_tokens=p.infer_max_tokens,
            schema=_hypotheses_schema(p.max_hypotheses),
        )
        if reply is None:
            return []

        hypotheses = read_hypotheses(reply)
        if hypotheses is None:
            ctx.flag("raw_hypothesis")
            hypotheses = [" ".join(reply.split())]

        own = [text for text in hypotheses if not is_excerpt(text, records)]
        if len(own) < len(hypotheses):
            ctx.flag("hypotheses_quoting", len(hypotheses) - len(own))
        return own[: p.max_hypotheses]

    async def _select(
        self,
        hypotheses: list[str],
        validation: Sequence[Record],
        ctx: Context,
    ) -> list[str]:
        """The hypotheses with the highest support less contradiction, in their order."""
        verdicts = await asyncio.gather(
            *(self._judge(hypotheses, record, ctx) for record in validation)
        )
        parsed = [verdict for verdict in verdicts if verdict is not None]
        if not parsed:
            return hypotheses

        missing = len(parsed) * len(hypotheses) - sum(map(len, parsed))
        if missing:
            ctx.flag("verdicts_missing", missing)
        support = [
            sum(verdict.get(number, 0) for verdict in parsed)
            for number in range(1, len(hypotheses) + 1)
        ]
        # Sorting keeps the order of equals, so that ties go to the earlier hypothesis.
        order = sorted(range(len(hypotheses)), key=lambda index: -support[index])
        kept = sorted(order[: self.params.n_selected])
        return [hypotheses[index] for index in kept]

    async def _judge(
        self,
        hypotheses: Sequence[str],
        record: Record,
        ctx: Context,
    ) -> dict[int, int] | None:
        """The support of a record for each hypothesis by number; None if it cannot be parsed."""
        numbered = "\n".join(f"{number}. {text}" for number, text in enumerate(hypotheses, 1))
        messages = ctx.prompt(
            PROMPTS, "validate", hypotheses=numbered, record=ctx.task.describe(record)
        )
        return await request_parsed(
            "validate",
            messages,
            lambda text: read_verdicts(text, len(hypotheses)),
            ctx,
            reminder=ctx.part(PROMPTS, "validate_reminder"),
            max_tokens=self.params.validate_max_tokens,
            schema=_verdict_schema(len(hypotheses)),
        )


def read_hypotheses(text: str) -> list[str] | None:
    """The hypotheses of a reply, each once: a JSON list, else bullets, else lines; None for prose.

    A list without a word is none of hypotheses.
    """
    rows = _read_json_texts(text) or _read_lines(text)
    if not rows:
        return None
    unique: dict[str, str] = {}
    for row in filter(has_words, rows):
        unique.setdefault(fold_text(row), " ".join(row.split()))
    return list(unique.values())


def _read_json_texts(text: str) -> list[str]:
    """The texts of the first JSON list that has some, or the whole ones of a truncated list."""
    for value in JsonScanner(text).read_all():
        if isinstance(value, list):
            texts = [row for row in value if isinstance(row, str) and row.strip()]
            if texts:
                return [encodable(row) for row in texts]

    opening = _LIST.search(text)
    position = opening.end() if opening else len(text)
    texts = []
    while match := _STRING.match(text, position):
        texts.append(match[1].replace('\\"', '"'))
        position = match.end()
    return texts


def _read_lines(text: str) -> list[str]:
    """The bullets of a text, else its lines; a single line, or broken JSON, is none."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    bullets = [_BULLET.sub("", line) for line in lines if _BULLET.match(line)]
    if bullets:
        return bullets
    is_json = any(line[0] in '{}[]"`' for line in lines)
    return lines if len(lines) > 1 and not is_json else []


def is_excerpt(text: str, records: Sequence[Record]) -> bool:
    """Whether a text stands word for word in a record, as small models copy their prompts."""
    words = f" {normalized(text)} "
    passages = [part for record in records for part in (record.response, record.stimulus or "")]
    return any(words in f" {normalized(passage)} " for passage in passages)


def read_verdicts(text: str, count: int) -> dict[int, int] | None:
    """1, 0 or -1 by the number of a hypothesis, from 1 to `count`; None without any."""
    verdicts: dict[int, int] = {}
    for row in read_rows(text, "verdicts") or ():
        number = to_whole_number(row.get("number"))
        word = str(row.get("verdict")).strip().casefold()
        if number is not None and 1 <= number <= count and word in SUPPORT:
            verdicts.setdefault(number, SUPPORT[word])
    return verdicts or None


def _hypotheses_schema(count: int) -> Mapping[str, Any]:
    return {
        "type": "object",
        "properties": {
            "hypotheses": {"type": "array", "items": {"type": "string"}, "maxItems": count}
        },
        "required": ["hypotheses"],
        "additionalProperties": False,
    }


def _verdict_schema(count: int) -> Mapping[str, Any]:
    verdict = {
        "type": "object",
        "properties": {
            "number": {"type": "integer"},
            "verdict": {"type": "string", "enum": list(SUPPORT)},
        },
        "required": ["number", "verdict"],
        "additionalProperties": False,
    }
    return {
        "type": "object",
        "properties": {"verdicts": {"type": "array", "items": verdict, "maxItems": count}},
        "required": ["verdicts"],
        "additionalProperties": False,
    }


def _inference_prompt(records: Sequence[Record], count: int, ctx: Context) -> tuple[Message, ...]:
    # A label says nothing without its stimulus; of a text the stimulus would only add topics.
    if ctx.task.kind == "text":
        stage, texts = "infer", [record.response for record in records]
    else:
        stage, texts = "infer_decisions", [ctx.task.describe(record) for record in records]
    return ctx.prompt(PROMPTS, stage, records="\n\n".join(texts), count=str(count))
