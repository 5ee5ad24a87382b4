"""PLUME: a user writes in a manner of their own, and good methods write more and more like them.

"Aligning LLMs by Predicting Preferences from User Writing Samples" (arXiv 2505.23815, ICML 2025)
changes PRELUDE in two points.  The user never sees the method's draft and writes a text from the
document: nothing of the model's own style is accepted or carried over.  And the preferences are
rare and independent of each other, four for each source of documents, so that no draft keeps them
by chance.
"""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from personabench.api.judged import JudgedTask
from personabench.api.task import JsonObject
from personabench.metrics.edits import measure_edit
from personabench.metrics.metric import Value
from personabench.models.roles import Role, RoleName
from personabench.tasks.prelude import judging, scoring, user
from personabench.tasks.prelude.data import SEPARATOR, Trajectories
from personabench.tasks.prelude.writing import WritingTask, read_seeds
from personabench.types import Sample

PAPER_SEEDS = (1235, 9328, 235, 6936, 2045)
SHARE = 5
"""Documents of each source in a trajectory of the paper."""


class Plume(WritingTask, JudgedTask):
    """The part that both environments of PLUME share."""

    benchmark = "PLUME"
    seeds_option = "a sixth seed in task.seeds"
    source = "arXiv 2505.23815; documents are PRELUDE's and come with --data"
    licence = "documents under the terms of their data sets"
    paper_settings = {"rounds": [0, 20, 25], "seeds": ",".join(map(str, PAPER_SEEDS))}
    metrics = scoring.PLUME
    judged_metrics = scoring.PLUME_JUDGED
    optional_roles: tuple[RoleName, ...] = ("judge",)
    judge_params = ("preferences",)
    judge_content = judging.PROMPT
    prompts = (user.PROMPTS, user.PLUME_PROMPTS)

    @dataclasses.dataclass(frozen=True)
    class Params(WritingTask.Params):
        """Options of the task, beside those of the layout.

        Attributes:
            rounds: rounds of a trajectory; 0 is the paper's, 5 documents of each source.
            seeds: the seeds of the trajectories; the paper's five, which are too few for an
                interval.
            preferences: a preference file, instead of the data folder's or the bundled one; its
                content is part of the data's hash, its path is not.
            user_max_tokens: maximum tokens of the simulated user's text; user_top_p: its nucleus
                sampling probability. Its temperature is `--simulator-temperature`.
            document_tokens: documents are truncated, and counted, after so many tokens; 0 for
                never.
            accuracy: measure that compares an inferred preference with the true ones; bertscore
                compares the texts as well.
        """

        seeds: str = ",".join(map(str, PAPER_SEEDS))
        user_top_p: float = 1.0

        def __post_init__(self) -> None:
            super().__post_init__()
            if not self.seeds:
                raise ValueError("seeds names at least one seed, such as 3,4,5")

    params: Params

    def __init__(self, params: Any = None) -> None:
        super().__init__(params)
        self.metrics = scoring.select_metrics(scoring.PLUME, self.params.accuracy)  # type: ignore[misc]

    def draw_trajectories(self, data: Path | None) -> Trajectories:
        params = self.params
        return Trajectories(
            f"plume_{self.documents}",
            data,
            self.word_request,
            rounds=params.rounds,
            seeds=read_seeds(params.seeds),
            by_rule=False,
            preferences=params.preferences,
            share=SHARE,
            benchmark=self.benchmark,
        )

    async def react(
        self, sample: Sample, output: str, simulator: Role
    ) -> tuple[JsonObject, JsonObject]:
        """Let the user write a text from the document, without sight of the draft.

        Returns feedback (`draft`, `edited`, which is the user's text, and `cost`), and the round's
        interaction.
        """
        draft = self.parse(output, sample, "official") or ""
        raw, text = await user.write(
            simulator,
            self.texts,
            self.words,
            self.truncate_document(sample, simulator.tokens),
            split_preference(sample.hidden["preference"]),
            self.params.user_max_tokens,
            self.params.user_top_p,
        )
        edit = measure_edit(draft, text)
        interaction = {
            "t": int(sample.hidden["t"]),
            "rounds": int(sample.hidden["rounds"]),
            "doc_id": sample.hidden["doc_id"],
            "source": sample.hidden["source"],
            "preference": sample.hidden["preference"],
            "draft": draft,
            "raw": raw,
            "final": text,
            "cost": edit.cost,
            "draft_tokens": edit.draft_tokens,
            "final_tokens": edit.final_tokens,
        }
        return {"draft": draft, "edited": text, "cost": edit.cost}, interaction

    async def assess(
        self, sample: Sample, output: str, interaction: JsonObject, judge: Role
    ) -> JsonObject | None:
        """Have the judge compare the draft, and what was inferred, with the user's preference.

        Verdicts that cannot be read are None, counted; None instead of all if none can be read.
        """
        draft = self.parse(output, sample, "official") or ""
        true = sample.hidden["preference"]
        components = split_preference(true)
        inferred = interaction.get("method", {}).get("preference", "")
        *parts, whole = await asyncio.gather(
            *(judging.judge_component(judge, draft, component) for component in components),
            judging.judge_set(judge, draft, components),
        )
        similarity = None
        if inferred:
            similarity = await judging.judge_similarity(judge, inferred, true)

        replies = [*parts, whole, *([similarity] if similarity else [])]
        retries = sum(reply.attempts - 1 for reply in replies)
        if retries:
            judge.flag("judge_retried", retries)
        unread = sum(reply.value is None for reply in replies)
        if unread:
            judge.flag("verdicts_unparsed", unread)
        if unread == len(replies):
            return None
        return {
            "components": [reply.value for reply in parts],
            "set": whole.value,
            "similarity": similarity.value if similarity else None,
        }

    def measure_interaction(
        self, interaction: JsonObject, assessment: JsonObject | None, sample: Sample
    ) -> Mapping[str, Value]:
        """See `Task`; a verdict that could not be read is in no mean."""
        values: dict[str, Value] = {}
        # Answers that other judges assess again come without the round.
        if interaction:
            liked = sample.hidden["liked"].split(SEPARATOR)
            values = scoring.measure_texts(interaction, liked, self.params.accuracy)
        if not assessment:
            return values

        scores = [score for score in assessment["components"] if score is not None]
        if scores:
            values["component_match"] = sum(scores) / len(scores)
        for name, key in (("set_match", "set"), ("preference_similarity", "similarity")):
            if assessment[key] is not None:
                values[name] = float(assessment[key])
        return values

    def download(self, split: str, target: Path, **options: Any) -> None:
        from personabench.tasks.prelude.download import ORIGINS, download

        rounds = SHARE * len(ORIGINS[self.documents])
        download(self.documents, target, seeds=PAPER_SEEDS, rounds=rounds, **options)


def split_preference(preference: str) -> list[str]:
    """The components of a preference, which semicolons separate."""
    return [part.strip() for part in preference.split(";") if part.strip()]
