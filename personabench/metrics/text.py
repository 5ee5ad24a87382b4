"""Text against one reference: ROUGE, and the reading of a reply without its reasoning and, leniently, its chatter.

ROUGE is the `rouge_score` package's F-measure with its default tokenizer (lower case, every run outside a-z and 0-9
separates) and no stemming, as a plain number per pair; averages are plain means, not bootstrap mid-points.  That
tokenizer sees no other script, so a Unicode variant with the words of every script stands beside it.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any

from personabench.metrics.metric import Metric
from personabench.metrics.scripts import LATIN, WordTokens
from personabench.models.reply import split

ROUGE = (
    Metric("rouge-1", sight=LATIN),
    Metric("rouge-L", sight=LATIN),
    Metric("rouge-1-unicode", variant_of="rouge-1"),
    Metric("rouge-L-unicode", variant_of="rouge-L"),
)
_FENCE = re.compile(r"^\s*```[^\n`]*\n?(.*?)\n?```\s*$", re.DOTALL | re.MULTILINE)
_EMPHASIS = (
    re.compile(r"(\*{1,3})(?=\S)(.+?)(?<=\S)\1", re.DOTALL),
    re.compile(r"(?<!\w)(_{1,3})(?=\S)(.+?)(?<=\S)\1(?!\w)", re.DOTALL),
    re.compile(r"(`)([^`\n]+)`"),
)
_HEADING = re.compile(r"^#{1,6}\s+", re.MULTILINE)
_LEAD_IN = re.compile(
    r"(?:(?:sure|certainly|of course)[,!.:]?\s+)?"
    r"(?:here(?:'s|’s| is)\b[^\n:]{0,60}:"
    r"|(?:(?:the|my|final|suggested|correct)\s+){0,2}"
    r"(?:answer|title|headline|subject(?: line)?|tweet|paraphrase|tag|category|rating|score|response|output|reference)"
    r"\s*:)\s*",
    re.IGNORECASE,
)
_QUOTES = {'"': '"', "'": "'", "“": "”", "‘": "’", "«": "»", "„": "“", "「": "」"}


@lru_cache(maxsize=2)
def _scorer(every_script: bool) -> Any:
    from rouge_score.rouge_scorer import RougeScorer

    return RougeScorer(
        ["rouge1", "rougeL"], use_stemmer=False, tokenizer=WordTokens() if every_script else None
    )


def rouge(prediction: str, reference: str, *, every_script: bool = False) -> dict[str, float]:
    """ROUGE-1 and ROUGE-L F-measure of a pair, 0 to 1; 0 where either side has no tokens.

    ROUGE-L takes one longest common subsequence over the whole text (Lin, 2004).  With `every_script` tokens are
    `personabench.metrics.scripts.words`.
    """
    scores = _scorer(every_script).score(reference, prediction)
    return {"rouge-1": scores["rouge1"].fmeasure, "rouge-L": scores["rougeL"].fmeasure}


def rouge_beside(prediction: str, reference: str) -> dict[str, float]:
    """The values of `ROUGE` for a pair: the official scores and their Unicode variants, which agree on ASCII."""
    official = rouge(prediction, reference)
    plainly = prediction.isascii() and reference.isascii()
    variant = official if plainly else rouge(prediction, reference, every_script=True)
    return official | {f"{name}-unicode": value for name, value in variant.items()}


def without_reasoning(output: str) -> str:
    """A reply without what the model thought aloud before it."""
    return split(output).answer


def plain(output: str) -> str:
    """A reply without reasoning, code fences, markdown emphasis, lead-ins and wrapping quotes."""
    text = _FENCE.sub(r"\1", without_reasoning(output))
    for pattern in _EMPHASIS:
        text = pattern.sub(r"\2", text)
    text = _HEADING.sub("", text).strip()
    while True:
        shorter = _unquoted(_without_lead_in(text)).strip()
        if shorter == text:
            return text
        text = shorter


def _without_lead_in(text: str) -> str:
    found = _LEAD_IN.match(text)
    return text[found.end() :] if found else text


def _unquoted(text: str) -> str:
    """Drop one pair of quotes that wraps the text; quotes that only begin and end it are not a pair."""
    if (
        len(text) < 2
        or _QUOTES.get(text[0]) != text[-1]
        or text[0] in text[1:-1]
        or text[-1] in text[1:-1]
    ):
        return text
    return text[1:-1]
