"""ROUGE of a text against one reference, and answers without reasoning, markup and lead-ins.

ROUGE is the `rouge_score` package's F-measure with its default tokenizer (lower case, every run
outside a-z and 0-9 separates) and without stemming, as a plain number per pair; averages are plain
means, not bootstrap mid-points.  That tokenizer reads no other script, so a Unicode variant counts
the words of every script.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from functools import lru_cache
from typing import Any

from personabench.metrics.metric import Metric
from personabench.metrics.rouge import IMPORTS, create_scorer
from personabench.metrics.scripts import LATIN, WordTokens
from personabench.models.reply import split_reply

ROUGE = (
    Metric("rouge-1", scope=LATIN, imports=IMPORTS),
    Metric("rouge-L", scope=LATIN, imports=IMPORTS),
    Metric("rouge-1-unicode", variant_of="rouge-1"),
    Metric("rouge-L-unicode", variant_of="rouge-L"),
)
_OPENING_FENCE = re.compile(r"^[^\S\n]*```[^\n`]*\n?", re.MULTILINE)
# A lookahead, because the fences of a longer row of backticks overlap.
_CLOSING_FENCE = re.compile(r"(?=(```\s*$))", re.MULTILINE)
_CODE = re.compile(r"`([^`\n]+)`")
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
    text = _drop_fences(strip_reasoning(output))
    text = _drop_emphasis(_drop_emphasis(text, "*"), "_", whole_words=True)
    text = _CODE.sub(r"\1", text)
    text = _HEADING.sub("", text).strip()

    # Lead-ins and quotes nest (`Subject line: "Title: Lunch"`), so both are dropped until none is
    # left.
    while True:
        shorter = _unquote(_drop_lead_in(text)).strip()
        if shorter == text:
            return text
        text = shorter


def drop_last_lines(text: str, marks: str) -> str:
    """Drop the lines at the end of a text that hold nothing but white space and some marks."""
    content = text.rstrip(f"{marks} \t\r\n")
    if not content:
        return ""
    # The last line with content may end in such marks itself.
    line_end = text.find("\n", len(content))
    return text if line_end < 0 else text[: line_end + 1]


def _drop_fences(text: str) -> str:
    """Drop code fences, with the blank lines before them and their white space."""
    closings = [match.span(1) for match in _CLOSING_FENCE.finditer(text)]
    kept = []
    done = 0
    for opening in _OPENING_FENCE.finditer(text):
        if opening.start() < done:
            continue
        # Searched once, so that many openings without an end do not each read the whole text.
        index = bisect_left(closings, (opening.end(), 0))
        if index == len(closings):
            break
        content_end, end = closings[index]
        begins_line = done == 0 or text[done - 1] == "\n"
        kept.append(_drop_blank_lines(text[done : opening.start()], begins_line))
        kept.append(text[opening.end() : content_end].removesuffix("\n"))
        done = end
    kept.append(text[done:])
    return "".join(kept)


def _drop_blank_lines(text: str, begins_line: bool) -> str:
    """Drop the blank lines at the end of a text."""
    content = text.rstrip()
    if not content and begins_line:
        return ""
    first_break = text.find("\n", len(content))
    return text if first_break < 0 else text[: first_break + 1]


def _drop_emphasis(text: str, mark: str, whole_words: bool = False) -> str:
    """Drop pairs of one to three marks around text that neither begins nor ends with a blank.

    Args:
        whole_words: marks within a word are no emphasis.
    """
    if mark not in text:
        return text

    def is_word(index: int) -> bool:
        inside = 0 <= index < len(text)
        return inside and (text[index].isalnum() or text[index] == "_")

    runs = [match.span() for match in re.finditer(rf"{re.escape(mark)}+", text)]
    # Collected once for each width, so that a mark without an end does not read the whole text.
    closings: dict[int, list[int]] = {1: [], 2: [], 3: []}
    for width, positions in closings.items():
        for start, end in runs:
            for position in range(max(start, 1), end - width + 1):
                if text[position - 1].isspace() or (whole_words and is_word(position + width)):
                    continue
                positions.append(position)

    def find_pair(opening: int, end: int) -> tuple[int, int] | None:
        """The width of the marks that open here, and the position of those that close."""
        for width in range(min(3, end - opening), 0, -1):
            content = opening + width
            if content >= len(text) or text[content].isspace():
                continue
            index = bisect_left(closings[width], content + 1)
            if index < len(closings[width]):
                return width, closings[width][index]
        return None

    kept = []
    done = 0
    for start, end in runs:
        opening = max(start, done)
        while opening < end:
            is_inside_word = whole_words and is_word(opening - 1)
            pair = None if is_inside_word else find_pair(opening, end)
            if pair is None:
                opening += 1
                continue
            width, closing = pair
            kept += [text[done:opening], text[opening + width : closing]]
            done = opening = closing + width
    kept.append(text[done:])
    return "".join(kept)


def _drop_lead_in(text: str) -> str:
    match = _LEAD_IN.match(text)
    return text[match.end() :] if match else text


def _unquote(text: str) -> str:
    """Drop one pair of quotes around a text, unless either quote occurs inside as well."""
    if len(text) < 2 or _QUOTES.get(text[0]) != text[-1]:
        return text
    inner = text[1:-1]
    return text if text[0] in inner or text[-1] in inner else inner
