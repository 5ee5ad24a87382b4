"""Texts in any script: their words, and which of them a metric's tokenizer does not see."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable

from personabench.metrics.metric import Metric, Sight

BLIND = 0.1
_UNSPACED = re.compile(
    "[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u1950-\u19df\u1a20-\u1aaf\u1b00-\u1b7f\ua980-\ua9ff\uaa60-\uaadf"
    "\u3005-\u3007\u3040-\u30ff\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\uff66-\uff9f\U00020000-\U0003ffff]"
)
"""Scripts without spaces between words: Thai, Lao, Myanmar, Khmer, Tai, Balinese, Javanese, kana and hanzi."""
_LATIN = re.compile(r"[a-z0-9]")


def words(text: str) -> list[str]:
    """The words of a text in any script, lower case; of scripts without spaces every character.

    A word is a run of letters, digits and the marks that combine with them; a mark belongs to the character before it.
    Composed and decomposed letters are the same, and invisible joiners are none.
    """
    found: list[str] = []
    open_word = markable = False
    for character in unicodedata.normalize("NFC", text.lower()):
        kind = unicodedata.category(character)
        if kind == "Cf":
            continue
        if kind[0] == "M":
            if markable:
                found[-1] += character
            continue
        markable = kind[0] in "LN"
        apart = markable and _UNSPACED.match(character) is not None
        if open_word and markable and not apart:
            found[-1] += character
        elif markable:
            found.append(character)
        open_word = markable and not apart
    return found


class WordTokens:
    """`words` as `rouge_score` takes a tokenizer."""

    def tokenize(self, text: str) -> list[str]:
        """The words of a text."""
        return words(text)


def _spaced(text: str) -> bool:
    letters = [character for character in text if character.isalpha()]
    return 2 * sum(_UNSPACED.match(letter) is not None for letter in letters) <= len(letters)


LATIN = Sight(
    lambda text: _LATIN.search(text.lower()) is not None,
    "hold no letter a-z and no digit, all that this tokenizer sees, so they score 0 whatever the answer is",
)
SPACED = Sight(
    _spaced,
    "are in a script without spaces between words, and this tokenizer takes whole phrases for words",
)


class Unseen:
    """Counts the references that metrics do not see, for a warning where they are more than a tenth."""

    def __init__(self, metrics: Iterable[Metric]) -> None:
        self._metrics = tuple(metrics)
        self._sights = dict.fromkeys(metric.sight for metric in self._metrics if metric.sight)
        self._counts: Counter[Sight] = Counter()
        self._n = 0

    def add(self, reference: str) -> None:
        """Take in one reference; an empty one is for no tokenizer to see."""
        self._n += 1
        if reference.strip():
            self._counts.update(sight for sight in self._sights if not sight.sees(reference))

    def warnings(self) -> list[str]:
        """A line for each way of seeing that misses more than a tenth of the references."""
        return [
            self._told(sight, count)
            for sight, count in self._counts.items()
            if count > BLIND * self._n
        ]

    def _told(self, sight: Sight, count: int) -> str:
        blind = [metric.name for metric in self._metrics if metric.sight == sight]
        others = [metric.name for metric in self._metrics if metric.variant_of in blind]
        remedy = f"; {', '.join(others)} count the words of every script" if others else ""
        return f"{', '.join(blind)}: {count} of {self._n} references {sight.lack}{remedy}"
