"""Texts of the ALOE dialogue: the simulated user's part, and the cleaning of its messages."""

from __future__ import annotations

import re

OPENING = "Begin the conversation."
"""What the simulated user gets in place of a first reply."""
_ROLE = (
    "You play a person who chats with an assistant. Stay in this part, and write only what the "
    "person says, as one message of at most three sentences.\n\n"
    "Facts about the person:\n{profile}\n\n"
    "Manner of the person:\n{personality}\n\n"
    "Talk about what such a person would bring up. Show who you are step by step, a little in each "
    "message, and do not list your facts. Do not describe gestures, do not thank for every reply, "
    "and do not behave as an assistant."
)
_ACTION = re.compile(r"\*[^*]*\*")


def word_role(profile: str, personality: str) -> str:
    """The system message of the simulated user."""
    return _ROLE.format(profile=profile, personality=personality)


def clean_message(text: str) -> str:
    """Drop stage directions between asterisks, and collapse white space."""
    return " ".join(_ACTION.sub(" ", text).split())
