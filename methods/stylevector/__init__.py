"""StyleVector: one vector per user that is added to the model's hidden states.

The vector is the mean difference, at one layer, between the states after the user's own text and
after a generic answer of the model to the same request.  Nothing is optimized, and a user takes as
many numbers as the model is wide.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from personabench import Context, Sample, TrainContext, Trained, TrainedMethod, UsageError, User
from personabench.api.artifacts import ADAPTER
from personabench.api.training import repeatable

if TYPE_CHECKING:
    from personabench.methods.stylevector.states import Reader


class StyleVector(TrainedMethod):
    """Steer the model by the difference between the user's texts and generic ones."""

    name = "stylevector"
    paper = "Personalized Text Generation with Contrastive Activation Steering, arXiv 2503.05213"
    needs = ("history", "texts")
    designed_for = ("lamp4", "lamp5", "lamp7")
    kind = "steering_vector"
    external = True
    inference_params = ("strength",)

    @dataclass(frozen=True)
    class Params:
        """strength: the vector is added this many times; 0 is the model itself.

        layer: after which the vector is taken and added, from 0; -1 for the middle one.
        records: the newest records that the vector is made of; 0 for all.
        """

        strength: float = 1.0
        layer: int = -1
        records: int = 0

    def __init__(self, params: Params | None = None) -> None:
        super().__init__(params)
        if self.params.layer < -1:
            raise UsageError(f"stylevector: layer is -1 or more, not {self.params.layer}")
        if self.params.records < 0:
            raise UsageError(f"stylevector: records is 0 or more, not {self.params.records}")
        self._readers: dict[tuple[str, str], Reader] = {}

    async def train_user(self, user: User, ctx: TrainContext) -> Trained:
        reader = self._reader(ctx)
        differences: list[Any] = []
        newest = user.history[-self.params.records :] if self.params.records else user.history
        for record in newest:
            # A text without a stimulus has no generic answer to compare it with.
            if record.stimulus is None or not record.response.strip():
                ctx.count("without_stimulus")
                continue
            exchange = ctx.exchange(record)
            with repeatable(ctx.seed, ctx.device):
                difference = reader.compare(exchange, ctx.task.max_tokens)
            if difference is None:
                ctx.count("empty_generic")
            else:
                differences.append(difference)

        if not differences:
            return Trained("none")
        ctx.count("examples", len(differences))
        reader.write(ctx.folder / ADAPTER, differences)
        return Trained("steering_vector", parameters=len(differences[0]))

    def _reader(self, ctx: TrainContext) -> Reader:
        # Imported on use: an extra.
        from personabench.methods.stylevector.states import Reader

        key = (ctx.base, ctx.device)
        if key not in self._readers:
            self._readers[key] = Reader(ctx.base, ctx.device, self.params.layer)
        return self._readers[key]

    async def predict(self, sample: Sample, state: None, ctx: Context) -> str:
        artifact = ctx.artifact(sample)
        if artifact is None or artifact.card.kind == "none":
            ctx.flag("without_user_vector")
            return await ctx.answer(sample)
        ctx.note("artifact", artifact.name)
        return await ctx.using(artifact, self.params.strength).answer(sample)
