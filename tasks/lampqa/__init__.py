"""LaMP-QA: long answers to a user's question that cover what matters to this user.

"LaMP-QA: A Benchmark for Personalized Long-form Question Answering" (arXiv 2506.00137).  The
history is the user's past questions.  A judge scores an answer by the aspects that the user's own
explanation of the question asks for; explanation and aspects are hidden from methods.  `files`
reads the data, `judging` is the judge.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal

import msgspec
import numpy as np
import numpy.typing as npt

from personabench.api.context import Context
from personabench.api.data_sources import Audited, Downloadable
from personabench.api.dataset import Dataset
from personabench.api.dialogue import Reply
from personabench.api.id_check import list_few
from personabench.api.judged import JudgedTask
from personabench.api.layout import Layout, Parts, arrange, check_layout
from personabench.api.official_files import OfficialFiles, SubmissionFile
from personabench.api.rows import NoDataError
from personabench.api.task import JsonObject, Protocol
from personabench.api.wording import Rendered, Vocabulary
from personabench.errors import DataError, UsageError
from personabench.hashing import fold_text
from personabench.metrics.metric import Metric, Value
from personabench.metrics.text import strip_chatter, strip_reasoning
from personabench.models.roles import Role
from personabench.models.tokens import Tokens
from personabench.tasks.lampqa import judging
from personabench.tasks.lampqa.files import (
    CONFIGS,
    SHORT_NAMES,
    Aspect,
    Part,
    Row,
    find_parts,
    parse_split,
    read_part,
)
from personabench.types import Record, Sample, Try, from_json, to_json

__all__ = ["LampQA"]

KEY = "personalized_answer"
_STATEMENT = (
    "You answer questions of one particular user of a question-and-answer forum. Write a thorough "
    "answer that suits this user: their past posts, if you are shown any, tell what they know, "
    "want and care about."
)
_JSON = (
    f'Reply with a fenced JSON object that has one key, "{KEY}", whose value is the answer as '
    f'text:\n```json\n{{"{KEY}": "..."}}\n```'
)
_PLAIN = "Reply with the text of the answer and nothing else."
_STEP = 0.1


def _mean_of_config(values: npt.NDArray[np.float64], config: int) -> float:
    """The mean of one configuration; rows are (configuration, score)."""
    scores = values[values[:, 0] == config, 1]
    return float(scores.mean()) if len(scores) else float("nan")


def _mean_of_configs(values: npt.NDArray[np.float64]) -> float:
    """The plain mean of the means of the configurations that there are."""
    means = [_mean_of_config(values, config) for config in range(len(CONFIGS))]
    return float(np.nanmean(means))


def _count_config(values: npt.NDArray[np.float64], config: int) -> int:
    return int((values[:, 0] == config).sum())


def _mean_of_judged(values: npt.NDArray[np.float64]) -> float:
    """The mean over judged questions; rows are (score, whether any aspect was judged)."""
    judged = values[values[:, 1] == 1, 0]
    return float(judged.mean()) if len(judged) else float("nan")


def _sum(values: npt.NDArray[np.float64]) -> float:
    return float(values.sum())


class LampQA(JudgedTask, OfficialFiles, SubmissionFile, Audited, Downloadable):
    """Answer a user's question so that it covers what matters to this user."""

    name = "lampqa"
    title = "LaMP-QA: long answers that cover what matters to the user"
    kind = "text"
    offers = ("history", "population")
    source = "https://huggingface.co/datasets/alireza7/LaMP-QA (arXiv 2506.00137)"
    licence = "see the card of the data set; posts of StackExchange are CC BY-SA 4.0"
    default_split = "test"
    splits = (
        *("train", "validation", "test"),
        *("art/train", "art/validation", "art/test"),
        *("lifestyle/train", "lifestyle/validation", "lifestyle/test"),
        *("society/train", "society/validation", "society/test"),
    )
    tokenizer = "whitespace"
    max_tokens = 4096
    roles = ("judge",)
    judge_params = ("judge_retries",)
    judge_content = judging.PROMPT
    paper_settings = {"template": "json"}
    metrics = (
        Metric("score", aggregate=_mean_of_configs),
        Metric("score-lenient", aggregate=_mean_of_configs),
        Metric("score-judged-only", aggregate=_mean_of_judged),
        Metric("judge-failures", higher_is_better=False, aggregate=_sum),
        *(
            Metric(
                f"score-{name}",
                aggregate=partial(_mean_of_config, config=number),
                size=partial(_count_config, config=number),
            )
            for number, name in enumerate(SHORT_NAMES)
        ),
    )
    words = Vocabulary(
        person="user",
        stimulus="question",
        response="post",
        profile_question=(
            "What does this user know, own, do and look for, which constraints do they have, and "
            "what do they expect of a good answer?"
        ),
        axes=(
            ("Form", "how long and how detailed an answer this user asks for"),
            ("Affect", "worries, values and tastes that come back in the user's posts"),
            ("Substance", "what the user knows, owns and does, and what a question is really for"),
        ),
        instruction=_JSON,
        goal="Answer the question as it suits this user.",
        answer_form=f'a JSON object whose key "{KEY}" holds the text of the answer',
    )

    @dataclasses.dataclass(frozen=True)
    class Params(Layout):
        """Options of the task, beside those of the layout.

        Attributes:
            template: json asks for an object with the answer, as the benchmark does; plain for the
                answer alone, which small models manage.
            retries: further tries of an answer without the object, each .1 warmer, at most 1.
            judge_retries: further calls for a judge's reply that cannot be read.
        """

        template: Literal["json", "plain"] = "json"
        retries: int = 3
        judge_retries: int = 5

        def __post_init__(self) -> None:
            check_layout(self, turns="records are posts, and no answers to questions")
            if self.retries < 0 or self.judge_retries < 0:
                raise ValueError(
                    "retries and judge_retries are numbers of further tries, 0 or more"
                )

    params: Params

    def __init__(self, params: Any = None) -> None:
        super().__init__(params)
        if self.params.template == "plain":
            self.words = msgspec.structs.replace(  # type: ignore[misc]
                self.words, instruction=_PLAIN, answer_form="the text of the answer"
            )
            self.max_tokens = 1024  # type: ignore[misc]

    @property
    def protocol(self) -> Protocol:  # type: ignore[override]
        """A dialogue of tries under the template that a reply may miss."""
        return "dialogue" if self.params.template == "json" else "static"

    def open(self, split: str, data: Path | None) -> Dataset:
        config, name = parse_split(split)
        self._check_example(data, name)
        root = Path(__file__).parent / "sample" if data is None else data
        parts = find_parts(root, config, name)
        short = config.partition("_")[0].lower()
        dataset = super().open(f"{short}/{name}" if short else name, root)
        if data is None:
            dataset.source = "example data, not LaMP-QA"
        elif not config and len(parts) < len(CONFIGS):
            present = ", ".join(part.config for part in parts)
            warning = f"{root} has {present} alone, so the score is not the mean of three subsets"
            dataset.warnings = (*dataset.warnings, warning)
        return dataset

    def _check_example(self, data: Path | None, split: str) -> None:
        if data is None and split != self.default_split:
            raise UsageError(
                f"the example data of {self.name} have the split {self.default_split} alone; name "
                f"a folder with {split} files with --data"
            )

    def load(self, split: str, data: Path | None) -> Iterator[Sample]:
        if data is None:
            raise NoDataError(f"the example data of {self.name} are missing; name a folder")
        config, name = parse_split(split)
        for part in find_parts(data, config, name):
            yield from _load_part(part)

    def render(
        self, sample: Sample, records: Sequence[Record], notes: str, tokens: Tokens
    ) -> Rendered:
        """Word the request: task and form as system message, past posts before the question."""
        parts = Parts(
            opening=f"{_STATEMENT} {self.words.instruction}",
            question=sample.input,
            notes=f"About this user:\n{notes}" if notes else "",
            records=records,
            word_turn=self.describe,
            word_list=lambda shown: "\n\n".join(self.describe(record) for record in shown),
        )
        messages = arrange(parts, self.params, "message", "best_first")
        return Rendered(tuple(messages), tuple(records))

    def describe(self, record: Record) -> str:
        return record.response

    async def converse(
        self, sample: Sample, reply: Reply, ctx: Context, simulator: Role
    ) -> tuple[str, JsonObject]:
        """Have the method answer, again if its reply holds no object with the answer."""
        tries = self.params.retries + 1
        base = temperature = ctx.sampling.temperature
        output = await reply(sample, Try(0, tries))
        number = 0
        while read_answer(output) is None and number + 1 < tries:
            number += 1
            temperature = max(base, min(round(base + number * _STEP, 3), 1.0))
            output = await reply(sample, Try(number, tries), temperature)

        if number:
            ctx.flag("json_retries", number)
        if read_answer(output) is None:
            ctx.flag("json_failures")
        return output, {"retries": number, "temperature": temperature}

    def parse(self, output: str, sample: Sample, scorer: str) -> str | None:
        """Read the answer; `lenient` takes a reply without the object as it stands."""
        if scorer not in self.scorers:
            raise UsageError(
                f"{self.name} has no scorer '{scorer}'; it has: {', '.join(self.scorers)}"
            )
        if self.params.template == "plain":
            answer = strip_chatter(output) if scorer == "lenient" else output
            return answer.strip() or None
        answer_in_form = read_answer(output)
        if answer_in_form is None and scorer == "lenient":
            return strip_chatter(output) or None
        return answer_in_form or None

    def measure(self, parsed: str | None, sample: Sample) -> Mapping[str, Value]:
        """No metric: all of them come from the judge."""
        return {}

    async def assess(
        self, sample: Sample, output: str, interaction: JsonObject, judge: Role
    ) -> JsonObject | None:
        """Judge every aspect of the answer, in its lenient reading; an empty one needs no call."""
        aspects = read_aspects(sample)
        if not aspects:
            judge.flag("no_aspects")
            return {"aspects": [], "scores": []}

        answer = self.parse(output, sample, "lenient") or ""
        names = [aspect.aspect for aspect in aspects]
        if not answer:
            judge.flag("empty_answers")
            return {"aspects": names, "scores": [0] * len(aspects)}

        if not judging.is_official_judge(judge.identity):
            judge.flag("judge_not_comparable_with_published")
        judged = await judging.judge_aspects(
            judge,
            sample.input,
            sample.hidden["narrative"],
            answer,
            aspects,
            self.params.judge_retries,
        )
        retried = sum(score.attempts - 1 for score in judged)
        if retried:
            judge.flag("judge_retried", retried)
        scores = [score.score for score in judged]
        failures = scores.count(None)
        if failures:
            judge.flag("judge_failures", failures)
        is_official = self.parse(output, sample, "official") is not None
        return {"aspects": names, "scores": scores, "in_form": is_official}

    def measure_interaction(
        self, interaction: JsonObject, assessment: JsonObject | None, sample: Sample
    ) -> Mapping[str, Value]:
        """Score the question; without aspects it has no score."""
        if not assessment or not assessment["scores"]:
            return {}
        config = float(CONFIGS.index(sample.hidden["config"]))
        score = judging.score_question(assessment["scores"])
        # An answer outside of its form is empty to the official reading.
        official = score.official if assessment.get("in_form", True) else 0.0
        values: dict[str, Value] = {
            "score": [config, official],
            "score-lenient": [config, score.official],
            "score-judged-only": [score.judged_only or 0.0, float(score.judged_only is not None)],
            "judge-failures": float(score.failures),
        }
        for name in SHORT_NAMES:
            values[f"score-{name}"] = [config, official]
        return values

    def read_references(self, path: Path) -> dict[str, Sample]:
        """Read the questions of a split's own file."""
        config = next((name for name in CONFIGS if name in path.as_posix()), CONFIGS[0])
        return {sample.id: sample for sample in _load_part(Part(config, [path]))}

    def read_predictions(self, path: Path) -> tuple[str | None, list[tuple[str, str | None]]]:
        """Read `{id: [{"output": text}]}`; only the first output counts."""
        try:
            responses = from_json(path.read_bytes(), dict[str, list[_Response]])
        except msgspec.MsgspecError as error:
            raise DataError(
                f'{path}: {error}; expected {{"id": [{{"output": "text"}}]}}, or JSON lines of '
                '{"id", "output"}'
            ) from error
        empty = [sample_id for sample_id, outputs in responses.items() if not outputs]
        if empty:
            raise DataError(f"{path}: {list_few(empty)} have no output")
        return None, [(name, self._wrap(outputs[0].output)) for name, outputs in responses.items()]

    def _wrap(self, text: str) -> str:
        # Response files hold answers without the form that models are asked for.
        if self.params.template == "plain" or read_answer(text) is not None:
            return text
        return to_json({KEY: text})

    def submission(self, outputs: Iterable[tuple[str, str]]) -> Iterator[str]:
        """Yield `{id: [{"output": text}]}` with the answers of the official reading."""
        separator = "{"
        for sample_id, output in outputs:
            answer = output if self.params.template == "plain" else read_answer(output) or ""
            yield f"{separator}{to_json(sample_id)}:{to_json([{'output': answer}])}"
            separator = ",\n"
        yield "}\n" if separator != "{" else "{}\n"

    def audit(self, dataset: Dataset) -> list[str]:
        """List questions that stand in their user's own profile, with their explanation."""
        leaking = []
        for sample in dataset.samples():
            narrative = fold_text(sample.hidden["narrative"])
            if narrative and any(narrative in fold_text(post.response) for post in sample.history):
                leaking.append(sample.id)
        if not leaking:
            return []
        return [f"the explanation of the question stands in the profile: {list_few(leaking)}"]

    def counts(self, dataset: Dataset) -> list[str]:
        """Count aspects, each of which is a call of the judge."""
        numbers = Counter(len(read_aspects(sample)) for sample in dataset.samples())
        aspects = sum(number * count for number, count in numbers.items())
        lines = [f"{aspects} aspects, each of which is one call of the judge for each answer"]
        if numbers[0]:
            lines.append(f"{numbers[0]} questions have no aspects and are left out of the score")
        return lines

    def download(self, split: str, target: Path, **options: Any) -> None:
        # Imported here, since only this command needs it.
        from personabench.tasks.lampqa.download import download

        download(split, target, **options)


class _Response(msgspec.Struct, frozen=True):
    output: str


def _load_part(part: Part) -> Iterator[Sample]:
    for row in read_part(part):
        yield _make_sample(row, part.config)


def _make_sample(row: Row, config: str) -> Sample:
    counts: Counter[str] = Counter()
    history = []
    for post in row.profile:
        name = str(post.id)
        counts[name] += 1
        # Ids that repeat within a profile would name no single post.
        post_id = name if counts[name] == 1 else f"{name}-{counts[name]}"
        fields = {"category": post.category} if post.category else {}
        history.append(Record(post_id, response=post.text.strip() or "(empty)", fields=fields))
    return Sample(
        str(row.id),
        user_id=str(row.id),
        input=row.question,
        stimulus=row.question,
        history=tuple(history),
        attributes={"category": row.category} if row.category else {},
        hidden={
            "narrative": row.narrative or "",
            "aspects": to_json(row.rubric_aspects),
            "config": config,
            # A shuffled history is that of a user of the same subset.
            "stratum": config,
        },
    )


def read_aspects(sample: Sample) -> list[Aspect]:
    """Read the aspects of a complete sample."""
    return from_json(sample.hidden["aspects"], list[Aspect])


def read_answer(output: str) -> str | None:
    """Read the answer in the last JSON object of a reply; None if it has none."""
    last = judging.find_last_object(strip_reasoning(output))
    answer = None if last is None else last.get(KEY)
    return answer.strip() if isinstance(answer, str) else None
