"""The non-personalised row every other method is measured against."""

from __future__ import annotations

from personabench import Context, Method, Sample


class NoPersonalization(Method):
    """Ask the question alone: no history, no notes."""

    name = "none"

    async def predict(self, sample: Sample, state: None, ctx: Context) -> str:
        return await ctx.answer(sample)
