"""The stages on single items: X1 features, X3 influences, X4 rationales, X5 the new query.

All items go through a stage at once; if a stage fails for an item, the item goes on without its
result, and the failure is counted.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING

from personabench import Context
from personabench.hashing import fold_text
from personabench.methods.rpm import prompts
from personabench.methods.rpm.factors import group_features
from personabench.methods.rpm.knowledge import POLARITIES, Factor, Feature, Item, Knowledge
from personabench.methods.rpm.replies import (
    read_rows,
    request_parsed,
    shorten_until_fit,
    to_line,
    to_whole_number,
)

if TYPE_CHECKING:
    from personabench.methods.rpm import Rpm

# A feature with the name of its factor, as the reply spells it.
NamedFeature = tuple[Feature, str]
# Whether a feature shaped the answer, and its polarity.
Judgement = tuple[bool, str]


async def study(knowledge: Knowledge, p: Rpm.Params, ctx: Context) -> Knowledge:
    """Fill in the items' features, influences and rationales and the user's factors, in place."""
    if p.use_factors:
        await _extract_features(knowledge, p, ctx)
        # Labels are counted instead; which feature shaped a label would be a guess.
        judged = [] if knowledge.closed else [item for item in knowledge.items if item.features]
        knowledge.factors, _ = await asyncio.gather(
            _group_factors(knowledge.items, p, ctx),
            asyncio.gather(*(_judge_influences(item, p, ctx) for item in judged)),
        )

    if p.use_examples and p.example_reasoning != "none":
        await asyncio.gather(
            *(_write_rationale(item, knowledge, p, ctx) for item in knowledge.items)
        )
    return knowledge


async def locate_query(
    query: str,
    knowledge: Knowledge,
    p: Rpm.Params,
    ctx: Context,
) -> list[Feature]:
    """The features of a new query with their factors (X5); if that fails, without them (X1)."""
    labels = knowledge.labels
    features = await request_features("locate", query, labels, knowledge.factors, p, ctx)
    if features is None:
        features = await request_features("extract", query, labels, None, p, ctx) or []

    if features and all(feature.factor is None for feature in features):
        ctx.flag("no_known_factor")
    return features


async def request_features(
    stage: str,
    query: str,
    labels: Sequence[str],
    factors: Sequence[Factor] | None,
    p: Rpm.Params,
    ctx: Context,
) -> list[Feature] | None:
    """The features of a query, each with its factor, if any; None if no reply could be parsed."""

    def build(text: str) -> prompts.Messages:
        if factors is None:
            return prompts.features(text, labels, p.max_features, ctx)
        return prompts.features_with_factors(text, labels, factors, p.max_features, ctx)

    def read(text: str) -> list[NamedFeature] | None:
        listed = read_rows(text, "features")
        if listed is None:
            return None
        named = []
        for row in listed:
            name = to_line(row.get("name"))
            if name:
                feature = Feature(name, to_line(row.get("context")))
                named.append((feature, to_line(row.get("factor"))))
        return named[: p.max_features]

    named_features = await request_parsed(
        stage,
        shorten_until_fit(build, query, ctx),
        read,
        ctx,
        max_tokens=p.extract_max_tokens,
        tries=p.tries,
        schema=prompts.features_schema(p.max_features, factors),
    )
    if named_features is None:
        return None
    if factors is not None:
        _assign_factors(named_features, factors, ctx)
    return [feature for feature, _ in named_features]


def _assign_factors(
    named_features: Sequence[NamedFeature],
    factors: Sequence[Factor],
    ctx: Context,
) -> None:
    indices = {fold_text(factor.name): index for index, factor in enumerate(factors)}
    for feature, factor_name in named_features:
        key = fold_text(factor_name)
        feature.factor = indices.get(key)
        if feature.factor is None and key not in ("", "null", "none"):
            ctx.flag("n_unknown_factor")


async def _extract_features(knowledge: Knowledge, p: Rpm.Params, ctx: Context) -> None:
    results = await asyncio.gather(
        *(
            request_features("extract", item.query, knowledge.labels, None, p, ctx)
            for item in knowledge.items
        )
    )
    for item, features in zip(knowledge.items, results, strict=True):
        item.features = features or []


async def _group_factors(
    items: Sequence[Item],
    p: Rpm.Params,
    ctx: Context,
) -> list[Factor]:
    features = [feature for item in items for feature in item.features]
    if not features:
        return []
    return await group_features(
        features,
        batch=p.cluster_batch,
        most=p.max_factors,
        max_tokens=p.cluster_max_tokens,
        tries=p.tries,
        ctx=ctx,
    )


async def _judge_influences(item: Item, p: Rpm.Params, ctx: Context) -> None:
    def build(text: str) -> prompts.Messages:
        return prompts.influences(text, item, ctx)

    def read(text: str) -> dict[int, Judgement] | None:
        judgements = {}
        for row in read_rows(text, "judgements") or []:
            number = to_whole_number(row.get("id"))
            if number is None or not 0 < number <= len(item.features):
                continue
            influential = to_line(row.get("influential")).casefold() in ("true", "yes", "1")
            judgements[number] = (influential, _complete_polarity(row.get("polarity")))
        return judgements or None

    judgements = await request_parsed(
        "influence",
        shorten_until_fit(build, item.query, ctx),
        read,
        ctx,
        max_tokens=p.extract_max_tokens,
        tries=p.tries,
        schema=prompts.influences_schema(len(item.features)),
    )
    for number, (influential, polarity) in (judgements or {}).items():
        feature = item.features[number - 1]
        feature.influential = influential
        feature.polarity = polarity


def _complete_polarity(value: object) -> str:
    """The polarity that a reply abbreviates ("pos", "Neg."); neutral for anything else."""
    prefix = to_line(value).casefold()[:3]
    if prefix:
        for polarity in POLARITIES:
            if polarity.startswith(prefix):
                return polarity
    return "neutral"


async def _write_rationale(
    item: Item,
    knowledge: Knowledge,
    p: Rpm.Params,
    ctx: Context,
) -> None:
    statistics = prompts.known_features(
        item.features, knowledge, ctx, alpha=p.propensity_alpha, labels_shown=p.labels_shown
    )

    def build(text: str) -> prompts.Messages:
        if p.example_reasoning == "generic_cot":
            return prompts.plain_rationale(text, item, ctx)
        return prompts.rationale(text, item, statistics, ctx)

    reply = await request_parsed(
        "reason",
        shorten_until_fit(build, item.query, ctx),
        lambda text: text.strip() or None,
        ctx,
        max_tokens=p.reason_max_tokens,
        tries=p.tries,
    )
    item.reasoning = reply or ""
