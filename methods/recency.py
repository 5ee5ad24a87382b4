"""The user's newest records: a baseline that needs no query."""

from __future__ import annotations

from dataclasses import dataclass

from personabench import Context, Method, Sample


class Recency(Method):
    """Show the user's k newest records."""

    name = "recency"
    needs = ("history", "dates")

    @dataclass(frozen=True)
    class Params:
        """k: records shown."""

        k: int = 8

    async def predict(self, sample: Sample, state: None, ctx: Context) -> str:
        records = await ctx.retrieve(sample, self.params.k, "recency")
        return await ctx.answer(sample, records)
