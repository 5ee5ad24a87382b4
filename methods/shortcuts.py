"""Rules that look at the offered choices alone: the multiple-choice score that needs no reading.

If gold options tend to be the longest ones, the longest option beats chance without user, history
or model.  Two of the rules have seen golds, which a task reveals to oracles only: the majority
letter, and lengths learned by type.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec

from personabench import Context, Method, Sample, UsageError


class LongestOption(Method):
    """The longest of the offered options, the first of equally long ones."""

    name = "longest_option"
    designed_for = ("personamem*",)
    refuses = {
        "lamp*": "its choices are fixed labels, not options of differing length",
        "longlamp*": "it offers no choices",
        "lampqa*": "it offers no choices",
        "prelude*": "it offers no choices",
        "reviews*": "it offers no choices",
        "prefdisco*": "it offers no choices",
    }

    async def predict(self, sample: Sample, state: None, ctx: Context) -> str:
        return _choose_by_length(sample, ctx, max)


class ShortestOption(Method):
    """The shortest of the offered options, the first of equally short ones."""

    name = "shortest_option"
    designed_for = ("personamem*",)
    refuses = {
        "lamp*": "its choices are fixed labels, not options of differing length",
        "longlamp*": "it offers no choices",
        "lampqa*": "it offers no choices",
        "prelude*": "it offers no choices",
        "reviews*": "it offers no choices",
        "prefdisco*": "it offers no choices",
    }

    async def predict(self, sample: Sample, state: None, ctx: Context) -> str:
        return _choose_by_length(sample, ctx, min)


class MajorityLetter(Method):
    """The letter most often right in the whole split, the earlier of equals (sees golds)."""

    name = "majority_letter"
    designed_for = ("personamem*",)
    privileged = True
    refuses = {
        "lamp*": "its choices are fixed labels, not options of differing length",
        "longlamp*": "it offers no choices",
        "lampqa*": "it offers no choices",
        "prelude*": "it offers no choices",
        "reviews*": "it offers no choices",
        "prefdisco*": "it offers no choices",
    }

    async def predict(self, sample: Sample, state: None, ctx: Context) -> str:
        return _hidden_choice(self.name, sample, ctx)


class TypeLength(Method):
    """The longest or shortest option, as was right more often for the type with other users."""

    name = "type_length"
    designed_for = ("personamem*",)
    privileged = True
    refuses = {
        "lamp*": "its choices are fixed labels, not options of differing length",
        "longlamp*": "it offers no choices",
        "lampqa*": "it offers no choices",
        "prelude*": "it offers no choices",
        "reviews*": "it offers no choices",
        "prefdisco*": "it offers no choices",
    }

    async def predict(self, sample: Sample, state: None, ctx: Context) -> str:
        return _hidden_choice(self.name, sample, ctx)


def _choose_by_length(
    sample: Sample,
    ctx: Context,
    pick: Callable[[Sequence[int]], int],
) -> str:
    if "options" not in sample.attributes:
        raise UsageError(f"{ctx.task.name} offers no options to compare")

    options = msgspec.json.decode(sample.attributes["options"], type=list[str])
    lengths = [len(option.strip()) for option in options]
    length = pick(lengths)
    if lengths.count(length) > 1:
        ctx.flag("length_ties")
    return sample.choices[lengths.index(length)]


def _hidden_choice(rule: str, sample: Sample, ctx: Context) -> str:
    # Both rules need the golds of a whole split, so the task computes them and hides the result
    # from other methods.
    if rule not in sample.hidden:
        raise UsageError(f"{ctx.task.name} does not say what the rule {rule} picks")
    return sample.hidden[rule]
