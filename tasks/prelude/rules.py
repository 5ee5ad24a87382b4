"""Preferences that can be checked and satisfied by rule: the simulated user of exact tests (`user: rule`).

A preference is a list of phrases in the order of the table here.  The user accepts a draft that keeps all of them and
otherwise applies the fixes of those it breaks, in that order.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import NamedTuple

BASE = "The team met on Monday. They agreed on a plan."
_EMOJI = re.compile("[\U0001f300-\U0001faff\u2600-\u27bf]")
_AT_MOST = re.compile(r"at most (\d+) words?")
_GREETINGS = ("hello", "hi", "dear")


class Rule(NamedTuple):
    """One thing asked of a text: its phrase, whether a text has it, and how to give it to a text that lacks it."""

    phrase: str
    holds: Callable[[str], bool]
    fix: Callable[[str], str]


def rules_of(phrases: Sequence[str]) -> tuple[Rule, ...]:
    """The rules behind some phrases, in the table's order.

    Raises:
        ValueError: a phrase is unknown or given twice, or the rules' own fixes cannot satisfy them all.
    """
    found = sorted((_place(phrase), phrase) for phrase in phrases)
    places = [place for place, _ in found]
    if len(set(places)) < len(places):
        raise ValueError(f"the rules {', '.join(phrases)} name one kind twice")
    rules = tuple(_TABLE[place](phrase) for place, phrase in found)
    for text in _probes(phrases):
        if broken := unkept(satisfied(text, rules), rules):
            raise ValueError(
                f"the rules {', '.join(phrases)} cannot all be kept: their fixes break '{broken[0]}'"
            )
    return rules


def worded(rules: Sequence[Rule]) -> str:
    """The preference in words."""
    return "; ".join(rule.phrase for rule in rules)


def unkept(text: str, rules: Sequence[Rule]) -> list[str]:
    """The phrases of the rules that a text breaks."""
    return [rule.phrase for rule in rules if not rule.holds(text)]


def disliked(rules: Sequence[Rule]) -> str:
    """A text that breaks every one of some rules, whatever plain words stand before it."""
    limits = [int(match[1]) for rule in rules if (match := _AT_MOST.fullmatch(rule.phrase))]
    return " ".join([BASE] * (1 + max(limits, default=0) // len(BASE.split())))


def satisfied(text: str, rules: Sequence[Rule]) -> str:
    """A text with the fix of each rule that it breaks when that rule's turn comes."""
    for rule in rules:
        text = text if rule.holds(text) else rule.fix(text)
    return text


def _place(phrase: str) -> int:
    if phrase in _PHRASES:
        return _PHRASES.index(phrase)
    if _AT_MOST.fullmatch(phrase):
        return _PHRASES.index("at most N words")
    raise ValueError(f"unknown rule '{phrase}'; the rules are: {', '.join(_PHRASES)}")


def _probes(phrases: Sequence[str]) -> list[str]:
    limits = [int(match[1]) for phrase in phrases if (match := _AT_MOST.fullmatch(phrase))]
    words = [between.join(["Word"] * limit) for limit in limits for between in (" ", "\n", "\n\n")]
    return ["", BASE, f"{BASE}\n\n{BASE}", " ".join([BASE] * 20), "a\n\nb c d", "-\n- a\n-", *words]


def _lower(phrase: str) -> Rule:
    return Rule(phrase, lambda text: text == text.lower(), str.lower)


def _bullets(phrase: str) -> Rule:
    def line(text: str) -> str:
        return text if not text.strip() or text.startswith("- ") else f"- {text}"

    return Rule(
        phrase,
        lambda text: all(line(each) == each for each in text.splitlines()),
        lambda text: "\n".join(map(line, text.splitlines())),
    )


def _at_most(phrase: str) -> Rule:
    limit = int(phrase.split()[2])

    def cut(text: str) -> str:
        """The first words, without a bullet of which only its mark is left."""
        ends = [0, *(match.end() for match in re.finditer(r"\S+", text))]
        kept = text[: ends[limit]] if limit < len(ends) else text
        return kept[:-1].rstrip() if kept.splitlines()[-1:] == ["-"] else kept

    return Rule(phrase, lambda text: len(text.split()) <= limit, cut)


def _question(phrase: str) -> Rule:
    return Rule(
        phrase, lambda text: text.rstrip().endswith("?"), lambda text: f"{text} What do you think?"
    )


def _emoji(phrase: str) -> Rule:
    return Rule(phrase, lambda text: bool(_EMOJI.search(text)), lambda text: f"{text} 🙂")


def _greeting(phrase: str) -> Rule:
    def greets(text: str) -> bool:
        first = re.search(r"\w+", text)
        return first is not None and first[0].lower() in _GREETINGS

    return Rule(phrase, greets, lambda text: f"Hello,\n{text}")


_PHRASES = (
    "all lower case",
    "bullet points",
    "at most N words",
    "ends with a question",
    "uses an emoji",
    "opens with a greeting",
)
_TABLE = (_lower, _bullets, _at_most, _question, _emoji, _greeting)
