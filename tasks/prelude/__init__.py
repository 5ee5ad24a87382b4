"""PRELUDE: a user edits what the model drafts, and the model is to need fewer edits as time goes by.

"Aligning LLM Agents by Learning Latent Preference from User Edits" (arXiv 2404.15269, NeurIPS 2024).  One trajectory is
one user with a hidden preference per source of documents; a round is a draft, the user's verdict and, if need be, the
user's own version, whose distance from the draft is the cost.  Documents are in `data`, the simulated user in `user`
and `rules`, numbers in `scoring`.
"""

from __future__ import annotations

import dataclasses
import random
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from personabench.api.dataset import Dataset
from personabench.api.task import JsonObject, Task
from personabench.api.wording import Rendered, Vocabulary
from personabench.errors import UsageError
from personabench.metrics.edits import measure_edit
from personabench.metrics.meteor import describe_missing_tokenizer
from personabench.metrics.metric import Value
from personabench.metrics.text import without_reasoning
from personabench.models.roles import Role
from personabench.models.tokens import Tokens
from personabench.tasks.prelude import scoring, user
from personabench.tasks.prelude.data import SEPARATOR, Trajectories
from personabench.tasks.prelude.rules import rules_of, satisfied, unkept
from personabench.types import Message, Record, Sample

__all__ = ["PreludeEmail", "PreludeSumm"]


class _Prelude(Task):
    """What both environments share."""

    env: str
    request: str
    protocol = "online"
    offers = ("feedback",)
    roles = ("simulator",)
    kind = "text"
    source = "https://github.com/gao-g/prelude (arXiv 2404.15269); documents come with --data"
    licence = "MIT (code); documents under the terms of their data sets"
    default_split = "all"
    max_tokens = 512
    scorers = ("official",)
    metrics = scoring.METRICS
    judge_params = ("accuracy", "preferences")

    @dataclasses.dataclass(frozen=True)
    class Params:
        """Options of the task.

        Attributes:
            user: who reacts: a model, the same with a seeded part of the preferences only, or a rule.
            rounds: rounds of a trajectory; 0 is the paper's 200, or all of the bundled sample.
            trajectories: how many, with the seeds 0, 1, ...
            preferences: a preference file, instead of the data folder's or the bundled one; what it says is part of
                the data's hash, where it lies of nothing.
            user_max_tokens: allowance of each of the user's replies.
            document_tokens: documents are cut after so many tokens, counted; 0 for never.
            accuracy: what compares an inferred preference with the true ones.
        """

        user: Literal["llm", "weak", "rule"] = "llm"
        rounds: int = 0
        trajectories: int = 3
        preferences: str = ""
        user_max_tokens: int = 4000
        document_tokens: int = 0
        accuracy: scoring.Accuracy = "wordllama"

        def __post_init__(self) -> None:
            for name, least in (
                ("rounds", 0),
                ("trajectories", 1),
                ("user_max_tokens", 1),
                ("document_tokens", 0),
            ):
                if getattr(self, name) < least:
                    raise ValueError(f"{name} must be at least {least}, not {getattr(self, name)}")

    params: Params

    def __init__(self, params: Any = None) -> None:
        super().__init__(params)
        if self.params.user == "rule":
            self.roles = ()
        self.metrics = scoring.metrics(self.params.accuracy)  # type: ignore[misc]

    def open(self, split: str, data: Path | None) -> Dataset:
        if split not in ("all", "user/all"):
            raise UsageError(f"{self.name} has one split, all, not '{split}'")
        p = self.params
        opened = Trajectories(
            self.env,
            data,
            lambda document: f"{self.request}\n\n{document}",
            rounds=p.rounds,
            count=p.trajectories,
            by_rule=p.user == "rule",
            preferences=p.preferences,
        )
        if lacking := describe_missing_tokenizer():
            opened.lacking = f"{self.name} counts the words of edits; {lacking}"
        return opened

    def render(
        self, sample: Sample, records: Sequence[Record], notes: str, tokens: Tokens
    ) -> Rendered:
        """Notes about the user as system message, then the document with the contract at its end."""
        told = (Message("system", f"About this {self.words.person}:\n{notes}"),) if notes else ()
        text, flags = sample.input, {}
        document = self._document(sample, tokens)
        if sample.stimulus and document != sample.stimulus:
            text, flags = f"{self.request}\n\n{document}", {"documents_cut": 1.0}
        return Rendered(
            (*told, Message("user", f"{text}\n\n{self.words.instruction}")), tuple(records), flags
        )

    def _document(self, sample: Sample, tokens: Tokens) -> str:
        limit, text = self.params.document_tokens, sample.stimulus or ""
        return tokens.cut(text, limit) if limit else text

    def parse(self, output: str, sample: Sample, scorer: str) -> str | None:
        """The draft: an answer without reasoning, which no user gets to see; None where nothing else is there."""
        return without_reasoning(output).strip() or None

    def measure(self, parsed: str | None, sample: Sample) -> Mapping[str, Value]:
        return {}

    async def react(
        self, sample: Sample, output: str, simulator: Role
    ) -> tuple[JsonObject, JsonObject]:
        """The user's verdict and version of a draft: feedback `draft`, `edited` and `cost`, and the round's record."""
        true = sample.hidden["preference"]
        draft = self.parse(output, sample, "official") or ""
        if self.params.user == "rule":
            rules = rules_of(true.split("; "))
            decision = "rewritten" if unkept(draft, rules) else "accepted"
            reaction = user.Reaction(decision, "", "", satisfied(draft, rules))
            shown = true
        else:
            shown = (
                self._weakened(sample, true, simulator.seed) if self.params.user == "weak" else true
            )
            document = self._document(sample, simulator.tokens)
            reaction = await user.react(
                simulator, self.words, document, draft, shown, self.params.user_max_tokens
            )
        edit = measure_edit(draft, reaction.final)
        record = {
            "t": int(sample.hidden["t"]),
            "rounds": int(sample.hidden["rounds"]),
            "doc_id": sample.hidden["doc_id"],
            "source": sample.hidden["source"],
            "preference": true,
            "applied": shown,
            "draft": draft,
            "decision": reaction.decision,
            "reply": reaction.reply,
            "raw": reaction.raw,
            "final": reaction.final,
            "cost": edit.cost,
            "draft_tokens": edit.draft_tokens,
            "final_tokens": edit.final_tokens,
        }
        return {"draft": draft, "edited": reaction.final, "cost": edit.cost}, record

    def measure_interaction(
        self, record: JsonObject, assessment: JsonObject | None, sample: Sample
    ) -> Mapping[str, Value]:
        return scoring.values(record, sample.hidden["liked"].split(SEPARATOR), self.params.accuracy)

    def download(self, split: str, target: Path, **options: Any) -> None:
        from personabench.tasks.prelude.download import download

        download(self.env, target, **options)

    def _weakened(self, sample: Sample, preference: str, seed: int) -> str:
        """A seeded part of a preference's points (arXiv 2601.19055)."""
        points = [point.strip() for point in re.split(r"[,;]", preference) if point.strip()]
        rng = random.Random(f"{seed}\x1f{sample.id}")
        kept = sorted(rng.sample(range(len(points)), rng.randint(1, len(points))))
        return ", ".join(points[place] for place in kept)


class PreludeSumm(_Prelude):
    """Summarise documents for a user who edits the summaries."""

    name = "prelude_summ"
    title = "PRELUDE: summaries that a user edits"
    kind = "text"
    offers = ("feedback",)
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
        instruction="Write the summary that this reader would like. Answer with the summary and nothing else.",
    )


class PreludeEmail(_Prelude):
    """Write short emails from notes for a user who edits the emails."""

    name = "prelude_email"
    title = "PRELUDE: emails that a user edits"
    kind = "text"
    offers = ("feedback",)
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
        instruction="Write the email that this sender would like. Answer with the email and nothing else.",
    )
