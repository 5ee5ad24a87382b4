"""What RPM says to the model, one function per call, in the task's own words.

X0 makes a query where a record has none, X1 names the features of a query, X2 groups features into factors, X3 judges
which features shaped an answer, X4 writes the rationale of a past answer, X5 is X1 with the factors known, and the
notes of X6 are what the task's own request says about the user.
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


def features(query: str, most: int, words: Vocabulary) -> Messages:
    """X1: the query alone, never its answer."""
    system = (
        f"{_setting(words)} Name the features of one {words.stimulus} that could decide the {words.response}, at most "
        f"{most}. Give each a short name that could fit other {words.stimulus}s too, and a context: one phrase on what "
        "the name means here. Leave out incidental details.\n"
        'Reply with a JSON object: "features" is a list of objects with "name" and "context".'
    )
    return Message("system", system), Message("user", _labelled(words.stimulus, query))


def features_with_factors(
    query: str, factors: Sequence[Factor], most: int, words: Vocabulary
) -> Messages:
    """X5: the new query with the user's factors."""
    system = (
        f"{_setting(words)} Name the features of one {words.stimulus} that could decide the {words.response}, at most "
        f"{most}. Give each a short name, a context (one phrase on what the name means here), and the factor it "
        f"belongs to: exactly one name from the list, or null if none fits.\n\nFactors:\n{_factors(factors)}\n\n"
        'Reply with a JSON object: "features" is a list of objects with "name", "context" and "factor".'
    )
    return Message("system", system), Message("user", _labelled(words.stimulus, query))


def clusters(
    batch: Sequence[tuple[int, Feature]], known: Sequence[Factor], words: Vocabulary
) -> Messages:
    """X2: numbered features to named factors, reusing the names found so far."""
    reuse = (
        f"\n\nFactors found so far; reuse a name where it fits:\n{_factors(known)}" if known else ""
    )
    system = (
        f"Group features of {words.stimulus}s into factors: broader aspects that may decide what one {words.person} "
        f"gives as {words.response}. Give each factor a short name, a description in one sentence, and the numbers of "
        f"its features. Every number belongs to exactly one factor.{reuse}\n"
        'Reply with a JSON object: "factors" is a list of objects with "factor", "description" and "ids".'
    )
    listed = "\n".join(f"{number}. {feature.text}" for number, feature in batch)
    return Message("system", system), Message("user", f"Features:\n{listed}")


def merged(factors: Sequence[Factor], most: int, words: Vocabulary) -> Messages:
    """X2, merge: numbered factors to fewer."""
    system = (
        f"Merge factors that mean nearly the same until at most {most} are left. They describe what may decide a "
        f"{words.person}'s {words.response}. Give each result a short name, a description in one sentence, and the "
        "numbers of the factors it is made of. Every number belongs to exactly one result.\n"
        'Reply with a JSON object: "factors" is a list of objects with "factor", "description" and "ids".'
    )
    listed = "\n".join(
        f"{number}. {factor.name}: {factor.description}" for number, factor in enumerate(factors, 1)
    )
    return Message("system", system), Message("user", f"Factors:\n{listed}")


def influences(query: str, item: Item, words: Vocabulary) -> Messages:
    """X3: which features visibly shaped the answer; knows no factors."""
    system = (
        f"Below are one {words.stimulus}, its numbered features, and the {words.response} one {words.person} gave. For "
        f"every number say whether that feature visibly shaped the {words.response}, and whether its tone there is "
        "positive, neutral or negative.\n"
        'Reply with a JSON object: "judgements" is a list of objects with "id", "influential" and "polarity".'
    )
    listed = "\n".join(
        f"{number}. {feature.text}" for number, feature in enumerate(item.features, 1)
    )
    parts = (
        _labelled(words.stimulus, query),
        f"Features:\n{listed}",
        _labelled(words.response, item.answer),
    )
    return Message("system", system), Message("user", "\n\n".join(parts))


def rationale(query: str, item: Item, told: str, words: Vocabulary) -> Messages:
    """X4: from features and numbers to the answer that was given."""
    system = (
        f"Explain how this {words.person} got from one {words.stimulus} to the {words.response} given below. Go from "
        "its features through the numbers, which count all records of this person, to the "
        f"{words.response}. Two to four sentences, as if thinking before answering."
    )
    parts = (
        _labelled(words.stimulus, query),
        told,
        _labelled(words.response, item.shown or item.answer),
    )
    return Message("system", system), Message("user", "\n\n".join(part for part in parts if part))


def plain_rationale(query: str, item: Item, words: Vocabulary) -> Messages:
    """The rationale of the ablation: query and answer alone."""
    system = (
        f"Explain step by step how one gets from the {words.stimulus} to the {words.response} given below. "
        "Two to four sentences, as if thinking before answering."
    )
    parts = (_labelled(words.stimulus, query), _labelled(words.response, item.shown or item.answer))
    return Message("system", system), Message("user", "\n\n".join(parts))


def paraphrase(text: str, words: Vocabulary) -> Messages:
    """X0 for records that are a response alone: what a neutral writer would have said."""
    system = (
        f"Say what this {words.response} says in plain, neutral words, without its style. "
        "Reply with one or two sentences and nothing else."
    )
    return Message("system", system), Message("user", text)


def stated_preferences(window: Sequence[tuple[int, str, str]]) -> Messages:
    """X0 for chats: what the user said they like, with where they said it."""
    system = (
        "Below is a part of a chat, its messages numbered. List what the user says they like, dislike, did or "
        "changed, at most 6 things. For each give the situation it is about, the preference with the reason if the "
        "user gave one, and the number of the message.\n"
        'Reply with a JSON object: "items" is a list of objects with "situation", "preference" and "message".'
    )
    return Message("system", system), Message(
        "user", "\n".join(f"{at}. {role}: {text}" for at, role, text in window)
    )


def known_features(
    found: Sequence[Feature], knowledge: Knowledge, words: Vocabulary, alpha: float
) -> str:
    """Features, then the numbers of their factors; a feature without a factor carries none."""
    if not found:
        return ""
    lines = []
    for feature in found:
        belongs = (
            "new to this user"
            if feature.factor is None
            else f"factor: {knowledge.factors[feature.factor].name}"
        )
        lines.append(f"- {feature.text} ({belongs})")
    met = dict.fromkeys(feature.factor for feature in found if feature.factor is not None)
    numbers = [f"- {statistics_line(knowledge, factor, words, alpha)}" for factor in met]
    parts = [f"Features of the {words.stimulus}:\n" + "\n".join(lines)]
    if numbers:
        parts.append(
            f"What the {words.person}'s records say of these factors:\n" + "\n".join(numbers)
        )
    return "\n\n".join(parts)


def notes(
    told: str,
    examples: Sequence[Item],
    detailed: bool,
    words: Vocabulary,
    choices: Sequence[str] = (),
) -> str:
    """X6: the user's part of the final request; `detailed` examples show their features.

    `choices` are given where they, and no `words.response`, are what is answered.
    """
    parts = [told] if told else []
    for number, item in enumerate(examples, 1):
        lines = [f"Earlier case {number}", _labelled(words.stimulus, item.query)]
        if detailed and item.features:
            lines.append("Features: " + "; ".join(feature.text for feature in item.features))
        if item.reasoning:
            lines.append(f"Reasoning: {item.reasoning}")
        parts.append("\n".join([*lines, _labelled(words.response, item.shown or item.answer)]))
    form = f"the {words.response} alone"
    if choices:
        form = f"what the request asks for, in exactly that form: {', '.join(choices[:-1])} or {choices[-1]}"
    parts.append(
        f"Reason briefly from this {words.person}'s features, numbers and cases, then answer as they would. "
        f'Reply with a JSON object: "reasoning", and "answer", which is {form}.'
    )
    return "\n\n".join(parts)


def features_schema(most: int, factors: Sequence[Factor] | None = None) -> dict[str, Any]:
    """The reply of X1, and of X5 with its factors."""
    text = {"type": "string"}
    fields: dict[str, Any] = {"name": text, "context": text}
    if factors is not None:
        fields["factor"] = {
            "type": ["string", "null"],
            "enum": [*(factor.name for factor in factors), None],
        }
    return _list_of("features", fields, most)


def clusters_schema() -> dict[str, Any]:
    """The reply of X2."""
    ids = {"type": "array", "items": {"type": "integer"}}
    return _list_of(
        "factors", {"factor": {"type": "string"}, "description": {"type": "string"}, "ids": ids}
    )


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
    text = {"type": "string"}
    return _list_of(
        "items", {"situation": text, "preference": text, "message": {"type": "integer"}}, most
    )


def answer_schema(choices: Sequence[str] = ()) -> dict[str, Any]:
    """The reply of X6, whose answer is one of the choices where there are any."""
    among = {"enum": list(choices)} if choices else {}
    return _object({"reasoning": {"type": "string"}, "answer": {"type": "string", **among}})


def _list_of(key: str, fields: dict[str, Any], most: int | None = None) -> dict[str, Any]:
    bound = {} if most is None else {"maxItems": most}
    return _object({key: {"type": "array", "items": _object(fields), **bound}})


def _object(fields: dict[str, Any]) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": fields,
        "required": list(fields),
        "additionalProperties": False,
    }


def _setting(words: Vocabulary) -> str:
    return f"One {words.person} meets one {words.stimulus} and gives one {words.response}."


def _factors(factors: Sequence[Factor]) -> str:
    return "\n".join(f"- {factor.name}: {factor.description}" for factor in factors)


def _labelled(name: str, text: str) -> str:
    return f"{name.capitalize()}: {text}"
