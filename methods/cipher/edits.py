"""How much a person changed a text: the edit cost of PRELUDE (arXiv 2404.15269), and whether it exceeds a threshold.

The cost counts NLTK word tokens, which need NLTK's sentence data.  Most offline questions are only whether anything
was changed at all, and that is decided here without the data wherever the answer cannot depend on it.
"""

from __future__ import annotations

from collections.abc import Sequence

from personabench import UsageError
from personabench.task import ResponseKind


def edit_cost(draft: str, final: str) -> int:
    """Levenshtein distance between two texts' NLTK word tokens, case included; 0 for the same tokens.

    Raises:
        UsageError: NLTK's sentence data is not installed.
    """
    return _distance(_tokens(draft), _tokens(final))


def differs(draft: str, final: str, threshold: float, kind: ResponseKind) -> bool:
    """Whether turning the draft into the final costs more than a threshold.

    Texts cost their edits, labels 0 or 1, scores their absolute difference.

    Raises:
        UsageError: the answer depends on word tokens, and NLTK's sentence data is not installed.
    """
    if kind == "ordinal":
        return abs(float(draft) - float(final)) > threshold
    if kind == "category":
        return float(draft.strip().casefold() != final.strip().casefold()) > threshold
    if draft.split() == final.split():
        return False
    # Tokens keep every character but white space and the kind of quotes, so other characters mean other tokens.
    if threshold == 0 and _characters(draft) != _characters(final):
        return True
    return edit_cost(draft, final) > threshold


def _characters(text: str) -> str:
    return "".join(text.split()).replace('"', "''").replace("`", "'")


def _tokens(text: str) -> list[str]:
    from nltk import word_tokenize  # type: ignore[import-untyped]

    try:
        tokens: list[str] = word_tokenize(text)
    except LookupError as error:
        raise UsageError(
            "the edit cost counts NLTK word tokens and needs NLTK's sentence data, which is not installed; "
            "run once: python -m nltk.downloader punkt_tab"
        ) from error
    return tokens


def _distance(one: Sequence[str], other: Sequence[str]) -> int:
    row = list(range(len(other) + 1))
    for place, token in enumerate(one, 1):
        diagonal, row[0] = row[0], place
        for column, candidate in enumerate(other, 1):
            cost = min(row[column] + 1, row[column - 1] + 1, diagonal + (token != candidate))
            diagonal, row[column] = row[column], cost
    return row[-1]
