"""PrefEval: does a preference that was stated many turns ago still decide the answer?

"Do LLMs Recognize Your Preferences? Evaluating Personalized Preference Following in LLMs" (arXiv
2502.09597).  `prefeval` chooses among four replies, `prefeval_gen` writes one, which a judge
assesses.  A user is one row: the conversation that shows the preference, then turns of other
people's conversations, then the question.
"""

from __future__ import annotations

import dataclasses
import random
import re
from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import msgspec
import numpy as np
import numpy.typing as npt

from personabench.api import defaults
from personabench.api.context import Context
from personabench.api.data_sources import Downloadable
from personabench.api.dataset import Dataset
from personabench.api.dialogue import Reply
from personabench.api.judged import JudgedTask
from personabench.api.layout import Layout, Parts, arrange
from personabench.api.rows import NoDataError
from personabench.api.task import JsonObject, Protocol, Task
from personabench.api.wording import Rendered, Vocabulary
from personabench.metrics.metric import Metric, Value
from personabench.models.roles import Role
from personabench.models.tokens import Tokens
from personabench.tasks.prefeval import judging
from personabench.tasks.prefeval.files import (
    TOPICS,
    Exchange,
    Form,
    Row,
    choose_topics,
    find_root,
    read_filler,
    read_topic,
)
from personabench.types import Message, Record, Sample

__all__ = ["PrefEval", "PrefEvalGen"]

# Records are named by their positions: a name such as "preference" would mark the evidence.
STATEMENT = "000"
ACKNOWLEDGMENT_TOKENS = 300
ACKNOWLEDGMENT = "Thank you for telling me. I will keep it in mind."
_TAG = re.compile(r"<choice>([^<]*)", re.IGNORECASE)
_LETTER = re.compile(r"\b[A-D]\b")
_PROFILE_QUESTION = (
    "What does this user prefer, and what does the user want to avoid? Other things that were "
    "talked about are not preferences."
)


class _PrefEval(Task, Downloadable):
    """The part that both tasks share: data, history and the wording of the conversation."""

    source = "https://github.com/amazon-science/PrefEval (arXiv 2502.09597)"
    licence = "CC BY-NC 4.0"
    default_split = "all"
    shares_records = True

    @dataclasses.dataclass(frozen=True)
    class Params(Layout):
        """Options of the task, beside those of the layout.

        Attributes:
            form: how the preference is shown: explicit states it, choice and persona are
                conversations that imply it.
            turns: exchanges of filler between preference and question.
            topic: one of the twenty topics; all by default.
            acknowledge: who replies to a stated preference: fixed is one neutral sentence, the same
                for every model; model has the model under test reply, as the paper does, at one
                call per row.
        """

        form: Form = "explicit"
        turns: int = 10
        topic: str = ""
        acknowledge: Literal["fixed", "model"] = "fixed"

        def __post_init__(self) -> None:
            if self.acknowledge == "model" and self.form != "explicit":
                raise ValueError("acknowledge=model goes with form=explicit, a stated preference")
            if self.turns < 0:
                raise ValueError("turns is the number of exchanges of filler, 0 or more")

    params: Params

    @property
    def protocol(self) -> Protocol:  # type: ignore[override]
        """A dialogue if the model under test replies to the preference first."""
        return "dialogue" if self.params.acknowledge == "model" else "static"

    def open(self, split: str, data: Path | None) -> Dataset:
        dataset = super().open(split, data)
        if data is None:
            dataset.source = "example data, not PrefEval"
        else:
            root = find_root(data)
            present = choose_topics(root, self.params.topic)
            if not self.params.topic and len(present) < len(TOPICS):
                warning = f"{len(present)} of PrefEval's {len(TOPICS)} topics are in {root}"
                dataset.warnings = (*dataset.warnings, warning)
        return dataset

    def load(self, split: str, data: Path | None) -> Iterator[Sample]:
        if data is None:
            raise NoDataError(f"the example data of {self.name} are missing; name a folder")
        root = find_root(data)
        filler = read_filler(root, self.params.turns)
        for topic in choose_topics(root, self.params.topic):
            for row in read_topic(root, topic, self.params.form):
                yield self._make_sample(row, filler)

    def _make_sample(self, row: Row, filler: Sequence[Exchange]) -> Sample:
        stated = row.exchanges or (Exchange(row.preference, ACKNOWLEDGMENT),)
        history = [
            Record(f"{number:03d}", stimulus=exchange.user, response=exchange.assistant)
            for number, exchange in enumerate((*stated, *filler))
        ]
        evidence = tuple(record.id for record in history[: len(stated)])
        sample = Sample(
            row.id,
            user_id=row.id,
            input=row.question,
            stimulus=row.question,
            history=tuple(history),
            hidden={"preference": row.preference, "stratum": row.topic},
            evidence=evidence,
        )
        return self._complete(sample, row)

    async def converse(
        self, sample: Sample, reply: Reply, ctx: Context, simulator: Role
    ) -> tuple[str, JsonObject]:
        """Have the model under test reply to the stated preference, then answer the question.

        No simulator is named for this task, so its role is played by the model under test, and the
        call is no cost of the method.
        """
        history = []
        acknowledgment = ""
        for record in sample.history:
            if record.id == STATEMENT:
                statement = Message("user", record.stimulus or "")
                acknowledgment = await simulator.complete(
                    (statement,), max_tokens=ACKNOWLEDGMENT_TOKENS
                )
                record = msgspec.structs.replace(record, response=acknowledgment.strip())
            history.append(record)
        answer = await reply(msgspec.structs.replace(sample, history=tuple(history)))
        return answer, {"acknowledgment": acknowledgment}

    @abstractmethod
    def _complete(self, sample: Sample, row: Row) -> Sample:
        """Add the options and the gold, if the task has any."""

    def chat(self, sample: Sample, records: Sequence[Record]) -> Rendered:
        """Render exchanges as the conversation that they were, the question as its last turn."""
        messages = []
        for record in records:
            messages.append(Message("user", record.stimulus or ""))
            messages.append(Message("assistant", record.response))
        messages.append(Message("user", self._ask(sample)))
        return Rendered(tuple(messages), tuple(records))

    def render(
        self, sample: Sample, records: Sequence[Record], notes: str, tokens: Tokens
    ) -> Rendered:
        """Put notes and exchanges in front of the question, the best exchange last."""
        parts = Parts(
            question=self._ask(sample),
            notes=f"About this user:\n{notes}" if notes else "",
            records=records,
            word_turn=lambda record: record.stimulus or "",
            word_list=self._list_exchanges,
        )
        return Rendered(tuple(arrange(parts, self.params, "message")), tuple(records))

    def _list_exchanges(self, records: Sequence[Record]) -> str:
        described = [self.describe(record) for record in records]
        return "\n\n".join(["From earlier in the conversation:", *described])

    def describe(self, record: Record) -> str:
        return f"User: {record.stimulus}\nAssistant: {record.response}"

    def document_text(self, record: Record) -> str:
        return f"{record.stimulus} {record.response}"

    def _ask(self, sample: Sample) -> str:
        return f"{sample.input}\n\n{self.words.instruction}"

    def download(self, split: str, target: Path, **options: Any) -> None:
        # Imported here, since only this command needs it.
        from personabench.tasks.prefeval.download import download

        download(self.name, split, target, **options)


class PrefEval(_PrefEval):
    """Choose among four replies the one that respects the user's preference."""

    name = "prefeval"
    title = "PrefEval: which reply respects a preference stated turns ago?"
    kind = "category"
    offers = ("history", "options", "preference", "evidence")
    max_tokens = 32
    words = Vocabulary(
        person="user",
        stimulus="message",
        response="reply",
        profile_question=_PROFILE_QUESTION,
        instruction=(
            "Which of these replies suits this user? Answer with its letter in tags, such as "
            "<choice>A</choice>, and nothing else."
        ),
        goal="Choose the reply that suits this user.",
        answer_form="the letter of the reply that suits the user: A, B, C or D",
    )

    def _complete(self, sample: Sample, row: Row) -> Sample:
        options = list(row.options)
        # From the id alone, so that limits and shards change no order.
        random.Random(f"prefeval\x1f{row.id}").shuffle(options)
        return msgspec.structs.replace(sample, choices=tuple(options), references=(row.options[0],))

    def _ask(self, sample: Sample) -> str:
        # Replies are weighed as replies to the question alone.
        if not sample.choices:
            return sample.input
        options = "\n".join(
            f"({letter}) {option}" for letter, option in zip("ABCD", sample.choices, strict=False)
        )
        return f"{sample.input}\n\n{options}\n\n{self.words.instruction}"

    def parse(self, output: str, sample: Sample, scorer: str) -> str | None:
        """Read the letter of a reply, from its tag if it has one; several letters are none."""
        tags = _TAG.findall(output)
        if not tags:
            # Servers that ignore the wish for a tag answer with prose.
            return defaults.parse_answer(self, output, sample, "lenient")
        letters = set(_LETTER.findall(tags[-1].upper()))
        if len(letters) != 1 or not sample.choices:
            return None
        return sample.choices["ABCD".index(letters.pop())]


def _mean_of_judged(values: npt.NDArray[np.float64]) -> float:
    """Mean over the judged samples; rows of `values` are (score, whether it was judged)."""
    judged = values[values[:, 1] == 1, 0]
    return float(judged.mean()) if len(judged) else float("nan")


def _count_judged(values: npt.NDArray[np.float64]) -> int:
    return int((values[:, 1] == 1).sum())


_FAILURES = ("unhelpful", "unaware", "hallucination", "inconsistent")


class PrefEvalGen(_PrefEval, JudgedTask):
    """Write a reply that respects the user's preference; a judge says whether it does."""

    name = "prefeval_gen"
    title = "PrefEval: write a reply that respects a preference stated turns ago"
    kind = "text"
    offers = ("history", "preference", "evidence")
    max_tokens = 300
    roles = ("judge",)
    judge_params = ("questions",)
    judge_content = judging.PROMPT
    metrics = (
        Metric("accuracy", aggregate=_mean_of_judged, size=_count_judged),
        Metric("accuracy-official"),
        Metric("judge-failed", higher_is_better=False),
        Metric("acknowledged", aggregate=_mean_of_judged, size=_count_judged),
        *(
            Metric(name, higher_is_better=False, aggregate=_mean_of_judged, size=_count_judged)
            for name in _FAILURES
        ),
    )
    words = Vocabulary(
        person="user",
        stimulus="message",
        response="reply",
        profile_question=_PROFILE_QUESTION,
        instruction="(Reply within 300 words.)",
        answer_form="the reply, of at most 300 words",
    )

    @dataclasses.dataclass(frozen=True)
    class Params(_PrefEval.Params):
        """Options of the task; see also those of `prefeval`.

        Attributes:
            questions: 2 for the score, 4 for the kinds of failure as well, at twice the price.
        """

        questions: Literal[2, 4] = 2

    params: Params

    def _complete(self, sample: Sample, row: Row) -> Sample:
        return sample

    async def assess(
        self, sample: Sample, output: str, interaction: JsonObject, judge: Role
    ) -> JsonObject | None:
        facts = {
            "preference": sample.hidden["preference"],
            "question": sample.input,
            "response": output,
        }
        verdicts = await judging.judge_response(judge, facts, self.params.questions)
        return {name: list(verdict) for name, verdict in verdicts.items()}

    def measure_interaction(
        self, interaction: JsonObject, assessment: JsonObject | None, sample: Sample
    ) -> Mapping[str, Value]:
        if not assessment:
            return {}
        verdicts = {name: judging.Verdict(*verdict) for name, verdict in assessment.items()}
        followed = judging.follows(verdicts)
        is_judged = followed is not None
        values: dict[str, Value] = {
            "accuracy": [float(bool(followed)), float(is_judged)],
            "accuracy-official": float(judging.follows_officially(verdicts)),
            "judge-failed": float(not is_judged),
        }
        if "acknowledge" not in verdicts:
            return values

        acknowledged = verdicts["acknowledge"].value
        is_classified = is_judged and acknowledged is not None
        values["acknowledged"] = [float(bool(acknowledged)), float(acknowledged is not None)]
        failure = judging.classify(verdicts)
        for name in _FAILURES:
            values[name] = [float(name == failure), float(is_classified)]
        return values
