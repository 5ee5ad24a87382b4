"""Texts in any script: split them into words, and find those that a metric's tokenizer misses."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable

from personabench.metrics.metric import Metric, TokenizerScope

WARNING_SHARE = 0.1
# Scripts without spaces between words: Thai, Lao, Myanmar, Khmer, Tai, Balinese, Javanese, kana and
# hanzi.
_UNSPACED = re.compile(
    "[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u1950-\u19df\u1a20-\u1aaf\u1b00-\u1b7f\ua980-\ua9ff"
    "\uaa60-\uaadf\u3005-\u3007\u3040-\u30ff\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
    "\uff66-\uff9f\U00020000-\U0003ffff]"
)
_LATIN = re.compile(r"[a-z0-9]")


def split_words(text: str) -> list[str]:
    """Split a text in any script into lower-case words, or characters if the script has no spaces.

    A word is a run of letters, digits and the marks that combine with them; a mark belongs to the
    character before it.  Composed and decomposed letters are the same, and invisible joiners are
    dropped.
    """
    words: list[str] = []
    word_is_open = False
    accepts_mark = False
    for character in unicodedata.normalize("NFC", text.lower()):
        category = unicodedata.category(character)
        if category == "Cf":
            continue
        if category[0] == "M":
            if accepts_mark:
                words[-1] += character
            continue

        is_letter = category[0] in "LN"
        is_word = is_letter and _UNSPACED.match(character) is not None
        if word_is_open and is_letter and not is_word:
            words[-1] += character
        elif is_letter:
            words.append(character)
        accepts_mark = is_letter
        word_is_open = is_letter and not is_word
    return words


class WordTokens:
    """`split_words` in the form of a `rouge_score` tokenizer."""

    def tokenize(self, text: str) -> list[str]:
        """Split a text into words."""
        return split_words(text)


def _has_latin(text: str) -> bool:
    return _LATIN.search(text.lower()) is not None


def _is_spaced(text: str) -> bool:
    letters = [character for character in text if character.isalpha()]
    unspaced = sum(_UNSPACED.match(letter) is not None for letter in letters)
    return 2 * unspaced <= len(letters)


LATIN = TokenizerScope(
    covers=_has_latin,
    limitation=(
        "hold no letter a-z and no digit, the only characters this tokenizer reads, so every "
        "answer scores 0"
    ),
)
SPACED = TokenizerScope(
    covers=_is_spaced,
    limitation=(
        "are in a script without spaces between words, and this tokenizer takes whole phrases for "
        "words"
    ),
)


class ReferenceCoverage:
    """Counts the references that metrics do not cover, to warn if they are more than a tenth."""

    def __init__(self, metrics: Iterable[Metric]) -> None:
        self._metrics = tuple(metrics)
        # A dict instead of a set: warnings keep the order of the metrics.
        self._scopes = dict.fromkeys(metric.scope for metric in self._metrics if metric.scope)
        self._uncovered: Counter[TokenizerScope] = Counter()
        self._total = 0

    def add(self, reference: str) -> None:
        """Count one reference; an empty one is covered by every tokenizer."""
        self._total += 1
        if not reference.strip():
            return
        for scope in self._scopes:
            if not scope.covers(reference):
                self._uncovered[scope] += 1

    def warnings(self) -> list[str]:
        """One line for each tokenizer that misses more than a tenth of the references."""
        limit = WARNING_SHARE * self._total
        return [
            self._describe(scope, count)
            for scope in self._scopes
            if (count := self._uncovered[scope]) > limit
        ]

    def _describe(self, scope: TokenizerScope, count: int) -> str:
        affected = [metric.name for metric in self._metrics if metric.scope == scope]
        variants = [metric.name for metric in self._metrics if metric.variant_of in affected]
        warning = f"{', '.join(affected)}: {count} of {self._total} references {scope.limitation}"
        if variants:
            warning += f"; {', '.join(variants)} count the words of every script"
        return warning
