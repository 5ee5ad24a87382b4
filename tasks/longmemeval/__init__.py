"""LongMemEval: questions about a user's many sessions with an assistant.

"LongMemEval: Benchmarking Chat Assistants on Long-Term Interactive Memory" (arXiv 2410.10813).
Splits: `oracle` has the sessions with evidence alone, `s` about 45 sessions, `m` about 500.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal

import msgspec
import numpy as np
import numpy.typing as npt

from personabench.api.data_sources import Downloadable
from personabench.api.judged import JudgedTask
from personabench.api.layout import BY_TIME, NO_TURNS, Layout, Parts, arrange, check_layout
from personabench.api.official_files import OfficialFiles, SubmissionFile
from personabench.api.sessions import list_sessions, write_date
from personabench.api.task import JsonObject
from personabench.api.wording import Rendered, Vocabulary
from personabench.errors import DataError
from personabench.metrics.metric import Metric, Value
from personabench.models.roles import Role
from personabench.models.tokens import Tokens
from personabench.tasks.longmemeval import judging, retrieval
from personabench.tasks.longmemeval.data import LongMemEvalData, Unit
from personabench.tasks.longmemeval.files import FILES, TYPES, Questions, check_split
from personabench.types import Record, Sample, from_json, to_json

__all__ = ["LongMemEval"]
Floats = npt.NDArray[np.float64]

ANSWER_MARK = "Answer:"
_SHORT = "Answer in one or two sentences. If the conversations do not hold the answer, say so."
_REASONED = (
    "First reason in a few sentences about what was said and when. Then end with a line that "
    f'begins with "{ANSWER_MARK}". If the conversations do not hold the answer, say so there.'
)
_ABSTENTION = len(TYPES)


def _mean_of_types(values: Floats) -> float:
    """Mean over types of their accuracies; rows of `values` are (type, right)."""
    means = [values[values[:, 0] == index, 1].mean() for index in np.unique(values[:, 0])]
    return float(np.mean(means))


def _mean_of_type(values: Floats, index: int) -> float:
    scores = values[values[:, 0] == index, 1]
    return float(scores.mean()) if len(scores) else float("nan")


def _count_of_type(values: Floats, index: int) -> int:
    return int((values[:, 0] == index).sum())


class LongMemEval(JudgedTask, OfficialFiles, SubmissionFile, Downloadable):
    """Answer questions about a user's many sessions with an assistant."""

    name = "longmemeval"
    title = "LongMemEval: questions about a user's sessions with an assistant"
    kind = "text"
    offers = ("history", "dates", "evidence")
    source = "https://github.com/xiaowu0162/LongMemEval (arXiv 2410.10813)"
    licence = "MIT"
    default_split = "s"
    splits = tuple(FILES)
    accepts_file = True
    max_tokens = 256
    quotes_gold = True
    shares_records = True
    roles = ("judge",)
    judge_content = judging.PROMPT
    metrics = (
        Metric("accuracy"),
        Metric("accuracy-macro", aggregate=_mean_of_types),
        Metric("accuracy-official"),
        *(
            Metric(
                f"accuracy-{name}",
                aggregate=partial(_mean_of_type, index=index),
                size=partial(_count_of_type, index=index),
            )
            for index, name in enumerate((*TYPES, "abstention"))
        ),
        *retrieval.METRICS,
    )
    words = Vocabulary(
        person="user",
        stimulus="question",
        response="conversation",
        profile_question=(
            "What did this user tell about their life, possessions, plans and preferences, what "
            "changed, and when?"
        ),
        instruction=_SHORT,
        answer_form="the answer, or a note that the conversations do not hold it",
    )

    @dataclasses.dataclass(frozen=True)
    class Params(Layout):
        """Options of the task, beside those of the layout.

        Attributes:
            template: short asks for the answer, reason for reasons and then a line with it.
            unit: a record is an exchange or a whole session.
        """

        template: Literal["short", "reason"] = "short"
        unit: Unit = "exchange"

        def __post_init__(self) -> None:
            check_layout(self, turns=NO_TURNS, order=BY_TIME)

    params: Params

    def __init__(self, params: Any = None) -> None:
        super().__init__(params)
        if self.params.template == "reason":
            self.words = msgspec.structs.replace(  # type: ignore[misc]
                self.words, instruction=_REASONED
            )
            self.max_tokens = 1024  # type: ignore[misc]

    def open(self, split: str, data: Path | None) -> LongMemEvalData:
        check_split(split)
        return LongMemEvalData(split, data, self.params.unit)

    def render(
        self, sample: Sample, records: Sequence[Record], notes: str, tokens: Tokens
    ) -> Rendered:
        """Word the request: the shown parts of the sessions, then the dated question."""
        heading = "From earlier conversations with the user:"
        today = [f"Today is {write_date(sample.time)}."] if sample.time else []
        question = [*today, f"Question: {sample.input}", self.words.instruction]
        parts = Parts(
            question="\n\n".join(question),
            notes=f"Notes about the user:\n\n{notes}" if notes else "",
            records=records,
            word_turn=self.describe,
            word_list=lambda shown: f"{heading}\n\n{list_sessions(shown, self.describe)}",
        )
        return Rendered(tuple(arrange(parts, self.params, "message")), tuple(records))

    def describe(self, record: Record) -> str:
        return record.response

    def parse(self, output: str, sample: Sample, scorer: str) -> str | None:
        """Take the reply, or what follows its last mark; a reply without a mark counts whole."""
        answer = super().parse(output, sample, scorer)
        if answer and self.params.template == "reason":
            answer = answer.rpartition(ANSWER_MARK)[2].strip()
        return answer or None

    def measure(self, parsed: str | None, sample: Sample) -> Mapping[str, Value]:
        return {}

    def measure_retrieval(self, sample: Sample, shown: Sequence[str]) -> Mapping[str, Value]:
        """Score the sessions of the shown records, in order; not for unanswerable questions.

        Nothing shown is nothing retrieved: a memory that stays silent does not leave the mean.
        """
        values = dict(super().measure_retrieval(sample, shown))
        sessions = msgspec.json.decode(sample.hidden["sessions"], type=list[str])
        if not (sessions and sample.evidence) or sample.history_owner:
            return values
        ranking = [record_id.partition(":")[0] for record_id in shown]
        return {**values, **retrieval.score_ranking(ranking, sessions)}

    async def assess(
        self, sample: Sample, output: str, interaction: JsonObject, judge: Role
    ) -> JsonObject | None:
        judged = await judging.judge_answer(
            judge,
            kind=sample.hidden["type"],
            is_abstention=_is_abstention(sample),
            question=sample.input,
            gold=sample.references[0],
            answer=self.parse(output, sample, "official") or "",
        )
        if judged.attempts > 1:
            judge.flag("judge_retried", judged.attempts - 1)
        if judged.value is None:
            return None
        return {"right": judged.value, "reply": judged.evidence}

    def measure_interaction(
        self, interaction: JsonObject, assessment: JsonObject | None, sample: Sample
    ) -> Mapping[str, Value]:
        if not assessment:
            return {}
        right = float(assessment["right"])
        kind = float(TYPES.index(sample.hidden["type"]))
        values: dict[str, Value] = {
            "accuracy": right,
            "accuracy-macro": [kind, right],
            "accuracy-official": float(judging.passes_officially(assessment["reply"])),
            "accuracy-abstention": [
                float(_ABSTENTION if _is_abstention(sample) else kind),
                right,
            ],
        }
        for name in TYPES:
            values[f"accuracy-{name}"] = [kind, right]
        return values

    def read_references(self, path: Path) -> dict[str, Sample]:
        """Read the questions of an official file."""
        samples = {}
        for question in Questions(path):
            samples[question.id] = Sample(
                question.id,
                user_id=question.id,
                input=question.text,
                references=(question.answer,),
                hidden={
                    "type": question.type,
                    "abstention": str(question.is_abstention),
                    "sessions": "[]",
                },
            )
        return samples

    def read_predictions(self, path: Path) -> tuple[str | None, list[tuple[str, str | None]]]:
        """Read JSON lines of question_id and hypothesis."""
        pairs: list[tuple[str, str | None]] = []
        for number, line in enumerate(path.read_bytes().splitlines(), start=1):
            try:
                hypothesis = from_json(line, _Hypothesis)
            except msgspec.MsgspecError as error:
                raise DataError(
                    f"{path}, line {number}: {error}; expected JSON lines of question_id and "
                    "hypothesis, or of id and output"
                ) from error
            pairs.append((hypothesis.question_id, hypothesis.hypothesis))
        return None, pairs

    def submission(self, outputs: Iterable[tuple[str, str]]) -> Iterator[str]:
        """Yield JSON lines of question_id and hypothesis."""
        for sample_id, output in outputs:
            yield to_json({"question_id": sample_id, "hypothesis": output}) + "\n"

    def download(self, split: str, target: Path, **options: Any) -> None:
        # Imported here, since only this command needs it.
        from personabench.tasks.longmemeval.download import download

        download(split, target, **options)


class _Hypothesis(msgspec.Struct, frozen=True):
    question_id: str
    hypothesis: str


def _is_abstention(sample: Sample) -> bool:
    return sample.hidden["abstention"] == "True"
