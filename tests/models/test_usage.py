"""What is believed of a server's token counts: usage that can be true, and prompts that were read
whole."""

from __future__ import annotations

import pytest

from personabench.errors import BackendError
from personabench.models.tokens import EstimatedTokens, Tokens
from personabench.models.usage import PromptCounts, fewest_tokens, is_credible, max_usage
from personabench.types import Message, Request, Response, Usage

ENGLISH = (
    "The quick brown fox jumps over the lazy dog, and nobody who saw it was the least surprised. "
)


def ask(text: str, max_tokens: int = 20) -> Request:
    return Request((Message("user", text),), max_tokens)


@pytest.mark.parametrize(
    ("given", "made", "text", "believed"),
    [
        (30, 5, "fine", True),
        (30, 0, "", True),
        (30, 900, "thought at length", True),
        (0, 0, "fine", False),
        (30, 0, "fine", False),
        (0, 5, "fine", False),
        (-30, 5, "fine", False),
        (30, -5, "fine", False),
        (10**9, 5, "fine", False),
        (30, 10**9, "fine", False),
    ],
)
def test_usage_is_believed_where_it_can_be_true(
    given: int, made: int, text: str, believed: bool
) -> None:
    assert is_credible(ask(ENGLISH), Response(text, usage=Usage(given, made))) is believed


def test_a_weighed_reply_makes_no_tokens() -> None:
    assert is_credible(ask(ENGLISH, 0), Response("given", usage=Usage(30)))


def test_the_dearest_call_is_no_cheaper_than_any_other() -> None:
    assert max_usage(ask(ENGLISH)) == Usage(len(ENGLISH) + 32, 20)


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        # What the thriftiest tokenizers of large models make of such text, rounded down.
        (ENGLISH * 20, 20 * 18),
        (
            "Die Geschwindigkeitsbegrenzung wird im Bundesverkehrsministerium seit Jahren vertagt. "
            * 20,
            20 * 14,
        ),
        ("今天天气很好，我们决定去公园散步，然后在附近的餐厅吃午饭。" * 20, 20 * 15),
        ("आज मौसम बहुत अच्छा है और हम सब बाजार जाने की योजना बना रहे हैं। " * 20, 20 * 15),
        ("วันนี้อากาศดีมากเราจึงตัดสินใจไปเดินเล่นที่สวนสาธารณะ " * 20, 20 * 13),
        ("=" * 5000 + "\n" * 300 + " " * 9000, 60),
    ],
)
def test_the_bound_accuses_no_honest_server(text: str, tokens: int) -> None:
    assert fewest_tokens(text) <= tokens


@pytest.mark.parametrize("text", [ENGLISH * 40, "今天天气很好，我们决定去公园散步。" * 100])
async def test_a_count_far_below_the_text_is_a_cut(text: str) -> None:
    honest = len(text) // (5 if text.isascii() else 2)
    assert not await PromptCounts().is_truncated(ask(text), honest, EstimatedTokens())
    assert await PromptCounts().is_truncated(ask(text), 300, EstimatedTokens())


async def test_one_highest_count_for_prompts_of_very_different_lengths_is_a_cut() -> None:
    prompts = PromptCounts()
    found = [
        await prompts.is_truncated(ask(ENGLISH * times), 300, EstimatedTokens())
        for times in (13, 20, 14, 30, 16, 31)
    ]
    assert found == [False, False, False, True, False, True]
    assert not await prompts.is_truncated(ask(ENGLISH * 29), 580, EstimatedTokens())


class Counting(Tokens):
    """A token to a word, or no answer; texts that were counted are kept."""

    def __init__(self, works: bool = True) -> None:
        self.works = works
        self.counted: list[str] = []

    def count(self, text: str) -> int:
        self.counted.append(text)
        if not self.works:
            raise BackendError("no server")
        return len(text.split())

    def truncate(self, text: str, limit: int) -> str:
        return text


async def test_an_exact_tokenizer_decides_where_there_is_a_doubt() -> None:
    tokens, prompt = Counting(), ask(ENGLISH * 10)
    assert await PromptCounts().is_truncated(prompt, 100, tokens) and tokens.counted
    blanks = ask("word" + " " * 4000)
    assert not await PromptCounts().is_truncated(blanks, 9, tokens)
    counted = len(tokens.counted)
    assert (
        not await PromptCounts().is_truncated(prompt, 180, tokens)
        and len(tokens.counted) == counted
    )
    assert not await PromptCounts().is_truncated(prompt, 100, Counting(works=False))
