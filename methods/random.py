"""Random records of the user: the gain of retrieval that comes from format alone."""

from __future__ import annotations

from dataclasses import dataclass

from personabench import Context, Method, Sample


class Random(Method):
    """Show k of the user's records, drawn by the run's seed and the sample's id."""

    name = "random"
    needs = ("history",)

    @dataclass(frozen=True)
    class Params:
        """k: records shown."""

        k: int = 8

    async def predict(self, sample: Sample, state: None, ctx: Context) -> str:
        records = await ctx.retrieve(sample, self.params.k, "random")
        return await ctx.answer(sample, records)
