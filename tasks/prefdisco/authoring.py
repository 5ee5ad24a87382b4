"""Calls to the models that write a set, with JSON replies and retries that give the reason.

The model of a request is drawn from the seed and the request's name, so that the same command sends
the same requests and a repeated one is answered from the cache.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from personabench.errors import DataError
from personabench.tasks.prefdisco.wording import parse_json_object
from personabench.types import Message

if TYPE_CHECKING:
    from personabench.models.roles import Role

T = TypeVar("T")

TRIES = 3

# Sets need variety, so authors are sampled warmer than judges and simulated users.
TEMPERATURE = 0.7
TOP_P = 0.95
MAX_TOKENS = 4096

TEXT = {"type": "string"}
GRADE = {"type": "integer", "minimum": 1, "maximum": 5}


class UnfitReplyError(Exception):
    """A reply that breaks a rule; the message tells the model which."""


class Authors:
    """Several models that write a set together.

    Args:
        models: at least one.
        seed: seed of all draws.
    """

    def __init__(self, models: Sequence[Role], seed: int) -> None:
        self.models = models
        self.seed = seed

    def make_rng(self, *keys: object) -> random.Random:
        """Make a generator that depends on the seed and the keys alone."""
        return random.Random("\x1f".join(map(str, (self.seed, *keys))))

    async def request(
        self,
        name: str,
        system: str,
        user: str,
        schema: Mapping[str, Any],
        parse: Callable[[dict[str, Any]], T],
    ) -> T:
        """Return the parsed reply, a JSON object, after up to three tries.

        A further try gets the reason why the reply before it could not be used.

        Raises:
            DataError: no reply could be used.
            BackendError: a call failed for good.
        """
        rng = self.make_rng("author", name)
        hint = ""

        def is_usable(reply: str) -> bool:
            try:
                _parse_reply(reply, parse)
            except UnfitReplyError:
                return False
            return True

        for repeat in range(TRIES):
            messages = (
                Message("system", f"{system}\nReply with a JSON object."),
                Message("user", f"{user}{hint}"),
            )
            # A retry may go to another model: one that failed once is likely to fail again.
            author = rng.choice(self.models)
            reply = await author.complete(
                messages,
                max_tokens=MAX_TOKENS,
                temperature=TEMPERATURE,
                top_p=TOP_P,
                schema=schema,
                repeat=repeat,
                accept=is_usable,
            )
            try:
                return _parse_reply(reply, parse)
            except UnfitReplyError as problem:
                hint = f"\n\nAn earlier reply could not be used: {problem}."

        reason = hint.partition(": ")[2]
        raise DataError(f"{name}: no usable reply in {TRIES} tries; the last: {reason}")


def make_list_schema(
    fields: Mapping[str, Any],
    *,
    at_least: int = 0,
    at_most: int | None = None,
) -> dict[str, Any]:
    """Make the schema of a list of objects that have these fields."""
    schema = {"type": "array", "items": make_object_schema(fields), "minItems": at_least}
    if at_most is not None:
        schema["maxItems"] = at_most
    return schema


def make_object_schema(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Make the schema of an object that has these fields."""
    return {
        "type": "object",
        "properties": dict(fields),
        "required": list(fields),
        "additionalProperties": False,
    }


def _parse_reply(reply: str, parse: Callable[[dict[str, Any]], T]) -> T:
    """Parse a reply.

    Raises:
        UnfitReplyError: it is not JSON, lacks a field, or breaks a rule of `parse`.
    """
    fields = parse_json_object(reply)
    if fields is None:
        raise UnfitReplyError("it is not a JSON object")
    try:
        return parse(fields)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UnfitReplyError(f"a field is missing or of another kind ({error})") from error
