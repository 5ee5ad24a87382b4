"""Drop retrieved pieces that should not be used for this request: `+self_recheck`.

After each retrieval the model reads the request and the numbered pieces, and names those that the
answer may use; the others never reach the request for the answer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from personabench import Context, Message, PromptFile, Record, Sample, Wrapper
from personabench.methods.memory_parts import (
    NUMBER,
    list_schema,
    object_schema,
    read_number,
    read_object,
)
from personabench.methods.parsed_reply import complete_parsed

PROMPTS = PromptFile(__file__, "self_recheck.prompts.toml")


class SelfRecheck(Wrapper):
    """Have the model keep or drop each retrieved piece for this request, before it answers."""

    name = "self_recheck"
    paper = "OP-Bench, arXiv 2601.13722 (its remedy Self-ReCheck)"
    prompts = (PROMPTS,)

    @dataclass(frozen=True)
    class Params:
        """max_tokens: maximum tokens of the list of kept pieces."""

        max_tokens: int = 128

    async def select(self, sample: Sample, texts: Sequence[str], ctx: Context) -> Sequence[int]:
        """Keep the pieces that the model names; all of them after two replies without a list."""
        messages, shown = self._fit(sample, texts, ctx)
        # Pieces that do not fit this request come last, and hardly fit the one for the answer.
        if shown < len(texts):
            ctx.flag("recheck_unseen", len(texts) - shown)
        schema = object_schema(keep=list_schema(NUMBER, max(shown, 1)))

        kept = await complete_parsed(
            messages,
            _read_kept,
            ctx,
            max_tokens=self.params.max_tokens,
            schema=schema,
            flag="recheck_unparsed",
        )
        if kept is not None:
            return self._choose(kept, shown, len(texts), ctx)
        ctx.flag("recheck_failed")
        return range(len(texts))

    def _fit(
        self, sample: Sample, texts: Sequence[str], ctx: Context
    ) -> tuple[Sequence[Message], int]:
        """The request with as many of the best pieces as fit, and their number."""
        shown = 0

        def build(records: Sequence[Record]) -> Sequence[Message]:
            nonlocal shown
            shown = len(records)
            pieces = [f"[{number}] {text}" for number, text in enumerate(texts[:shown], start=1)]
            return ctx.prompt(PROMPTS, "recheck", request=sample.input, pieces="\n\n".join(pieces))

        # `fit` drops records, so that every piece stands in as one.
        stand_ins = [Record(str(number)) for number in range(len(texts))]
        return ctx.fit(build, stand_ins, self.params.max_tokens), shown

    def _choose(self, kept: Sequence[int], shown: int, count: int, ctx: Context) -> list[int]:
        """The positions behind the numbers, and those that the model has not seen."""
        unknown = [number for number in kept if not 1 <= number <= shown]
        if unknown:
            ctx.flag("recheck_unknown_id", len(unknown))
        positions = {number - 1 for number in kept} & set(range(shown))
        ctx.flag("recheck_dropped", shown - len(positions))
        return [*sorted(positions), *range(shown, count)]


def _read_kept(reply: str) -> list[int] | None:
    """The numbers in the list of a JSON reply; None without a list of numbers."""
    named: Mapping[str, Any] | None = read_object(reply)
    listed = None if named is None else named.get("keep")
    if not isinstance(listed, list):
        return None
    numbers = [read_number(number) for number in listed]
    readable = [number for number in numbers if number is not None]
    return readable if len(readable) == len(numbers) else None
