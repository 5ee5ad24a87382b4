"""The case: a user with facts, a request, and for each fact whether it belongs into the answer.

Every set of this family has this form, whatever its source: marks are the data's, and the tokens of
a fact are names, numbers or rare words by which its use is recognized without a judge.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec

from personabench.errors import DataError

MOST_FACTS = 50
"""Facts of a user are bits of a number that a float holds exactly."""


class Fact(msgspec.Struct, frozen=True):
    """A fact about a user, in the user's words, and the tokens that give its use away."""

    id: str
    text: str
    tokens: tuple[str, ...]
    domain: str = ""


class Request(msgspec.Struct, frozen=True):
    """A request.

    Attributes:
        apply: ids of the facts that belong into the answer; all others do not.
        kind: the kind of request, for reports.
    """

    id: str
    text: str
    apply: tuple[str, ...]
    kind: str = ""


class Case(msgspec.Struct, frozen=True):
    """A user: facts in the order in which they were told, small talk between them, and requests."""

    user_id: str
    facts: tuple[Fact, ...]
    requests: tuple[Request, ...]
    talk: tuple[str, ...] = ()


def read_cases(path: Path) -> list[Case]:
    """Read cases from JSON lines, one user a line.

    Raises:
        DataError: the file is missing or broken; the message names line and field.
    """
    try:
        lines = path.read_bytes().splitlines()
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}") from error
    cases = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            case = msgspec.json.decode(line, type=Case)
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise DataError(f"{path}, line {number}: {error}") from error
        for problem in _find_problems(case):
            raise DataError(f"{path}, line {number}: {problem}")
        cases.append(case)
    if not cases:
        raise DataError(f"{path} has no cases, expected one user a line")
    return cases


def _find_problems(case: Case) -> Iterator[str]:
    ids = [fact.id for fact in case.facts]
    if len(set(ids)) < len(ids):
        yield "two facts have the same id, expected different ones"
    if len(ids) > MOST_FACTS:
        yield f"{len(ids)} facts, expected at most {MOST_FACTS}"
    for fact in case.facts:
        if not fact.tokens or not all(fold(token) for token in fact.tokens):
            yield f"fact '{fact.id}' has no tokens, expected words or numbers that give it away"
        elif not any(mentions(fact.text, token) for token in fact.tokens):
            yield f"fact '{fact.id}': its text has none of its tokens"
    for request in case.requests:
        unknown = set(request.apply).difference(ids)
        if unknown:
            yield f"request '{request.id}' applies '{min(unknown)}', which is none of the facts"


def fold(text: str) -> str:
    """A text without case and punctuation, numbers without the marks of thousands; blanks around.

    "€ 43,217.-" and "43 217" are the same number in German and English letters.
    """
    kept: list[str] = []
    characters = text.casefold()
    for position, character in enumerate(characters):
        if character.isalnum():
            kept.append(character)
        elif not _joins_digits(characters, position):
            kept.append(" ")
    words = "".join(kept).split()
    return f" {' '.join(words)} " if words else ""


def _joins_digits(text: str, position: int) -> bool:
    """Whether a mark stands between a digit and a group of three."""
    if text[position] not in ",.'’ \u00a0\u202f" or not position:
        return False
    group = text[position + 1 : position + 4]
    is_whole = not text[position + 4 : position + 5].isdigit()
    return text[position - 1].isdigit() and len(group) == 3 and group.isdigit() and is_whole


def mentions(text: str, token: str) -> bool:
    """Whether a text has a token as a word of its own."""
    return fold(token) in fold(text)


def list_tokens(cases: Sequence[Case]) -> dict[str, tuple[str, ...]]:
    """The tokens of each user's facts, by user."""
    return {
        case.user_id: tuple(token for fact in case.facts for token in fact.tokens) for case in cases
    }
