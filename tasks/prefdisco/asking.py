"""How a set's authors are asked: one of several models per question, JSON back, another try with the reason why not.

Which model gets a question is drawn from the seed and the question's name, so that the same command asks the same.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from personabench.errors import DataError
from personabench.tasks.prefdisco.wording import json_of
from personabench.types import Message

if TYPE_CHECKING:
    from personabench.models.roles import Role

T = TypeVar("T")
TRIES = 3
TEMPERATURE = 0.7
TOP_P = 0.95
MAX_TOKENS = 4096


class Unfit(Exception):
    """A reply that breaks a rule; the message tells the model which."""


class Authors:
    """Several models that write a set together.

    Args:
        models: at least one; seed: of the draws.
    """

    def __init__(self, models: Sequence[Role], seed: int) -> None:
        self.models = models
        self.seed = seed

    def rng(self, *names: object) -> random.Random:
        """A generator that depends on the seed and the names alone."""
        return random.Random("\x1f".join(map(str, (self.seed, *names))))

    async def ask(
        self,
        name: str,
        system: str,
        user: str,
        schema: Mapping[str, Any],
        read: Callable[[dict[str, Any]], T],
    ) -> T:
        """What `read` makes of the reply, a JSON object; after `Unfit` up to two more tries that are told why.

        Raises:
            DataError: no try gave what is needed.
            BackendError: a call failed for good.
        """
        rng, hint = self.rng("author", name), ""

        def usable(reply: str) -> bool:
            try:
                _read(reply, read)
            except Unfit:
                return False
            return True

        for repeat in range(TRIES):
            messages = (
                Message("system", f"{system}\nReply with a JSON object."),
                Message("user", f"{user}{hint}"),
            )
            text = await rng.choice(self.models).complete(
                messages,
                max_tokens=MAX_TOKENS,
                temperature=TEMPERATURE,
                top_p=TOP_P,
                schema=schema,
                repeat=repeat,
                accept=usable,
            )
            try:
                return _read(text, read)
            except Unfit as problem:
                hint = f"\n\nAn earlier reply could not be used: {problem}."
        raise DataError(
            f"{name}: no usable reply in {TRIES} tries; the last: {hint.partition(': ')[2]}"
        )


def _read(reply: str, read: Callable[[dict[str, Any]], T]) -> T:
    found = json_of(reply)
    if found is None:
        raise Unfit("it is not a JSON object")
    try:
        return read(found)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise Unfit(f"a field is missing or of another kind ({error})") from error


def objects(
    fields: Mapping[str, Any], *, at_least: int = 0, at_most: int | None = None
) -> dict[str, Any]:
    """The schema of a list of objects that have these fields."""
    bounds = {"minItems": at_least} | ({} if at_most is None else {"maxItems": at_most})
    return {"type": "array", "items": single(fields), **bounds}


def single(fields: Mapping[str, Any]) -> dict[str, Any]:
    """The schema of an object that has these fields."""
    return {
        "type": "object",
        "properties": dict(fields),
        "required": list(fields),
        "additionalProperties": False,
    }


TEXT = {"type": "string"}
GRADE = {"type": "integer", "minimum": 1, "maximum": 5}
