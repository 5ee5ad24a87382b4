"""Preferences that can be checked and satisfied by rule, for the simulated user of exact tests.

A preference is a list of phrases in the order of the table here.  The user (`user: rule`) accepts a
draft that keeps all rules and otherwise applies the fixes of the broken ones, in that order.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

# A text that breaks every rule except a limit above its ten words.
BASE = "The team met on Monday. They agreed on a plan."

_EMOJI = re.compile("[\U0001f300-\U0001faff\u2600-\u27bf]")
_AT_MOST = re.compile(r"at most (\d+) words?")
_GREETINGS = ("hello", "hi", "dear")


class Rule(NamedTuple):
    """A requirement for a text: its phrase, its check, and a fix for a text that breaks it."""

    phrase: str
    holds: Callable[[str], bool]
    fix: Callable[[str], str]


def parse_rules(phrases: Sequence[str]) -> tuple[Rule, ...]:
    """Parse phrases into rules in the table's order.

    Raises:
        ValueError: a phrase is unknown or repeated, or the rules' fixes cannot satisfy them all.
    """
    ordered = sorted((_find_kind(phrase), phrase) for phrase in phrases)
    kinds = {kind for kind, _ in ordered}
    if len(kinds) < len(ordered):
        raise ValueError(f"the rules {', '.join(phrases)} name one kind twice")

    rules = tuple(_TABLE[kind](phrase) for kind, phrase in ordered)
    # A later fix can break an earlier rule.  Whether it does depends on the text, so the rules are
    # tried on texts that are known to be difficult.
    for text in _make_probes(phrases):
        broken = list_broken(satisfy(text, rules), rules)
        if broken:
            raise ValueError(
                f"the rules {', '.join(phrases)} cannot all be kept: their fixes break "
                f"'{broken[0]}'"
            )
    return rules


def word_preference(rules: Sequence[Rule]) -> str:
    """Word some rules as a preference."""
    return "; ".join(rule.phrase for rule in rules)


def list_broken(text: str, rules: Sequence[Rule]) -> list[str]:
    """List the phrases of the rules that a text breaks."""
    return [rule.phrase for rule in rules if not rule.holds(text)]


def make_disliked(rules: Sequence[Rule]) -> str:
    """Make a text that breaks all of some rules, also with plain words before it."""
    longest = max(_list_limits(rule.phrase for rule in rules), default=0)
    # One repetition more than fits breaks a limit on the number of words.
    repetitions = 1 + longest // len(BASE.split())
    return " ".join([BASE] * repetitions)


def satisfy(text: str, rules: Sequence[Rule]) -> str:
    """Apply the fix of each rule that the text breaks when that rule's turn comes."""
    for rule in rules:
        if not rule.holds(text):
            text = rule.fix(text)
    return text


def _find_kind(phrase: str) -> int:
    """Index of a phrase's kind in the table.

    Raises:
        ValueError: the phrase is unknown.
    """
    if phrase in _PHRASES:
        return _PHRASES.index(phrase)
    if _AT_MOST.fullmatch(phrase):
        return _PHRASES.index("at most N words")
    raise ValueError(f"unknown rule '{phrase}'; the rules are: {', '.join(_PHRASES)}")


def _list_limits(phrases: Iterable[str]) -> list[int]:
    """The limits on the number of words among some phrases."""
    matches = [_AT_MOST.fullmatch(phrase) for phrase in phrases]
    return [int(match[1]) for match in matches if match]


def _make_probes(phrases: Sequence[str]) -> list[str]:
    """Texts on which fixes are likely to break one another."""
    probes = [
        "",
        BASE,
        f"{BASE}\n\n{BASE}",
        " ".join([BASE] * 20),
        "a\n\nb c d",
        "-\n- a\n-",
    ]
    for limit in _list_limits(phrases):
        for separator in (" ", "\n", "\n\n"):
            probes.append(separator.join(["Word"] * limit))
    return probes


def _make_lower_case(phrase: str) -> Rule:
    def holds(text: str) -> bool:
        return text == text.lower()

    return Rule(phrase, holds, str.lower)


def _make_bullets(phrase: str) -> Rule:
    def mark(line: str) -> str:
        if not line.strip() or line.startswith("- "):
            return line
        return f"- {line}"

    def holds(text: str) -> bool:
        return all(mark(line) == line for line in text.splitlines())

    def fix(text: str) -> str:
        return "\n".join(mark(line) for line in text.splitlines())

    return Rule(phrase, holds, fix)


def _make_at_most(phrase: str) -> Rule:
    limit = int(phrase.split()[2])

    def holds(text: str) -> bool:
        return len(text.split()) <= limit

    def fix(text: str) -> str:
        ends = [0, *(match.end() for match in re.finditer(r"\S+", text))]
        truncated = text[: ends[limit]] if limit < len(ends) else text
        # A lone mark is what remains of a bullet, and would break the rule of bullet points.
        if truncated.splitlines()[-1:] == ["-"]:
            return truncated[:-1].rstrip()
        return truncated

    return Rule(phrase, holds, fix)


def _make_question(phrase: str) -> Rule:
    def holds(text: str) -> bool:
        return text.rstrip().endswith("?")

    def fix(text: str) -> str:
        return f"{text} What do you think?"

    return Rule(phrase, holds, fix)


def _make_emoji(phrase: str) -> Rule:
    def holds(text: str) -> bool:
        return _EMOJI.search(text) is not None

    def fix(text: str) -> str:
        return f"{text} 🙂"

    return Rule(phrase, holds, fix)


def _make_greeting(phrase: str) -> Rule:
    def holds(text: str) -> bool:
        first = re.search(r"\w+", text)
        return first is not None and first[0].lower() in _GREETINGS

    def fix(text: str) -> str:
        return f"Hello,\n{text}"

    return Rule(phrase, holds, fix)


# The order in which fixes are applied, and of the phrases in a preference.
_PHRASES = (
    "all lower case",
    "bullet points",
    "at most N words",
    "ends with a question",
    "uses an emoji",
    "opens with a greeting",
)
_TABLE = (
    _make_lower_case,
    _make_bullets,
    _make_at_most,
    _make_question,
    _make_emoji,
    _make_greeting,
)
