"""DPL with open dimensions: the model names what users differ on, and checks its list.

Records, peers, the profile and the answer are those of `dpl`.  Only a record's difference is found
in another way: as a list of dimensions that begins with the task's axes, continues as the texts
allow, and is then checked against the same texts.  Dimensions that the check does not confirm never
reach the profile.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, NamedTuple

from personabench import Context, Message, PromptFile, Response, UsageError
from personabench.hashing import fold_text
from personabench.methods.dpl import Dpl
from personabench.methods.dpl.prompts import PROMPTS as DPL_PROMPTS
from personabench.methods.dpl.prompts import (
    Case,
    Draft,
    choose_axes,
    describe_agreement,
    draft_differences,
    fit_draft,
    format_axes,
)
from personabench.methods.dpl.settings import PAPER
from personabench.methods.rpm.replies import find_json
from personabench.methods.summary import PROMPTS as SUMMARY_PROMPTS
from personabench.models.json_reply import JsonScanner

PROMPTS = PromptFile(__file__, "drp.prompts.toml")
FIELDS = ("name", "definition", "difference")
SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "dimensions": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {name: {"type": "string"} for name in FIELDS},
                "required": list(FIELDS),
                "additionalProperties": False,
            },
        }
    },
    "required": ["dimensions"],
    "additionalProperties": False,
}


class Dimension(NamedTuple):
    """A dimension on which users differ, and how this user does."""

    name: str
    definition: str
    difference: str


class Drp(Dpl):
    """Compare on dimensions that the model finds and confirms, and go on as `dpl`."""

    name = "drp"
    version = 2
    paper = "Unveiling Inference Scaling for Difference-Aware User Modeling, arXiv 2511.15389"
    needs = ("history", "population")
    prompts = (PROMPTS, DPL_PROMPTS, SUMMARY_PROMPTS)
    designed_for = ("reviews*",)
    paper_settings = {
        **PAPER,
        "difference_max_tokens": 4096,
        "profile_max_tokens": 4096,
        # Published rows may lack the check: the released last stage reads the unchecked lists.
        "validate": [True, False],
        "temperature": 0.0,
        "top_p": 0.95,
        "max_tokens": 4096,
    }

    @dataclass(frozen=True)
    class Params(Dpl.Params):
        """validate: check each list of dimensions against the texts with a second call.

        reasoning: the model (the profiler, if one is named) writes a thought before its reply; a
            reply whose thought does not end is a failure, and replies are not constrained to JSON.
        Everything else as in dpl; preset=faithful allows 4096 tokens in the intermediate calls.
        """

        validate: bool = True
        definition_words: int = 0
        reasoning: bool = False

    def __init__(self, params: Params | None = None) -> None:
        own_params = params or self.Params()
        values = {field.name: getattr(own_params, field.name) for field in fields(Dpl.Params)}
        dpl_params = Dpl.Params(**values)
        if own_params.preset == "faithful":
            dpl_params = replace(
                dpl_params,
                difference_max_tokens=dpl_params.difference_max_tokens or 4096,
                profile_max_tokens=dpl_params.profile_max_tokens or 4096,
            )
        super().__init__(dpl_params)
        if self.settings.free_form:
            raise UsageError("drp: free_form is for dpl; drp's dimensions are open beyond the axes")
        # The parameters that name the run are those the user set, without the larger defaults
        # above.
        self.params = own_params

    def choose_summarizer(self, ctx: Context) -> Context:
        """The generator's: in the paper, the extractor alone is another model."""
        return ctx

    async def _describe_difference(self, case: Case, ctx: Context) -> Case:
        """The case with its dimensions as its difference, which is empty without any."""
        if case.agreeing:
            return case._replace(difference=describe_agreement(case, ctx))

        dimensions = await self._request_dimensions(self._open_drafts(case, ctx), ctx)
        if dimensions and self.params.validate:
            dimensions = await self._confirm(dimensions, case, ctx)

        ctx.flag("dimensions", len(dimensions or ()))
        lines = [
            f"- {dimension.name} ({dimension.definition}): {dimension.difference}"
            for dimension in dimensions or ()
        ]
        return case._replace(difference="\n".join(lines))

    async def _confirm(
        self,
        dimensions: Sequence[Dimension],
        case: Case,
        ctx: Context,
    ) -> list[Dimension]:
        """The dimensions that a second look confirms; none if its reply cannot be parsed."""
        confirmed = await self._request_dimensions(self._check_drafts(case, dimensions, ctx), ctx)
        if confirmed is None:
            ctx.flag("validation_failed")

        # The check returns names: its own wording of a difference would be a second opinion, not a
        # confirmation.
        names = {fold_text(dimension.name) for dimension in confirmed or ()}
        remaining = [dimension for dimension in dimensions if fold_text(dimension.name) in names]
        ctx.flag("dimensions_rejected", len(dimensions) - len(remaining))
        return remaining

    async def _request_dimensions(
        self, drafts: Iterator[Draft], ctx: Context
    ) -> list[Dimension] | None:
        """The dimensions of a reply; None if no request fits or the reply cannot be parsed."""
        max_tokens = self.settings.difference_max_tokens
        messages = fit_draft(drafts, max_tokens, ctx)
        if messages is None:
            return None

        # A grammar would forbid the thought that comes before the JSON.
        schema = None if self.params.reasoning else SCHEMA
        response = await ctx.complete(messages, max_tokens=max_tokens, schema=schema)
        text = self._read_answer(response, ctx)

        dimensions, malformed = parse_dimensions(text)
        limit = self.params.definition_words
        if limit:
            dimensions = [
                dimension._replace(definition=" ".join(dimension.definition.split()[:limit]))
                for dimension in dimensions
            ]
        if malformed:
            ctx.flag("dimensions_malformed", malformed)
        if not dimensions and '"dimensions"' not in text:
            return None
        return dimensions

    def _open_drafts(self, case: Case, ctx: Context) -> Iterator[Draft]:
        axes = format_axes(choose_axes(self.settings.axes, ctx))

        def build(texts: str, peer_count: int) -> tuple[Message, ...]:
            return ctx.prompt(PROMPTS, "open", axes=axes, texts=texts)

        return draft_differences(case, self.settings, ctx, build)

    def _check_drafts(
        self,
        case: Case,
        dimensions: Sequence[Dimension],
        ctx: Context,
    ) -> Iterator[Draft]:
        rows = [dimension._asdict() for dimension in dimensions]
        listed = json.dumps({"dimensions": rows}, ensure_ascii=False)

        def build(texts: str, peer_count: int) -> tuple[Message, ...]:
            return ctx.prompt(PROMPTS, "check", texts=texts, dimensions=listed)

        return draft_differences(case, self.settings, ctx, build)

    def _read_answer(self, response: Response, ctx: Context) -> str:
        """The answer after the thought; empty, and flagged, without a finished thought."""
        unfinished = bool(response.thought) and not response.text
        # Beside a generator that does not think, the extractor alone has to.
        must_think = self.params.reasoning and (ctx.is_profiler or not ctx.has_profiler)
        missing = must_think and not response.thought
        if unfinished or missing:
            ctx.flag("thought_unfinished")
            return ""
        return response.text


def parse_dimensions(text: str) -> tuple[list[Dimension], int]:
    """The well-formed dimensions of a reply, each name once, and the number of malformed ones."""
    dimensions: dict[str, Dimension] = {}
    malformed = 0
    for row in _read_rows(text):
        values = [_one_line(row.get(name)) for name in FIELDS]
        if all(values):
            dimension = Dimension(*values)
            dimensions.setdefault(fold_text(dimension.name), dimension)
        else:
            malformed += 1
    return list(dimensions.values()), malformed


def _one_line(value: Any) -> str:
    return " ".join(value.split()) if isinstance(value, str) else ""


def _read_rows(text: str) -> Iterator[Mapping[str, Any]]:
    """The objects of a reply's list, also of a broken one; {} for each unparsed one."""
    value = find_json(text)
    rows = value.get("dimensions") if isinstance(value, dict) else value
    if isinstance(rows, list):
        for row in rows:
            yield row if isinstance(row, dict) else {}
        return

    # A list that was truncated is no JSON, but its objects are: read them one by one.
    scanner = JsonScanner(text)
    start = 0
    if '"dimensions"' in text:
        start = text.find("[", text.find('"dimensions"'))
    position = text.find("{", start)
    while position >= 0 and not scanner.is_exhausted:
        row = scanner.read(position)
        position = position + 1 if row is None else row.end
        yield {} if row is None else row.value
        position = text.find("{", position)
