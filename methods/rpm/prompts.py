"""RPM's prompts, one function per call, in the task's vocabulary.

X0 makes a query for a record without one, X1 names the features of a query, X2 groups features into
factors, X3 judges which features shaped an answer, X4 writes the rationale of a past answer, X5 is
X1 with the factors known, and X6 adds notes about the user to the task's own request.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from personabench import Message, Vocabulary
from personabench.methods.rpm.knowledge import (
    POLARITIES,
    Factor,
    Feature,
    Item,
    Knowledge,
    statistics_line,
)

Messages = tuple[Message, ...]
_TEXT = {"type": "string"}


def features(query: str, most: int, words: Vocabulary) -> Messages:
    """X1: the query alone, never its answer."""
    system = (
        f"{_situation(words)} Name the features of one {words.stimulus} that could decide the "
        f"{words.response}, at most "
        f"{most}. Give each a short name that could fit other {words.stimulus}s too, and a "
        "context: one phrase on what "
        "the name means here. Leave out incidental details.\n"
        'Reply with a JSON object: "features" is a list of objects with "name" and "context".'
    )
    return Message("system", system), Message("user", _label(words.stimulus, query))


def features_with_factors(
    query: str,
    factors: Sequence[Factor],
    most: int,
    words: Vocabulary,
) -> Messages:
    """X5: the new query with the user's factors."""
    system = (
        f"{_situation(words)} Name the features of one {words.stimulus} that could decide the "
        f"{words.response}, at most "
        f"{most}. Give each a short name, a context (one phrase on what the name means here), and "
        "the factor it "
        "belongs to: exactly one name from the list, or null if none "
        f"fits.\n\nFactors:\n{_format_factors(factors)}\n\n"
        'Reply with a JSON object: "features" is a list of objects with "name", "context" and '
        '"factor".'
    )
    return Message("system", system), Message("user", _label(words.stimulus, query))


def clusters(
    batch: Sequence[tuple[int, Feature]],
    factors: Sequence[Factor],
    words: Vocabulary,
) -> Messages:
    """X2: numbered features to named factors, reusing the names found so far."""
    reuse = ""
    if factors:
        reuse = f"\n\nFactors found so far; reuse a name where it fits:\n{_format_factors(factors)}"
    system = (
        f"Group features of {words.stimulus}s into factors: broader aspects that may decide what "
        f"one {words.person} "
        f"gives as {words.response}. Give each factor a short name, a description in one sentence, "
        "and the numbers of "
        f"its features. Every number belongs to exactly one factor.{reuse}\n"
        'Reply with a JSON object: "factors" is a list of objects with "factor", "description" and '
        '"ids".'
    )
    listed = "\n".join(f"{number}. {feature.text}" for number, feature in batch)
    return Message("system", system), Message("user", f"Features:\n{listed}")


def merged(factors: Sequence[Factor], most: int, words: Vocabulary) -> Messages:
    """X2, merge: numbered factors to fewer."""
    system = (
        f"Merge factors that mean nearly the same until at most {most} are left. They describe "
        "what may decide a "
        f"{words.person}'s {words.response}. Give each result a short name, a description in one "
        "sentence, and the "
        "numbers of the factors it is made of. Every number belongs to exactly one result.\n"
        'Reply with a JSON object: "factors" is a list of objects with "factor", "description" and '
        '"ids".'
    )
    listed = "\n".join(
        f"{number}. {factor.name}: {factor.description}" for number, factor in enumerate(factors, 1)
    )
    return Message("system", system), Message("user", f"Factors:\n{listed}")


def influences(query: str, item: Item, words: Vocabulary) -> Messages:
    """X3: which features visibly shaped the answer; knows no factors."""
    system = (
        f"Below are one {words.stimulus}, its numbered features, and the {words.response} one "
        f"{words.person} gave. For "
        f"every number say whether that feature visibly shaped the {words.response}, and whether "
        "its tone there is "
        "positive, neutral or negative.\n"
        'Reply with a JSON object: "judgements" is a list of objects with "id", "influential" and '
        '"polarity".'
    )
    listed = "\n".join(
        f"{number}. {feature.text}" for number, feature in enumerate(item.features, 1)
    )
    parts = (
        _label(words.stimulus, query),
        f"Features:\n{listed}",
        _label(words.response, item.answer),
    )
    return Message("system", system), Message("user", "\n\n".join(parts))


def rationale(
    query: str,
    item: Item,
    statistics: str,
    words: Vocabulary,
) -> Messages:
    """X4: from features and numbers to the answer that was given."""
    system = (
        f"Explain how this {words.person} got from one {words.stimulus} to the {words.response} "
        "given below. Go from "
        "its features through the numbers, which count all records of this person, to the "
        f"{words.response}. Two to four sentences, as if thinking before answering."
    )
    parts = (
        _label(words.stimulus, query),
        statistics,
        _label(words.response, item.shown or item.answer),
    )
    return Message("system", system), Message("user", "\n\n".join(part for part in parts if part))


def plain_rationale(query: str, item: Item, words: Vocabulary) -> Messages:
    """The rationale of the ablation: query and answer alone."""
    system = (
        f"Explain step by step how one gets from the {words.stimulus} to the {words.response} "
        "given below. "
        "Two to four sentences, as if thinking before answering."
    )
    parts = (_label(words.stimulus, query), _label(words.response, item.shown or item.answer))
    return Message("system", system), Message("user", "\n\n".join(parts))


def paraphrase(text: str, words: Vocabulary) -> Messages:
    """X0 for records that are a response alone: a neutral version of it."""
    system = (
        f"Say what this {words.response} says in plain, neutral words, without its style. "
        "Reply with one or two sentences and nothing else."
    )
    return Message("system", system), Message("user", text)


def stated_preferences(window: Sequence[tuple[int, str, str]]) -> Messages:
    """X0 for chats: the preferences that the user states, each with its message."""
    system = (
        "Below is a part of a chat, its messages numbered. List what the user says they like, "
        "dislike, did or "
        "changed, at most 6 things. For each give the situation it is about, the preference with "
        "the reason if the "
        "user gave one, and the number of the message.\n"
        'Reply with a JSON object: "items" is a list of objects with "situation", "preference" and '
        '"message".'
    )
    messages = "\n".join(f"{number}. {role}: {text}" for number, role, text in window)
    return Message("system", system), Message("user", messages)


def known_features(
    features: Sequence[Feature],
    knowledge: Knowledge,
    words: Vocabulary,
    alpha: float,
) -> str:
    """Features, then the statistics of their factors; a feature without a factor has none."""
    if not features:
        return ""

    lines = [f"Features of the {words.stimulus}:"]
    for feature in features:
        origin = "new to this user"
        if feature.factor is not None:
            origin = f"factor: {knowledge.factors[feature.factor].name}"
        lines.append(f"- {feature.text} ({origin})")

    # Each factor once, in the order of the features, however many of them belong to it.
    factors = dict.fromkeys(feature.factor for feature in features if feature.factor is not None)
    if factors:
        lines.append("")
        lines.append(f"What the {words.person}'s records say of these factors:")
        for factor in factors:
            lines.append(f"- {statistics_line(knowledge, factor, words, alpha)}")
    return "\n".join(lines)


def notes(
    statistics: str,
    examples: Sequence[Item],
    detailed: bool,
    words: Vocabulary,
    choices: Sequence[str] = (),
) -> str:
    """X6: the user's part of the final request; `detailed` examples show their features.

    `choices` are set if the answer is one of them and not a `words.response`.
    """
    parts = []
    if statistics:
        parts.append(statistics)
    for number, item in enumerate(examples, 1):
        parts.append(_format_example(number, item, detailed, words))

    form = f"the {words.response} alone"
    if choices:
        # Models answer with the option's text where its letter is expected, unless told the form.
        form = (
            "what the request asks for, in exactly that form: "
            f"{', '.join(choices[:-1])} or {choices[-1]}"
        )
    parts.append(
        f"Reason briefly from this {words.person}'s features, numbers and cases, "
        "then answer as they would. "
        f'Reply with a JSON object: "reasoning", and "answer", which is {form}.'
    )
    return "\n\n".join(parts)


def _format_example(
    number: int,
    item: Item,
    detailed: bool,
    words: Vocabulary,
) -> str:
    lines = [f"Earlier case {number}", _label(words.stimulus, item.query)]
    if detailed and item.features:
        features = "; ".join(feature.text for feature in item.features)
        lines.append(f"Features: {features}")
    if item.reasoning:
        lines.append(f"Reasoning: {item.reasoning}")
    lines.append(_label(words.response, item.shown or item.answer))
    return "\n".join(lines)


def features_schema(most: int, factors: Sequence[Factor] | None = None) -> dict[str, Any]:
    """The reply of X1, and of X5 with its factors."""
    fields: dict[str, Any] = {"name": _TEXT, "context": _TEXT}
    if factors is not None:
        names = [factor.name for factor in factors]
        fields["factor"] = {"type": ["string", "null"], "enum": [*names, None]}
    return _list_of("features", fields, most)


def clusters_schema() -> dict[str, Any]:
    """The reply of X2."""
    fields = {
        "factor": _TEXT,
        "description": _TEXT,
        "ids": {"type": "array", "items": {"type": "integer"}},
    }
    return _list_of("factors", fields)


def influences_schema(count: int) -> dict[str, Any]:
    """The reply of X3."""
    fields = {
        "id": {"type": "integer"},
        "influential": {"type": "boolean"},
        "polarity": {"type": "string", "enum": list(POLARITIES)},
    }
    return _list_of("judgements", fields, count)


def preferences_schema(most: int) -> dict[str, Any]:
    """The reply of X0 for chats."""
    fields = {
        "situation": _TEXT,
        "preference": _TEXT,
        "message": {"type": "integer"},
    }
    return _list_of("items", fields, most)


def answer_schema(choices: Sequence[str] = ()) -> dict[str, Any]:
    """The reply of X6; its answer is one of the choices, if there are any."""
    answer: dict[str, Any] = {"type": "string"}
    if choices:
        answer["enum"] = list(choices)
    # The reasoning comes first: a field is written in the light of those before it.
    return _object({"reasoning": _TEXT, "answer": answer})


def _list_of(
    key: str,
    fields: dict[str, Any],
    most: int | None = None,
) -> dict[str, Any]:
    listed: dict[str, Any] = {"type": "array", "items": _object(fields)}
    if most is not None:
        listed["maxItems"] = most
    return _object({key: listed})


def _object(fields: dict[str, Any]) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": fields,
        "required": list(fields),
        "additionalProperties": False,
    }


def _situation(words: Vocabulary) -> str:
    return f"One {words.person} meets one {words.stimulus} and gives one {words.response}."


def _format_factors(factors: Sequence[Factor]) -> str:
    return "\n".join(f"- {factor.name}: {factor.description}" for factor in factors)


def _label(name: str, text: str) -> str:
    return f"{name.capitalize()}: {text}"
