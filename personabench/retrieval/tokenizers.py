"""Tokenizers for BM25; a task declares the one that its retrieval texts are split with.

`words` is the default: case and punctuation carry no topic, and "Paris?" has to find "paris".
Scripts that put no spaces between words have no words to match without a dictionary.  They become
overlapping pairs of characters, as in Lucene's analyzer of Chinese, Japanese and Korean: a pair is
about a word long, while single characters are shared by most texts.  Korean is among them since its
particles are written together with their word.  `whitespace` is the tokenization of LaMP's
reference implementation.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Mapping
from functools import cache
from itertools import pairwise
from typing import Any

from personabench.errors import UsageError

Tokenize = Callable[[str], list[str]]

_ASCII_WORD = re.compile(r"[a-z0-9]+")
# The prolonged sound mark of Japanese belongs to no script of its own.
_UNSPACED = (
    r"\p{Han}\p{Hiragana}\p{Katakana}ー\p{Hangul}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}\p{Tibetan}"
)


def split_words(text: str) -> list[str]:
    """Split a text into lower-cased words of any script.

    A word is a run of letters, digits and the marks that combine with them.  A run in a script
    without spaces gives its overlapping pairs of characters, or the character if it is alone.
    """
    # Most texts are plain English, which this makes ten times as fast.
    if text.isascii():
        return _ASCII_WORD.findall(text.lower())

    folded = unicodedata.normalize("NFKC", text).casefold()
    tokens: list[str] = []
    for word, run in _pattern().findall(folded):
        if word:
            tokens.append(word)
        else:
            tokens += _split_pairs(run)
    return tokens


def _split_pairs(run: str) -> list[str]:
    import regex

    # A character with its combining marks, such as a Thai vowel, counts as one.
    characters: list[str] = regex.findall(r"\X", run)
    if len(characters) == 1:
        return characters
    return [first + second for first, second in pairwise(characters)]


@cache
def _pattern() -> Any:
    """The pattern of a word, or of a run in a script without spaces, as two groups."""
    # Imported on use, since most texts do not need it and commands should start fast.
    import regex

    letters = r"[\p{L}\p{M}\p{N}]"
    return regex.compile(rf"(?V1)([{letters}--[{_UNSPACED}]]+)|([{letters}&&[{_UNSPACED}]]+)")


TOKENIZERS: Mapping[str, Tokenize] = {
    "words": split_words,
    "whitespace": str.split,
}


def get_tokenizer(name: str) -> Tokenize:
    """Look up a tokenizer by its name.

    Raises:
        UsageError: unknown tokenizer.
    """
    # A task may declare anything, also a value that no mapping can be asked for.
    if not isinstance(name, str) or name not in TOKENIZERS:
        raise UsageError(f"unknown tokenizer {name!r}, expected one of {', '.join(TOKENIZERS)}")
    return TOKENIZERS[name]
