"""Capabilities that tasks offer and methods may need.

Fit is decided by these words alone, never by names of methods or tasks.  A task declares `offers`,
a method `needs`, in which "a|b" is either of two; the capabilities in `DERIVED` follow from a
task's kind of response and are not declared.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

from personabench.errors import UsageError


class Capability(NamedTuple):
    """A capability in words.

    Attributes:
        meaning: the state of a task that offers it.
        missing: the reason why a method that needs it does not run.
    """

    meaning: str
    missing: str


CAPABILITIES: Mapping[str, Capability] = MappingProxyType(
    {
        "history": Capability(
            "users have records before a question, of the past or of the conversation so far",
            "its users have no history to learn from beforehand",
        ),
        "population": Capability(
            "the histories of all users can be compared",
            "it has no histories of other users",
        ),
        "dates": Capability(
            "records have dates; the opened data decides whether all do",
            "its records have no dates",
        ),
        "precedents": Capability(
            "the response of a record is an answer of the kind that is asked for",
            "its histories hold no past answers of the kind that is asked for",
        ),
        "conversations": Capability(
            "histories are conversations with an assistant",
            "its histories are not conversations",
        ),
        "items": Capability(
            "records and questions name their item, so that peers on one item can be compared",
            "its records name no item that users share",
        ),
        "persona": Capability(
            "a history contains a written description of the user",
            "its users have no written description",
        ),
        "preference": Capability(
            "an oracle sees the user's written preference",
            "it has no written preference that an oracle may see",
        ),
        "evidence": Capability(
            "the records that hold the answer are marked, and an oracle may see the marks",
            "its data do not mark the records that hold the answer",
        ),
        "picks": Capability(
            "an oracle sees the picks of rules that were fitted to gold answers",
            "it has no picks of rules that were fitted to gold answers",
        ),
        "options": Capability(
            "the choices of a question are texts of its own, not labels shared by all",
            "its questions have no texts to choose from",
        ),
        "pairs": Capability(
            "a question is which of two responses suits the user",
            "its questions are no pairs of responses",
        ),
        "comparisons": Capability(
            "a record is a response that the user preferred, beside others that were not",
            "its records do not compare responses",
        ),
        "majority": Capability(
            "an oracle sees the choice that most other users prefer",
            "it does not know what most other users prefer",
        ),
        "safety": Capability(
            "some requests ought to be refused",
            "none of its requests ought to be refused",
        ),
        "feedback": Capability(
            "users react to every answer",
            "its users never react to an answer",
        ),
        "dialogue": Capability(
            "a conversation leads to the answer",
            "it is not a conversation",
        ),
        "inquiry": Capability(
            "attributes of the user can be asked for by name in the conversation",
            "its users cannot be asked for their attributes",
        ),
        "texts": Capability(
            "answers are free text",
            "its answers are labels, never texts",
        ),
        "labels": Capability(
            "answers are labels or scores that repeat",
            "its answers are free texts, which do not repeat",
        ),
        "scores": Capability(
            "answers are numbers",
            "its answers are not scores",
        ),
        "choices": Capability(
            "answers are chosen from a list",
            "its questions have no choices",
        ),
    }
)

DERIVED: Mapping[str, frozenset[str]] = MappingProxyType(
    {
        "text": frozenset({"texts"}),
        "category": frozenset({"labels", "choices"}),
        "ordinal": frozenset({"labels", "scores", "choices"}),
    }
)
"""The capabilities that follow from a kind of response."""

_BY_PROTOCOL = {"online": "feedback", "dialogue": "dialogue"}


def offered(declared: Mapping[str, Any], default: Collection[str]) -> frozenset[str]:
    """Derive the capabilities of a task from its declarations.

    These are `offers`, for which `default` stands if it is missing, `kind`, `labels` and
    `protocol`.
    """
    kind = declared.get("kind", "text")
    offers = {*declared.get("offers", default), *DERIVED.get(kind, ())}
    protocol = declared.get("protocol", "static")
    if protocol in _BY_PROTOCOL:
        offers.add(_BY_PROTOCOL[protocol])
    # Without labels that all questions share, the choices are each question's own texts.
    if kind == "category" and declared.get("labels") == ():
        offers.add("options")
    # Texts to choose from are choices, whatever the kind of response.
    if offers & {"options", "pairs"}:
        offers.add("choices")
    return frozenset(offers)


def explain_missing(needs: Iterable[str], offers: Collection[str]) -> str:
    """Return the reason why needs are not met by a task's capabilities; empty if they are."""
    for need in needs:
        alternatives = need.split("|")
        if set(alternatives).isdisjoint(offers):
            return CAPABILITIES[alternatives[0]].missing
    return ""


def check_words(owner: str, attribute: str, words: Any) -> None:
    """Refuse declared words that are no capabilities.

    Raises:
        UsageError: the first such word, with the list of capabilities.
    """
    # A text is a sequence as well, of letters: ("history") without a comma is a frequent slip.
    is_list = isinstance(words, (tuple, list, set, frozenset))
    if not is_list or not all(isinstance(word, str) for word in words):
        raise UsageError(
            f"{owner}: {attribute} is {words!r}; write a tuple of capabilities, such as "
            '("history",)'
        )

    for word in words:
        alternatives = word.split("|") if attribute == "needs" else [word]
        unknown = [name for name in alternatives if name not in CAPABILITIES]
        if unknown:
            raise UsageError(
                f"{owner}: {attribute} names '{unknown[0]}', which is no capability; "
                f"expected one of {', '.join(CAPABILITIES)}"
            )


def check_declarations(kind: str, owner: str, cls: type[Any]) -> None:
    """Check the capabilities that a method needs or a task offers.

    Raises:
        UsageError: an unknown capability, or a declaration that has no effect.
    """
    if kind == "task":
        check_words(owner, "offers", cls.offers)
        return

    check_words(owner, "needs", cls.needs)
    if hasattr(cls, "refuses"):
        raise UsageError(
            f"{owner}: `refuses` has no effect; declare in `needs` which capabilities of a task "
            f"the method uses, out of {', '.join(CAPABILITIES)}"
        )
