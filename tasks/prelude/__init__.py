"""PRELUDE and PLUME: summaries and emails for users whose taste shows in what they write.

PRELUDE: "Aligning LLM Agents by Learning Latent Preference from User Edits" (arXiv 2404.15269,
NeurIPS 2024).  One trajectory is one user with a hidden preference per source of documents.  A
round is a draft, the user's decision and, unless accepted, the user's own version, whose distance
from the draft is the cost.  PLUME (arXiv 2505.23815) changes the preferences and the user, see
`plume`.

The part that both share is in `writing`, documents in `data`, the simulated users in `user` and
`rules`, metrics in `scoring`.
"""

from __future__ import annotations

import dataclasses
import random
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from personabench.api.task import JsonObject
from personabench.metrics.edits import measure_edit
from personabench.metrics.metric import Value
from personabench.models.roles import Role
from personabench.tasks.prelude import scoring, user
from personabench.tasks.prelude.data import SEPARATOR, Trajectories
from personabench.tasks.prelude.plume import Plume
from personabench.tasks.prelude.rules import list_broken, parse_rules, satisfy
from personabench.tasks.prelude.writing import (
    INTERVAL_TRAJECTORIES,
    Emails,
    Summaries,
    WritingTask,
    check_minimums,
    read_seeds,
)
from personabench.types import Sample

__all__ = ["INTERVAL_TRAJECTORIES", "PlumeEmail", "PlumeSumm", "PreludeEmail", "PreludeSumm"]


class _Prelude(WritingTask):
    """The part that both environments of PRELUDE share."""

    benchmark = "PRELUDE"
    seeds_option = f"task.trajectories={INTERVAL_TRAJECTORIES}"
    source = "https://github.com/gao-g/prelude (arXiv 2404.15269); documents come with --data"
    licence = "MIT (code); documents under the terms of their data sets"
    paper_settings = {"user": "llm", "rounds": [0, 200], "trajectories": 3, "document_tokens": 0}
    metrics = scoring.METRICS
    judge_params = ("accuracy", "preferences")
    prompts = (user.PROMPTS,)

    @dataclasses.dataclass(frozen=True)
    class Params(WritingTask.Params):
        """Options of the task, beside those of the layout.

        Attributes:
            user: the simulated user: a model, a model with a seeded part of the preferences, or
                rules.
            rounds: rounds of a trajectory; 0 is the paper's 200, or the whole example data.
            trajectories: number of trajectories, with the seeds 0, 1, ...; the paper has 3, which
                are too few for an interval.
            seeds: the seeds of the trajectories themselves, such as 3,4,5, instead of their number.
            preferences: a preference file, instead of the data folder's or the bundled one; its
                content is part of the data's hash, its path is not.
            user_max_tokens: maximum tokens of each reply of the simulated user; user_top_p: their
                nucleus sampling probability. Its temperature is `--simulator-temperature`.
            document_tokens: documents are truncated, and counted, after so many tokens; 0 for
                never.
            accuracy: measure that compares an inferred preference with the true ones.
        """

        user: Literal["llm", "weak", "rule"] = "llm"
        trajectories: int = 3

        def __post_init__(self) -> None:
            super().__post_init__()
            check_minimums(self, trajectories=1)

        @property
        def seed_list(self) -> list[int]:
            """The seed of each trajectory."""
            return read_seeds(self.seeds) or list(range(self.trajectories))

    params: Params

    def __init__(self, params: Any = None) -> None:
        super().__init__(params)
        if self.params.user == "rule":
            self.roles = ()
        self.metrics = scoring.select_metrics(scoring.METRICS, self.params.accuracy)  # type: ignore[misc]

    def draw_trajectories(self, data: Path | None) -> Trajectories:
        params = self.params
        return Trajectories(
            self.documents,
            data,
            self.word_request,
            rounds=params.rounds,
            seeds=params.seed_list,
            by_rule=params.user == "rule",
            preferences=params.preferences,
        )

    async def react(
        self,
        sample: Sample,
        output: str,
        simulator: Role,
    ) -> tuple[JsonObject, JsonObject]:
        """Let the user react to a draft.

        Returns feedback (`draft`, `edited` and `cost`), and the round's interaction.
        """
        true = sample.hidden["preference"]
        draft = self.parse(output, sample, "official") or ""
        applied = true
        if self.params.user == "weak":
            applied = self.weaken_preference(sample, true, simulator.seed)

        if self.params.user == "rule":
            reaction = _react_by_rule(draft, true)
        else:
            reaction = await user.react(
                simulator,
                self.texts,
                self.words,
                self.truncate_document(sample, simulator.tokens),
                draft,
                applied,
                self.params.user_max_tokens,
                top_p=self.params.user_top_p,
            )

        edit = measure_edit(draft, reaction.final)
        interaction = {
            "t": int(sample.hidden["t"]),
            "rounds": int(sample.hidden["rounds"]),
            "doc_id": sample.hidden["doc_id"],
            "source": sample.hidden["source"],
            "preference": true,
            "applied": applied,
            "draft": draft,
            "decision": reaction.decision,
            "reply": reaction.reply,
            "raw": reaction.raw,
            "final": reaction.final,
            "cost": edit.cost,
            "draft_tokens": edit.draft_tokens,
            "final_tokens": edit.final_tokens,
        }
        feedback = {"draft": draft, "edited": reaction.final, "cost": edit.cost}
        return feedback, interaction

    def measure_interaction(
        self,
        interaction: JsonObject,
        assessment: JsonObject | None,
        sample: Sample,
    ) -> Mapping[str, Value]:
        liked = sample.hidden["liked"].split(SEPARATOR)
        return scoring.measure_round(interaction, liked, self.params.accuracy)

    def download(self, split: str, target: Path, **options: Any) -> None:
        from personabench.tasks.prelude.download import download

        download(self.documents, target, **options)

    def weaken_preference(self, sample: Sample, preference: str, seed: int) -> str:
        """Draw a seeded part of a preference's points (arXiv 2601.19055)."""
        points = [point.strip() for point in re.split(r"[,;]", preference)]
        points = [point for point in points if point]
        rng = random.Random(f"{seed}\x1f{sample.id}")
        count = rng.randint(1, len(points))
        # In their own order: a shuffled preference would read differently from the true one.
        indices = sorted(rng.sample(range(len(points)), count))
        return ", ".join(points[index] for index in indices)


def _react_by_rule(draft: str, preference: str) -> user.Reaction:
    """React to a draft by rules, without a model."""
    rules = parse_rules(preference.split("; "))
    # Fixes can cancel out and return the draft itself, so the rules decide and not the text.
    decision = "rewritten" if list_broken(draft, rules) else "accepted"
    return user.Reaction(decision, reply="", raw="", final=satisfy(draft, rules))


class PreludeSumm(Summaries, _Prelude):
    """Summarise documents for a user who edits the summaries."""

    name = "prelude_summ"
    title = "PRELUDE: summaries that a user edits"
    kind = "text"
    offers = ("feedback", "preference")


class PreludeEmail(Emails, _Prelude):
    """Write short emails from notes for a user who edits the emails."""

    name = "prelude_email"
    title = "PRELUDE: emails that a user edits"
    kind = "text"
    offers = ("feedback", "preference")


class PlumeSumm(Summaries, Plume):
    """Summarise documents for a user who writes summaries in a manner of their own."""

    name = "plume_summ"
    title = "PLUME: summaries as a user writes them"
    kind = "text"
    offers = ("feedback", "preference")


class PlumeEmail(Emails, Plume):
    """Write short emails from notes for a user who writes emails in a manner of their own."""

    name = "plume_email"
    title = "PLUME: emails as a user writes them"
    kind = "text"
    offers = ("feedback", "preference")
