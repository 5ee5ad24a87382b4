"""The value of `--users`: a number of users, and which."""

from __future__ import annotations

from typing import NamedTuple

import typer

_LONGEST = "longest:"


class UserChoice(NamedTuple):
    """The value of `--users`: how many, and whether those with the longest histories."""

    number: int
    longest: bool = False

    def __str__(self) -> str:
        return f"{_LONGEST if self.longest else ''}{self.number}"


def read_users(text: str | UserChoice) -> UserChoice:
    """Read the value of `--users`, such as `100` or `longest:100`.

    Raises:
        BadParameter: it is neither, or the number is not at least 1.
    """
    if isinstance(text, UserChoice):
        return text
    digits = text.removeprefix(_LONGEST)
    # More digits than any data set has users, which Python would refuse to read.
    if not (digits.isascii() and digits.isdigit() and len(digits) < 19 and int(digits)):
        raise typer.BadParameter(
            f"'{text}': write a number of users from 1, such as 100, or longest:100 for those with "
            "the longest histories"
        )
    return UserChoice(int(digits), digits != text)
