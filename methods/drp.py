"""DPL with open dimensions: the model names what it compares people on, and may take back what does not hold.

Records, peers, the profile and the answer are `dpl`'s.  Only a record's difference is found otherwise: as a list of
dimensions, begun with the task's axes and continued as the texts allow, and then checked against the same texts.  What
the check does not confirm never reaches the profile.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, NamedTuple

from personabench import Context, Message, Response
from personabench.methods.dpl import Dpl
from personabench.methods.dpl.prompts import Case, Draft, agreement, difference_drafts, fitting
from personabench.methods.rpm.replies import first_json

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
_FORM = (
    'Reply with a JSON object: {"dimensions": [{"name": "...", "definition": "one line", '
    '"difference": "how this person differs"}]}.'
)


class Dimension(NamedTuple):
    """Something people differ on, and how this user does."""

    name: str
    definition: str
    difference: str


class Drp(Dpl):
    """Compare on dimensions the model finds itself, keep those a second look confirms, and go on as dpl."""

    name = "drp"
    version = 2
    paper = "Unveiling Inference Scaling for Difference-Aware User Modeling, arXiv 2511.15389"
    needs = ("history", "population")
    designed_for = ("reviews*",)

    @dataclass(frozen=True)
    class Params(Dpl.Params):
        """validate: check each list of dimensions against the texts with a second call.

        reasoning: the model thinks aloud before it replies; a reply without the end of the thought is a failure, and
            replies are not constrained to JSON.
        Everything else as for dpl; preset=faithful allows 4096 tokens in the intermediate calls.
        """

        validate: bool = True
        reasoning: bool = False

    def __init__(self, params: Params | None = None) -> None:
        own = params or self.Params()
        inherited = Dpl.Params(
            **{field.name: getattr(own, field.name) for field in fields(Dpl.Params)}
        )
        if own.preset == "faithful":
            inherited = replace(
                inherited,
                difference_max_tokens=inherited.difference_max_tokens or 4096,
                profile_max_tokens=inherited.profile_max_tokens or 4096,
            )
        super().__init__(inherited)
        self.params = own

    async def _told(self, case: Case, ctx: Context) -> Case:
        """The case with its dimensions as its difference; an empty one where none was found, or none held."""
        if case.agreeing:
            return case._replace(difference=agreement(case, ctx))
        found = await self._listed(_open_drafts(case, ctx), ctx)
        if found and self.params.validate:
            confirmed = await self._listed(_check_drafts(case, found, ctx), ctx)
            if confirmed is None:
                ctx.flag("validation_failed")
            names = {_folded(dimension.name) for dimension in confirmed or ()}
            held = [dimension for dimension in found if _folded(dimension.name) in names]
            ctx.flag("dimensions_rejected", len(found) - len(held))
            found = held
        ctx.flag("dimensions", len(found or ()))
        return case._replace(
            difference="\n".join(
                f"- {d.name} ({d.definition}): {d.difference}" for d in found or ()
            )
        )

    async def _listed(self, drafts: Iterator[Draft], ctx: Context) -> list[Dimension] | None:
        """The dimensions of a reply; None when the reply, or the request, cannot be had or read."""
        allowance = self.settings.difference_max_tokens
        messages = fitting(drafts, allowance, ctx)
        if messages is None:
            return None
        schema = None if self.params.reasoning else SCHEMA
        text = self._said(await ctx.complete(messages, max_tokens=allowance, schema=schema), ctx)
        found, malformed = dimensions(text)
        if malformed:
            ctx.flag("dimensions_malformed", malformed)
        return found if found or '"dimensions"' in text else None

    def _said(self, reply: Response, ctx: Context) -> str:
        """What follows the thought; nothing, counted, where a thought has no end, or is missing but was asked for."""
        if not reply.text if reply.thought else self.params.reasoning:
            ctx.flag("thought_unfinished")
            return ""
        return reply.text


def dimensions(text: str) -> tuple[list[Dimension], int]:
    """The well-formed dimensions of a reply, each name once, and the number of blocks that are none."""
    found: dict[str, Dimension] = {}
    malformed = 0
    for row in _rows(text):
        values = [
            " ".join(value.split()) if isinstance(value := row.get(name), str) else ""
            for name in FIELDS
        ]
        if all(values):
            found.setdefault(_folded(values[0]), Dimension(*values))
        else:
            malformed += 1
    return list(found.values()), malformed


def _rows(text: str) -> Iterator[Mapping[str, Any]]:
    """The objects of a reply's list, or of one that is broken or missing; an empty one for each that cannot be read."""
    whole = first_json(text)
    listed = whole.get("dimensions") if isinstance(whole, dict) else whole
    if isinstance(listed, list):
        yield from (row if isinstance(row, dict) else {} for row in listed)
        return
    decoder = json.JSONDecoder(strict=False)
    place = text.find(
        "{", text.find("[", text.find('"dimensions"')) if '"dimensions"' in text else 0
    )
    while place >= 0:
        try:
            row, place = decoder.raw_decode(text, place)
        except ValueError:
            row, place = {}, place + 1
        yield row
        place = text.find("{", place)


def _folded(name: str) -> str:
    return " ".join(name.casefold().split())


def _open_drafts(case: Case, ctx: Context) -> Iterator[Draft]:
    words = ctx.task.words
    axes = "\n".join(f"- {name}: {definition}" for name, definition in words.axes)
    system = (
        f"You find out what is particular about one {words.person}. You see what this {words.person} and other people "
        f"made of the same or a comparable {words.stimulus}. Begin with these dimensions:\n{axes}\n"
        f"Then add as many dimensions of style and expression as the texts support. Leave out opinions and content, "
        f"and every dimension on which this {words.person} does not differ. {_FORM}"
    )
    yield from _under(system, "", difference_drafts(case, ctx))


def _check_drafts(case: Case, found: Sequence[Dimension], ctx: Context) -> Iterator[Draft]:
    person = ctx.task.words.person
    system = (
        f"You check what is said to be particular about one {person}. You see the texts and a list of dimensions. "
        f"Keep only the dimensions on which the texts really set this {person} apart from all the others, with their "
        f"names unchanged. {_FORM}"
    )
    listed = json.dumps(
        {"dimensions": [dimension._asdict() for dimension in found]}, ensure_ascii=False
    )
    yield from _under(system, f"\n\nDimensions to check:\n{listed}", difference_drafts(case, ctx))


def _under(system: str, after: str, drafts: Iterator[Draft]) -> Iterator[Draft]:
    """DPL's account of a case under another instruction."""
    for cut, (_, account) in drafts:
        yield cut, (Message("system", system), Message(account.role, account.content + after))
