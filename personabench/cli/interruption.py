"""How to resume an interrupted command."""

from __future__ import annotations

import re
import shlex
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

# Their values are credentials, so the command to repeat is printed without them.
_SECRET_OPTIONS = ("--header", "--simulator-header", "--judge-header", "--profile-header")


def print_interrupted(console: Console, state: str) -> None:
    """Print how to resume an interrupted command."""
    message, command = describe_interrupt(state).splitlines()
    console.print(message, style="yellow")
    console.print(command, markup=False, soft_wrap=True)


def describe_interrupt(state: str) -> str:
    """Say in two lines that a command was interrupted and how to resume it."""
    return f"interrupted; {state}. Go on with the same command:\n  {command_line()}"


def command_line() -> str:
    """Return the command as it was typed, without the values of headers and passwords of URLs."""
    words = ["personabench"]
    value_is_secret = False
    for word in sys.argv[1:]:
        option, equals, _ = word.partition("=")
        if value_is_secret or (equals and option in _SECRET_OPTIONS):
            words.append(re.sub(r":.*", ": ***", word, flags=re.S))
        else:
            # Up to the last @, since passwords are often not encoded.
            words.append(re.sub(r"://.*@", "://***@", word, flags=re.S))
        value_is_secret = word in _SECRET_OPTIONS
    return shlex.join(words)
