"""The stages that ask the model about single items: X1 features, X3 influences, X4 rationales, X5 the new query.

All items go through a stage at once; a stage that fails for an item leaves that item without what the stage gives, and
counts it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING

from personabench import Context
from personabench.methods.rpm import prompts
from personabench.methods.rpm.factors import grouped
from personabench.methods.rpm.knowledge import POLARITIES, Factor, Feature, Item, Knowledge
from personabench.methods.rpm.replies import ask, drafts, number_of, rows, words_of

if TYPE_CHECKING:
    from personabench.methods.rpm import Rpm


async def study(knowledge: Knowledge, p: Rpm.Params, ctx: Context) -> Knowledge:
    """Fill in the items' features, influences and rationales and the user's factors, in place."""
    if p.use_factors:
        found = await asyncio.gather(
            *(features_of("extract", item.query, None, p, ctx) for item in knowledge.items)
        )
        for item, features in zip(knowledge.items, found, strict=True):
            item.features = features or []
        judged = [] if knowledge.closed else [item for item in knowledge.items if item.features]
        knowledge.factors, _ = await asyncio.gather(
            _factors(knowledge.items, p, ctx),
            asyncio.gather(*(_influences(item, p, ctx) for item in judged)),
        )
    if p.use_examples and p.example_reasoning != "none":
        await asyncio.gather(*(_reason(item, knowledge, p, ctx) for item in knowledge.items))
    return knowledge


async def located(query: str, knowledge: Knowledge, p: Rpm.Params, ctx: Context) -> list[Feature]:
    """The features of a new query with their factors (X5); when that fails, its features alone (X1)."""
    found = await features_of("locate", query, knowledge.factors, p, ctx)
    if found is None:
        found = await features_of("extract", query, None, p, ctx) or []
    if found and all(feature.factor is None for feature in found):
        ctx.flag("no_known_factor")
    return found


async def features_of(
    stage: str, query: str, factors: Sequence[Factor] | None, p: Rpm.Params, ctx: Context
) -> list[Feature] | None:
    """The features of a query, each placed in one of the factors or in none; None when no reply could be read."""
    words = ctx.task.words

    def build(text: str) -> prompts.Messages:
        if factors is None:
            return prompts.features(text, p.max_features, words)
        return prompts.features_with_factors(text, factors, p.max_features, words)

    def read(text: str) -> list[tuple[Feature, str]] | None:
        listed = rows(text, "features")
        if listed is None:
            return None
        named = [(words_of(row.get("name")), row) for row in listed]
        found = [
            (Feature(name, words_of(row.get("context"))), words_of(row.get("factor")))
            for name, row in named
            if name
        ]
        return found[: p.max_features]

    schema = prompts.features_schema(p.max_features, factors)
    found = await ask(
        stage, drafts(build, query, ctx), read, ctx, max_tokens=p.extract_max_tokens, schema=schema
    )
    if found is None:
        return None
    places = {_folded(factor.name): position for position, factor in enumerate(factors or ())}
    for feature, name in found if factors is not None else ():
        feature.factor = places.get(_folded(name))
        if feature.factor is None and _folded(name) not in ("", "null", "none"):
            ctx.flag("n_unknown_factor")
    return [feature for feature, _ in found]


async def _factors(items: Sequence[Item], p: Rpm.Params, ctx: Context) -> list[Factor]:
    features = [feature for item in items for feature in item.features]
    if not features:
        return []
    return await grouped(
        features,
        batch=p.cluster_batch,
        most=p.max_factors,
        max_tokens=p.cluster_max_tokens,
        ctx=ctx,
    )


async def _influences(item: Item, p: Rpm.Params, ctx: Context) -> None:
    words = ctx.task.words

    def read(text: str) -> dict[int, tuple[bool, str]] | None:
        found = {}
        for row in rows(text, "judgements") or []:
            number, polarity = number_of(row.get("id")), words_of(row.get("polarity")).casefold()
            if number is not None and 0 < number <= len(item.features):
                shaped = words_of(row.get("influential")).casefold() in ("true", "yes", "1")
                full = next(
                    (name for name in POLARITIES if polarity and name.startswith(polarity[:3])),
                    "neutral",
                )
                found[number] = (shaped, full)
        return found or None

    judged = await ask(
        "influence",
        drafts(lambda text: prompts.influences(text, item, words), item.query, ctx),
        read,
        ctx,
        max_tokens=p.extract_max_tokens,
        schema=prompts.influences_schema(len(item.features)),
    )
    for number, (shaped, polarity) in (judged or {}).items():
        feature = item.features[number - 1]
        feature.influential, feature.polarity = shaped, polarity


async def _reason(item: Item, knowledge: Knowledge, p: Rpm.Params, ctx: Context) -> None:
    words = ctx.task.words
    told = prompts.known_features(item.features, knowledge, words, p.propensity_alpha)

    def build(text: str) -> prompts.Messages:
        if p.example_reasoning == "generic_cot":
            return prompts.plain_rationale(text, item, words)
        return prompts.rationale(text, item, told, words)

    queries = drafts(build, item.query, ctx)
    reply = await ask(
        "reason", queries, lambda text: text.strip() or None, ctx, max_tokens=p.reason_max_tokens
    )
    item.reasoning = reply or ""


def _folded(name: str) -> str:
    return " ".join(name.casefold().split())
