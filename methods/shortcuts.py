"""Rules that look at the offered choices alone: the multiple-choice score that needs no reading.

If gold options tend to be the longest ones, the longest option beats chance without user, history
or model.  Two of the rules have seen golds, which a task reveals to oracles only: the majority
letter, and lengths learned by type.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from personabench import Context, Method, Sample


class FirstOption(Method):
    """The first of the offered choices."""

    name = "first_option"
    rule = True
    needs = ("choices",)
    designed_for = ("*",)

    async def predict(self, sample: Sample, state: None, ctx: Context) -> str:
        return _first_choice(sample, ctx)


class LongestOption(Method):
    """The longest of the offered options, the first of equally long ones."""

    name = "longest_option"
    rule = True
    needs = ("options",)
    designed_for = ("*",)

    async def predict(self, sample: Sample, state: None, ctx: Context) -> str:
        return _choose_by_length(sample, ctx, max)


class ShortestOption(Method):
    """The shortest of the offered options, the first of equally short ones."""

    name = "shortest_option"
    rule = True
    needs = ("options",)
    designed_for = ("*",)

    async def predict(self, sample: Sample, state: None, ctx: Context) -> str:
        return _choose_by_length(sample, ctx, min)


class LongerResponse(Method):
    """The longer of two responses, the first of equally long ones."""

    name = "longer_response"
    rule = True
    needs = ("pairs",)
    designed_for = ("*",)

    async def predict(self, sample: Sample, state: None, ctx: Context) -> str:
        return _choose_by_length(sample, ctx, max)


class MajorityLetter(Method):
    """The letter most often right in the whole split, the earlier of equals (sees golds)."""

    name = "majority_letter"
    rule = True
    privileged = True
    needs = ("picks",)
    designed_for = ("*",)

    async def predict(self, sample: Sample, state: None, ctx: Context) -> str:
        return _hidden_pick(self.name, sample, ctx)


class TypeLength(Method):
    """The longest or shortest option, as was right more often for the type with other users."""

    name = "type_length"
    rule = True
    privileged = True
    needs = ("picks",)
    designed_for = ("*",)

    async def predict(self, sample: Sample, state: None, ctx: Context) -> str:
        return _hidden_pick(self.name, sample, ctx)


def _choose_by_length(
    sample: Sample,
    ctx: Context,
    pick: Callable[[Sequence[int]], int],
) -> str:
    lengths = [len(option.strip()) for option in ctx.task.options(sample)]
    if not lengths:
        return _first_choice(sample, ctx)

    length = pick(lengths)
    if lengths.count(length) > 1:
        ctx.flag("length_ties")
    return sample.choices[lengths.index(length)]


def _hidden_pick(rule: str, sample: Sample, ctx: Context) -> str:
    # Both rules need the golds of a whole split, so the task computes them and hides the result
    # from other methods.  It may lack one for a question without golds.
    if rule in sample.hidden:
        return sample.hidden[rule]
    return _first_choice(sample, ctx)


def _first_choice(sample: Sample, ctx: Context) -> str:
    """The first choice; an empty answer, flagged, if a question has none."""
    if sample.choices:
        return sample.choices[0]
    ctx.flag("no_choices")
    return ""
