"""RPM's prompts, one function per call, in the task's vocabulary.

X0 makes a query for a record without one, X1 names the features of a query, X2 groups features into
factors, X3 judges which features shaped an answer, X4 writes the rationale of a past answer, X5 is
X1 with the factors known, and X6 is the task's request with notes about the user and, in place of
the task's form of an answer, RPM's own.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from personabench import Context, Message, PromptFile
from personabench.methods.rpm.knowledge import (
    POLARITIES,
    Factor,
    Feature,
    Item,
    Knowledge,
    statistics_line,
)

PROMPTS = PromptFile(__file__, "rpm.prompts.toml")

Messages = tuple[Message, ...]
_TEXT = {"type": "string"}


def features(
    query: str,
    labels: Sequence[str],
    most: int,
    ctx: Context,
) -> Messages:
    """X1: the query alone, never its answer; `labels` are the possible answers, if few."""
    return ctx.prompt(
        PROMPTS,
        "features",
        query=query,
        labels=_list_labels(labels, ctx),
        most=str(most),
    )


def features_with_factors(
    query: str,
    labels: Sequence[str],
    factors: Sequence[Factor],
    most: int,
    ctx: Context,
) -> Messages:
    """X5: the new query with the user's factors."""
    return ctx.prompt(
        PROMPTS,
        "features_with_factors",
        query=query,
        labels=_list_labels(labels, ctx),
        factors=_format_factors(factors),
        most=str(most),
    )


def _list_labels(labels: Sequence[str], ctx: Context) -> str:
    return ctx.part(PROMPTS, "labels", labels=", ".join(labels)) if labels else ""


def clusters(
    batch: Sequence[tuple[int, Feature]],
    factors: Sequence[Factor],
    ctx: Context,
) -> Messages:
    """X2: numbered features to named factors, reusing the names of earlier ones."""
    listed = "\n".join(f"{number}. {feature.text}" for number, feature in batch)
    if not factors:
        return ctx.prompt(PROMPTS, "clusters", features=listed)
    return ctx.prompt(
        PROMPTS,
        "clusters_with_factors",
        features=listed,
        factors=_format_factors(factors),
    )


def merged(factors: Sequence[Factor], most: int, ctx: Context) -> Messages:
    """X2, merge: numbered factors to fewer."""
    listed = "\n".join(
        f"{number}. {factor.name}: {factor.description}" for number, factor in enumerate(factors, 1)
    )
    return ctx.prompt(PROMPTS, "merge", factors=listed, most=str(most))


def influences(query: str, item: Item, ctx: Context) -> Messages:
    """X3: which features visibly shaped the answer; knows no factors."""
    listed = "\n".join(
        f"{number}. {feature.text}" for number, feature in enumerate(item.features, 1)
    )
    return ctx.prompt(PROMPTS, "influences", query=query, features=listed, answer=item.answer)


def rationale(
    query: str,
    item: Item,
    statistics: str,
    ctx: Context,
) -> Messages:
    """X4: from features and numbers to the answer that was given."""
    answer = item.shown or item.answer
    if not statistics:
        return ctx.prompt(PROMPTS, "rationale_without_statistics", query=query, answer=answer)
    return ctx.prompt(PROMPTS, "rationale", query=query, statistics=statistics, answer=answer)


def plain_rationale(query: str, item: Item, ctx: Context) -> Messages:
    """The rationale of the ablation: query and answer alone."""
    return ctx.prompt(PROMPTS, "plain_rationale", query=query, answer=item.shown or item.answer)


def paraphrase(text: str, ctx: Context) -> Messages:
    """X0 for records that are a response alone: a neutral version of it."""
    return ctx.prompt(PROMPTS, "paraphrase", text=text)


def stated_preferences(window: Sequence[tuple[int, str, str]], ctx: Context) -> Messages:
    """X0 for chats: the preferences that the user states, each with its message."""
    messages = "\n".join(f"{number}. {role}: {text}" for number, role, text in window)
    return ctx.prompt(PROMPTS, "stated_preferences", messages=messages)


def known_features(
    features: Sequence[Feature],
    knowledge: Knowledge,
    ctx: Context,
    *,
    alpha: float,
    labels_shown: int,
) -> str:
    """Features, then the statistics of their factors; a feature without a factor has none."""
    if not features:
        return ""

    lines = [_format_feature(feature, knowledge, ctx) for feature in features]
    parts = [ctx.part(PROMPTS, "known_features", features="\n".join(lines))]

    # Each factor once, in the order of the features, however many of them belong to it.
    factors = dict.fromkeys(feature.factor for feature in features if feature.factor is not None)
    if factors:
        words = ctx.task.words
        lines = [
            f"- {statistics_line(knowledge, factor, words, alpha, labels_shown)}"
            for factor in factors
        ]
        parts.append(ctx.part(PROMPTS, "known_factors", statistics="\n".join(lines)))
    return "\n\n".join(parts)


def _format_feature(feature: Feature, knowledge: Knowledge, ctx: Context) -> str:
    if feature.factor is None:
        return ctx.part(PROMPTS, "new_feature", feature=feature.text)
    factor = knowledge.factors[feature.factor].name
    return ctx.part(PROMPTS, "feature_of_factor", feature=feature.text, factor=factor)


def notes(
    statistics: str,
    examples: Sequence[Item],
    detailed: bool,
    ctx: Context,
) -> str:
    """X6: the knowledge about the user; `detailed` examples show their features."""
    parts = [statistics] if statistics else []
    for number, item in enumerate(examples, 1):
        parts.append(_format_example(number, item, detailed, ctx))
    return "\n\n".join(parts)


def contract(choices: Sequence[str], ctx: Context) -> str:
    """X6: the form of the reply.

    `choices` are set if the answer is one of them and not a response in the task's words.
    """
    if not choices:
        return ctx.part(PROMPTS, "request")
    # Models answer with the option's text where its letter is expected, unless told the form.
    quoted = [f'"{choice}"' if " " in choice else choice for choice in choices]
    listed = f"{', '.join(quoted[:-1])} or {quoted[-1]}"
    return ctx.part(PROMPTS, "request_of_choices", choices=listed)


def _format_example(
    number: int,
    item: Item,
    detailed: bool,
    ctx: Context,
) -> str:
    features = ""
    if detailed and item.features:
        listed = "; ".join(feature.text for feature in item.features)
        features = ctx.part(PROMPTS, "example_features", features=listed)
    reasoning = ""
    if item.reasoning:
        reasoning = ctx.part(PROMPTS, "example_reasoning", reasoning=item.reasoning)
    return ctx.part(
        PROMPTS,
        "example",
        number=str(number),
        query=item.query,
        features=features,
        reasoning=reasoning,
        answer=item.shown or item.answer,
    )


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


def _format_factors(factors: Sequence[Factor]) -> str:
    return "\n".join(f"- {factor.name}: {factor.description}" for factor in factors)
