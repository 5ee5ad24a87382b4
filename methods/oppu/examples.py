"""Token sequences to train on: a request, and a reply that alone is learnt."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from personabench.api.training import Exchange

IGNORED = -100
"""The label of a token that is no part of the loss."""


class Example(NamedTuple):
    """One sequence and its labels, both of one length.

    Attributes:
        tokens: request and reply.
        labels: the tokens to predict, `IGNORED` for those that are given.
    """

    tokens: tuple[int, ...]
    labels: tuple[int, ...]

    @property
    def learnt(self) -> int:
        """The number of tokens in the loss; the first of a sequence follows nothing."""
        return sum(label != IGNORED for label in self.labels[1:])


def make_example(
    exchange: Exchange, tokenizer: Any, prompt: Callable[..., list[int]], cutoff: int, loss: str
) -> Example | None:
    """Tokenize an exchange; None if the reply alone is longer than the cutoff.

    A long request is cut at its left, where records stand, and a reply never.

    Args:
        prompt: the tokens of messages, up to the place where the reply begins.
        loss: "output", or "all" for the request's tokens too.
    """
    output = tokenizer(exchange.output, add_special_tokens=False)["input_ids"]
    output = [*output, tokenizer.eos_token_id]
    if len(output) > cutoff:
        return None

    given = prompt(tokenizer, exchange.messages) if exchange.messages else []
    room = cutoff - len(output)
    given = given[len(given) - room :] if len(given) > room else given
    ignored = [IGNORED] * len(given) if loss == "output" else given
    return Example((*given, *output), (*ignored, *output))


def make_batches(
    examples: Sequence[Example], order: Sequence[int], size: int
) -> list[list[Example]]:
    """Examples in an order, `size` of them for each update."""
    return [
        [examples[index] for index in order[start : start + size]]
        for start in range(0, len(order), size)
    ]


def make_parts(batch: Sequence[Example], tokens: int) -> list[list[Example]]:
    """Divide a batch into parts that fit the memory: padded, at most `tokens` or one example."""
    parts: list[list[Example]] = []
    longest = 0
    for example in sorted(batch, key=lambda example: len(example.tokens)):
        longest = len(example.tokens)
        if parts and longest * (len(parts[-1]) + 1) <= tokens:
            parts[-1].append(example)
        else:
            parts.append([example])
    return parts
