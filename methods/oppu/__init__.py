"""OPPU: one LoRA adapter per user, trained on the user's own history.

Stage 1 learns the task from other users: an adapter on the samples of a split that is not tested.
Stage 2 learns the user: a further adapter on the exchanges of the history, request and response.
The paper merges the first into the base model; here both are served as one adapter with the sum of
their changes, so that all rows of a comparison have one base model.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from personabench import (
    Context,
    Corpus,
    Sample,
    TrainContext,
    Trained,
    TrainedMethod,
    UsageError,
    User,
)
from personabench.api.artifacts import ADAPTER, SERVED, Artifact
from personabench.api.training import Exchange, tokenize_prompt
from personabench.methods.oppu.examples import Example, make_example
from personabench.types import Record

if TYPE_CHECKING:
    from personabench.methods.oppu.trainer import Trainer

TASK_MODULES = ("q_proj", "k_proj", "v_proj", "o_proj")
USER_MODULES = ("q_proj", "v_proj")


class Oppu(TrainedMethod):
    """Answer with a LoRA adapter of the user's own, on top of one for the task."""

    name = "oppu"
    paper = (
        "Democratizing Large Language Models via Personalized Parameter-Efficient Fine-tuning, "
        "arXiv 2402.04401"
    )
    needs = ("history",)
    designed_for = ("lamp*",)
    external = True
    inference_params = ("stage",)

    @dataclass(frozen=True)
    class Params:
        """stage: 2 answers with the user's adapter, 1 with that of the task alone.

        population: train stage 1; corpus: the split that it trains on.
        k: records shown with the question, and with every example, there from earlier records.
        rank, alpha, dropout: of the adapters.
        learning_rate, weight_decay, epochs, batch, warmup, clip: of AdamW; the rate rises over the
            warm-up share of the updates and falls to zero.
        cutoff: tokens of an example; requests lose their left end.
        loss: on the tokens of the output, or on all.
        min_records: users with fewer records have no adapter; stage 1 answers for them.
        """

        stage: int = 2
        population: bool = True
        corpus: str = "train"
        k: int = 0
        rank: int = 8
        alpha: int = 8
        dropout: float = 0.05
        learning_rate: float = 1e-4
        weight_decay: float = 0.01
        epochs: int = 2
        batch: int = 16
        warmup: float = 0.1
        clip: float = 0.3
        cutoff: int = 2048
        loss: Literal["output", "all"] = "output"
        min_records: int = 10

    def __init__(self, params: Params | None = None) -> None:
        super().__init__(params)
        p = self.params
        if p.stage not in (1, 2):
            raise UsageError(f"oppu: stage is 1 or 2, not {p.stage}")
        if p.stage == 1 and not p.population:
            raise UsageError("oppu: stage=1 answers with the adapter that population=true trains")
        for name in ("rank", "alpha", "epochs", "batch", "cutoff", "min_records"):
            if getattr(p, name) < 1:
                raise UsageError(f"oppu: {name} is at least 1, not {getattr(p, name)}")
        if p.k < 0:
            raise UsageError(f"oppu: k is 0 or more, not {p.k}")
        self._trainers: dict[tuple[str, str, Path | None], Trainer] = {}

    @property
    def corpus_split(self) -> str:
        return self.params.corpus if self.params.population else ""

    def needs_user(self) -> bool:
        return bool(self.params.stage == 2)

    def count_steps(self, records: int) -> int:
        if records < self.params.min_records:
            return 0
        steps: int = -(-records // self.params.batch) * self.params.epochs
        return steps

    async def train(self, corpus: Corpus, ctx: TrainContext) -> Trained:
        exchanges = []
        for sample in corpus.samples:
            records = await ctx.retrieve(sample, sample.history, self.params.k)
            exchanges.append(ctx.example(sample, records))
        trainer = self._trainer(ctx)
        examples = self._make_examples(exchanges, trainer.tokenizer, ctx)
        if not examples:
            raise UsageError(f"oppu: the split {self.params.corpus} has nothing to train on")
        return self._fit(trainer, examples, TASK_MODULES, ctx)

    async def train_user(self, user: User, ctx: TrainContext) -> Trained:
        if len(user.history) < self.params.min_records:
            ctx.count("few_records")
            return Trained("none")

        exchanges = [
            ctx.exchange(record, await self._retrieve_earlier(record, user.history[:index], ctx))
            for index, record in enumerate(user.history)
            if record.response
        ]
        trainer = self._trainer(ctx)
        examples = self._make_examples(exchanges, trainer.tokenizer, ctx)
        if not examples:
            ctx.count("no_examples")
            return Trained("none")
        trained = self._fit(trainer, examples, USER_MODULES, ctx)
        if ctx.parent is not None:
            # Imported on use: an extra.
            from personabench.methods.oppu.trainer import combine

            combine(ctx.parent.folder / ADAPTER, ctx.folder / ADAPTER, ctx.folder / SERVED)
        return trained

    async def _retrieve_earlier(
        self, record: Record, earlier: Sequence[Record], ctx: TrainContext
    ) -> list[Record]:
        if not self.params.k or record.stimulus is None:
            return []
        question = ctx.task.question(record, ctx.like)
        return await ctx.retrieve(question, earlier, self.params.k)

    def _make_examples(
        self, exchanges: Sequence[Exchange], tokenizer: Any, ctx: TrainContext
    ) -> list[Example]:
        p = self.params
        examples = []
        for exchange in exchanges:
            example = make_example(exchange, tokenizer, tokenize_prompt, p.cutoff, p.loss)
            if example is None:
                ctx.count("output_over_cutoff")
            elif example.learnt:
                examples.append(example)
        return examples

    def _trainer(self, ctx: TrainContext) -> Trainer:
        # Imported on use: an extra.
        from personabench.methods.oppu.trainer import Trainer

        stage1 = ctx.parent.folder / ADAPTER if ctx.parent else None
        key = (ctx.base, ctx.device, stage1)
        if key not in self._trainers:
            # One model in memory: the stages follow one another.
            self._trainers = {key: Trainer(ctx.base, ctx.device, stage1)}
        return self._trainers[key]

    def _fit(
        self, trainer: Trainer, examples: Sequence[Example], modules: tuple[str, ...], ctx: Any
    ) -> Trained:
        from personabench.methods.oppu.trainer import Settings

        p = self.params
        settings = Settings(
            targets=modules,
            rank=p.rank,
            alpha=p.alpha,
            dropout=p.dropout,
            learning_rate=p.learning_rate,
            weight_decay=p.weight_decay,
            epochs=p.epochs,
            batch=p.batch,
            warmup=p.warmup,
            clip=p.clip,
        )
        fitted = trainer.fit(examples, settings, ctx.seed, ctx.folder / ADAPTER)
        ctx.count("examples", len(examples))
        return Trained("lora", fitted.parameters, fitted.steps)

    async def predict(self, sample: Sample, state: None, ctx: Context) -> str:
        records = await ctx.retrieve(sample, self.params.k) if self.params.k else []
        artifact = self._choose(sample, ctx)
        if artifact is None:
            return await ctx.answer(sample, records)
        ctx.note("artifact", artifact.name)
        return await ctx.using(artifact).answer(sample, records)

    def _choose(self, sample: Sample, ctx: Context) -> Artifact | None:
        """The artifact that answers; None for the base model."""
        if self.params.stage == 2:
            artifact = ctx.artifact(sample)
            if artifact is not None and artifact.card.kind == "lora":
                return artifact
            ctx.flag("without_user_adapter")
        return ctx.artifact(sample, "base")
