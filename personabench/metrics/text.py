"""ROUGE of a text against one reference, and answers without reasoning, markup and lead-ins.

ROUGE is the `rouge_score` package's F-measure with its default tokenizer (lower case, every run
outside a-z and 0-9 separates) and without stemming, as a plain number per pair; averages are plain
means, not bootstrap mid-points.  That tokenizer reads no other script, so a Unicode variant counts
the words of every script.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any

from personabench.metrics.metric import Metric
from personabench.metrics.rouge import create_scorer
from personabench.metrics.scripts import LATIN, WordTokens
from personabench.models.reply import split_reply

ROUGE = (
    Metric("rouge-1", scope=LATIN),
    Metric("rouge-L", scope=LATIN),
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
    r"(?:answer|title|headline|subject(?: line)?|tweet|paraphrase|tag|category|rating|score"
    r"|response|output|reference)"
    r"\s*:)\s*",
    re.IGNORECASE,
)
_QUOTES = {
    '"': '"',
    "'": "'",
    "“": "”",
    "‘": "’",
    "«": "»",
    "„": "“",
    "「": "」",
}


@lru_cache(maxsize=2)
def _create_scorer(every_script: bool) -> Any:
    return create_scorer(["rouge1", "rougeL"], WordTokens() if every_script else None)


def rouge(
    prediction: str,
    reference: str,
    *,
    every_script: bool = False,
) -> dict[str, float]:
    """ROUGE-1 and ROUGE-L F-measure of a pair, 0 to 1; 0 if either side has no tokens.

    ROUGE-L takes one longest common subsequence over the whole text (Lin, 2004).  With
    `every_script` tokens are `personabench.metrics.scripts.split_words`.
    """
    scores = _create_scorer(every_script).score(reference, prediction)
    return {
        "rouge-1": scores["rouge1"].fmeasure,
        "rouge-L": scores["rougeL"].fmeasure,
    }


def rouge_with_variants(
    prediction: str,
    reference: str,
) -> dict[str, float]:
    """The values of `ROUGE` for a pair: the official scores and their Unicode variants."""
    official = rouge(prediction, reference)
    # On ASCII both tokenizers find the same words, so the second pass is saved.
    if prediction.isascii() and reference.isascii():
        variant = official
    else:
        variant = rouge(prediction, reference, every_script=True)
    unicode_scores = {f"{name}-unicode": value for name, value in variant.items()}
    return official | unicode_scores


def strip_reasoning(output: str) -> str:
    """Drop the reasoning of a model from its reply."""
    return split_reply(output).answer


def strip_chatter(output: str) -> str:
    """Drop reasoning, code fences, markdown emphasis, lead-ins and wrapping quotes from a reply."""
    text = _FENCE.sub(r"\1", strip_reasoning(output))
    for pattern in _EMPHASIS:
        text = pattern.sub(r"\2", text)
    text = _HEADING.sub("", text).strip()

    # Lead-ins and quotes nest (`Subject line: "Title: Lunch"`), so both are dropped until none is
    # left.
    while True:
        shorter = _unquote(_drop_lead_in(text)).strip()
        if shorter == text:
            return text
        text = shorter


def _drop_lead_in(text: str) -> str:
    match = _LEAD_IN.match(text)
    return text[match.end() :] if match else text


def _unquote(text: str) -> str:
    """Drop one pair of quotes around a text, unless either quote occurs inside as well."""
    if len(text) < 2 or _QUOTES.get(text[0]) != text[-1]:
        return text
    inner = text[1:-1]
    return text if text[0] in inner or text[-1] in inner else inner
