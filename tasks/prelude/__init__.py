"""PRELUDE: a user edits the model's drafts, and good methods need fewer edits over time.

"Aligning LLM Agents by Learning Latent Preference from User Edits" (arXiv 2404.15269, NeurIPS
2024).  One trajectory is one user with a hidden preference per source of documents.  A round is a
draft, the user's decision and, unless accepted, the user's own version, whose distance from the
draft is the cost.  Documents are in `data`, the simulated user in `user` and `rules`, metrics in
`scoring`.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import random
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from personabench.api.data_sources import Downloadable
from personabench.api.dataset import Dataset
from personabench.api.layout import Layout, Parts, arrange
from personabench.api.online import OnlineTask
from personabench.api.task import JsonObject
from personabench.api.wording import Rendered, Vocabulary
from personabench.errors import UsageError
from personabench.metrics.edits import measure_edit
from personabench.metrics.metric import Value
from personabench.metrics.text import strip_reasoning
from personabench.models.roles import Role, RoleName
from personabench.models.tokens import Tokens
from personabench.tasks.prelude import scoring, user
from personabench.tasks.prelude.data import SEPARATOR, Trajectories
from personabench.tasks.prelude.rules import list_broken, parse_rules, satisfy
from personabench.tasks.prelude.user import TOP_P
from personabench.types import Record, Sample

__all__ = ["PreludeEmail", "PreludeSumm"]


INTERVAL_TRAJECTORIES = 6
"""Each trajectory is one user; intervals over fewer users are not reported."""


class _Prelude(OnlineTask, Downloadable):
    """The part that both environments share."""

    env: str
    request: str
    protocol = "online"
    offers = ("feedback", "preference")
    roles: tuple[RoleName, ...] = ("simulator",)
    kind = "text"
    source = "https://github.com/gao-g/prelude (arXiv 2404.15269); documents come with --data"
    licence = "MIT (code); documents under the terms of their data sets"
    default_split = "all"
    paper_settings = {"user": "llm", "rounds": [0, 200], "trajectories": 3, "document_tokens": 0}
    max_tokens = 512
    scorers = ("official",)
    metrics = scoring.METRICS
    judge_params = ("accuracy", "preferences")
    prompts = (user.PROMPTS,)

    @dataclasses.dataclass(frozen=True)
    class Params(Layout):
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
        rounds: int = 0
        trajectories: int = 3
        seeds: str = ""
        preferences: str = ""
        user_max_tokens: int = 4000
        user_top_p: float = TOP_P
        document_tokens: int = 0
        accuracy: scoring.Accuracy = "wordllama"

        def __post_init__(self) -> None:
            minimums = {
                "rounds": 0,
                "trajectories": 1,
                "user_max_tokens": 1,
                "document_tokens": 0,
            }
            for name, minimum in minimums.items():
                value = getattr(self, name)
                if value < minimum:
                    raise ValueError(f"{name} must be at least {minimum}, not {value}")
            if not 0 < self.user_top_p <= 1:
                raise ValueError(f"user_top_p must be above 0 and at most 1, not {self.user_top_p}")
            _read_seeds(self.seeds)

        @property
        def seed_list(self) -> list[int]:
            """The seed of each trajectory."""
            return _read_seeds(self.seeds) or list(range(self.trajectories))

    params: Params

    def __init__(self, params: Any = None) -> None:
        super().__init__(params)
        if self.params.user == "rule":
            self.roles = ()
        self.metrics = scoring.select_metrics(self.params.accuracy)  # type: ignore[misc]

    def open(self, split: str, data: Path | None) -> Dataset:
        if split not in ("all", "user/all"):
            raise UsageError(f"{self.name} has one split, all, not '{split}'")

        params = self.params
        dataset = Trajectories(
            self.env,
            data,
            self._word_request,
            rounds=params.rounds,
            seeds=params.seed_list,
            by_rule=params.user == "rule",
            preferences=params.preferences,
        )
        count = len(params.seed_list)
        if count < INTERVAL_TRAJECTORIES:
            dataset.warnings = (
                *dataset.warnings,
                f"{count} trajectories are too few for an interval; "
                f"task.trajectories={INTERVAL_TRAJECTORIES} gives one",
            )
        return dataset

    def render(
        self,
        sample: Sample,
        records: Sequence[Record],
        notes: str,
        tokens: Tokens,
    ) -> Rendered:
        """Render notes about the user as system message, then the document with its instruction."""
        return self._render_document(sample, records, notes, tokens, self._contract)

    def render_content(
        self,
        sample: Sample,
        records: Sequence[Record],
        notes: str,
        tokens: Tokens,
    ) -> Rendered:
        return self._render_document(sample, records, notes, tokens, "")

    @property
    def _contract(self) -> str:
        """The form of the answer, without the request for the user's own."""
        return self.words.instruction.removeprefix(self.words.goal).strip()

    def _render_document(
        self,
        sample: Sample,
        records: Sequence[Record],
        notes: str,
        tokens: Tokens,
        contract: str,
    ) -> Rendered:
        question = sample.input
        flags = {}
        document = self._truncate_document(sample, tokens)
        if sample.stimulus and document != sample.stimulus:
            question = self._word_request(document)
            flags["documents_cut"] = 1.0

        # The paper's request without anything known of the user mentions none.
        stage = "draft_for_user" if notes or records else "draft"
        ending = self._part(stage, goal=self.words.goal, contract=contract).strip()
        # The instruction comes last, where models heed it even after a long document.
        if ending:
            question = f"{question}\n\n{ending}"
        parts = Parts(
            question=question,
            notes=self._part("preference", notes=notes) if notes else "",
            records=records,
            word_turn=lambda record: self.question(record, sample).input,
            word_list=lambda ordered: "\n\n".join(map(self.describe, ordered)),
            opening=self._part("system"),
        )
        messages = arrange(parts, self.params, "list")
        return Rendered(tuple(messages), tuple(records), flags)

    def _word_request(self, document: str) -> str:
        return self._part("document", request=self.request, document=document)

    def _part(self, stage: str, **slots: str) -> str:
        return self.texts.part(user.PROMPTS, stage, self.words, slots)

    def _truncate_document(self, sample: Sample, tokens: Tokens) -> str:
        limit = self.params.document_tokens
        document = sample.stimulus or ""
        return tokens.truncate(document, limit) if limit else document

    def parse(self, output: str, sample: Sample, scorer: str) -> str | None:
        """The draft: the answer without reasoning, which users do not see; None if it is empty."""
        return strip_reasoning(output).strip() or None

    def measure(self, parsed: str | None, sample: Sample) -> Mapping[str, Value]:
        return {}

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
                self._truncate_document(sample, simulator.tokens),
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

    def describe_missing(self) -> str:
        if importlib.util.find_spec("bert_score"):
            return ""
        return "task.accuracy=bertscore, the paper's measure, needs: pip install bert-score"

    def download(self, split: str, target: Path, **options: Any) -> None:
        from personabench.tasks.prelude.download import download

        download(self.env, target, **options)

    def weaken_preference(self, sample: Sample, preference: str, seed: int) -> str:
        """Draw a seeded part of a preference's points (arXiv 2601.19055)."""
        points = [point.strip() for point in re.split(r"[,;]", preference)]
        points = [point for point in points if point]
        rng = random.Random(f"{seed}\x1f{sample.id}")
        count = rng.randint(1, len(points))
        # In their own order: a shuffled preference would read differently from the true one.
        indices = sorted(rng.sample(range(len(points)), count))
        return ", ".join(points[index] for index in indices)


def _read_seeds(text: str) -> list[int]:
    """Read the option `seeds`.

    Raises:
        ValueError: it is no list of different whole numbers.
    """
    words = [word.strip() for word in text.split(",")] if text else []
    if not all(word.isdecimal() for word in words) or len(set(words)) < len(words):
        raise ValueError(f"seeds must be different whole numbers such as 3,4,5, not {text!r}")
    return [int(word) for word in words]


def _react_by_rule(draft: str, preference: str) -> user.Reaction:
    """React to a draft by rules, without a model."""
    rules = parse_rules(preference.split("; "))
    # Fixes can cancel out and return the draft itself, so the rules decide and not the text.
    decision = "rewritten" if list_broken(draft, rules) else "accepted"
    return user.Reaction(decision, reply="", raw="", final=satisfy(draft, rules))


class PreludeSumm(_Prelude):
    """Summarise documents for a user who edits the summaries."""

    name = "prelude_summ"
    title = "PRELUDE: summaries that a user edits"
    kind = "text"
    offers = ("feedback", "preference")
    env = "summ"
    request = "Summarise this document."
    words = Vocabulary(
        person="reader",
        stimulus="document",
        response="summary",
        profile_question="Which form, tone and wording does this reader like in a summary?",
        axes=(
            ("Form", "prose, lists, questions, length and layout"),
            ("Tone", "formal or casual, sober or lively, how the reader is addressed"),
            ("Wording", "sentence length, simple or technical words, symbols"),
        ),
        instruction=(
            "Write the summary that this reader would like. "
            "Answer with the summary and nothing else."
        ),
        goal="Write the summary that this reader would like.",
        answer_form="the summary",
    )


class PreludeEmail(_Prelude):
    """Write short emails from notes for a user who edits the emails."""

    name = "prelude_email"
    title = "PRELUDE: emails that a user edits"
    kind = "text"
    offers = ("feedback", "preference")
    env = "email"
    request = "Write a short email from these notes."
    words = Vocabulary(
        person="sender",
        stimulus="notes",
        response="email",
        profile_question="Which form, tone and wording does this sender like in an email?",
        axes=(
            ("Form", "greeting, closing, length, order and layout"),
            ("Tone", "formal or casual, sober or lively, how the receiver is addressed"),
            ("Wording", "sentence length, simple or technical words, set phrases"),
        ),
        instruction=(
            "Write the email that this sender would like. Answer with the email and nothing else."
        ),
        goal="Write the email that this sender would like.",
        answer_form="the email",
    )
