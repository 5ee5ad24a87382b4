"""Compare a draft with the user's version by PRELUDE's edit cost (arXiv 2404.15269).

The cost counts NLTK word tokens.  Offline, most comparisons only need to know whether anything
changed at all, which is decided without tokens if the result cannot depend on them.
"""

from __future__ import annotations

from personabench.api.wording import ResponseKind
from personabench.metrics.edits import edit_cost


def is_costly_edit(
    draft: str,
    final: str,
    threshold: float,
    kind: ResponseKind,
) -> bool:
    """Whether turning the draft into the final costs more than a threshold.

    Texts cost their edits, labels 0 or 1, scores their absolute difference.
    """
    if kind == "ordinal":
        return abs(float(draft) - float(final)) > threshold
    if kind == "category":
        changed = draft.strip().casefold() != final.strip().casefold()
        return float(changed) > threshold

    if draft.split() == final.split():
        return False
    # Tokens keep every character but white space and the kind of quotes, so other characters mean
    # other tokens.
    if threshold == 0 and _characters(draft) != _characters(final):
        return True
    return edit_cost(draft, final) > threshold


def _characters(text: str) -> str:
    joined = "".join(text.split())
    # NLTK's tokenizer rewrites double quotes as two single ones or two backticks.
    return joined.replace('"', "''").replace("`", "'")
