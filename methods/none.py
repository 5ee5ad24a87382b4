"""The baseline without personalization that every other method is compared with."""

from __future__ import annotations

from personabench import Context, Method, Sample


class NoPersonalization(Method):
    """Answer the question alone: no history, no notes."""

    name = "none"

    async def predict(self, sample: Sample, state: None, ctx: Context) -> str:
        return await ctx.answer(sample)
