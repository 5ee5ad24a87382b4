"""Whether a person changed a text by more than a threshold, in units of PRELUDE's edit cost (arXiv 2404.15269).

The cost counts NLTK word tokens, which need NLTK's sentence data.  Most offline questions are only whether anything
was changed at all, and that is decided here without the data wherever the answer cannot depend on it.
"""

from __future__ import annotations

from personabench.api.wording import ResponseKind
from personabench.metrics.edits import edit_cost


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
