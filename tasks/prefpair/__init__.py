"""Which of several responses does this user prefer?

Loaders for data sets of comparisons: `psoups` (P-Soups and the benchmarks of AlignX, arXiv
2503.15463), `prism` (arXiv 2404.16019), `community_alignment` (arXiv 2507.09650) and `personalllm`
(arXiv 2409.20296).  A sample is one order of the responses, and every comparison is put in two
orders by default.
"""

from __future__ import annotations

import dataclasses
from abc import abstractmethod
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import ClassVar, Literal

import msgspec

from personabench.api import defaults
from personabench.api.dataset import Dataset
from personabench.api.layout import Layout, Parts, arrange
from personabench.api.rows import NoDataError
from personabench.api.task import Task
from personabench.api.wording import Rendered, Vocabulary
from personabench.metrics.metric import Metric, Value
from personabench.models.tokens import Tokens
from personabench.tasks.prefpair import community_alignment, personalllm, prism, psoups, scoring
from personabench.tasks.prefpair.comparison import (
    Comparison,
    Orders,
    make_samples,
    mark_disagreement,
)
from personabench.types import Record, Sample

__all__ = ["CommunityAlignment", "PersonalLLM", "Prism", "Psoups"]

CONVERSATION_TYPES = ("unguided", "values guided", "controversy guided")


class _PreferenceTask(Task):
    """The part that all sources share: samples of comparisons, wording and metrics."""

    default_split = "all"
    accepts_file = True
    max_tokens = 16
    metrics: ClassVar[tuple[Metric, ...]] = scoring.METRICS
    words = Vocabulary(
        person="user",
        stimulus="message",
        response="preferred response",
        profile_question=(
            "What does this user prefer in a response: topics, positions, length, tone and form? "
            "What does the user not prefer?"
        ),
        goal="Choose the response that this user prefers.",
        instruction=(
            "Which of these responses does the user prefer? Answer with its letter and nothing "
            "else."
        ),
        answer_form="the letter of the response that the user prefers",
    )

    @dataclasses.dataclass(frozen=True)
    class Params(Layout):
        """Options of the task, beside those of the layout.

        Attributes:
            orders: orders in which each comparison is put: both, or one drawn from its id.
            self_description: whether requests show what users say about themselves.
        """

        orders: Orders = 2
        self_description: Literal["off", "on"] = "off"

    params: Params

    def open(self, split: str, data: Path | None) -> Dataset:
        self._counts: Counter[str] = Counter()
        dataset = super().open(split, data)
        if data is None:
            dataset.source = f"example data, not {self.title.partition(':')[0]}"
        dataset.warnings = (*dataset.warnings, *self._describe_counts(self._counts))
        return dataset

    def load(self, split: str, data: Path | None) -> Iterator[Sample]:
        if data is None:
            raise NoDataError(f"the example data of {self.name} are missing; name a folder")
        counts = self._counts = Counter()
        shows_profile = self.params.self_description == "on"
        folder = data / self.name
        for comparison in self.read(folder if folder.is_dir() else data, counts):
            yield from make_samples(comparison, self.params.orders, shows_profile)

    @abstractmethod
    def read(self, data: Path, counts: Counter[str]) -> Iterator[Comparison]:
        """Read the comparisons; `counts` receives the numbers of omitted ones."""

    def _describe_counts(self, counts: Mapping[str, int]) -> Iterator[str]:
        """Describe omissions, as warnings."""
        if counts["own prompt"]:
            yield (
                f"{counts['own prompt']} records were left out of histories, since their prompt "
                "is that of their sample"
            )

    def render(
        self, sample: Sample, records: Sequence[Record], notes: str, tokens: Tokens
    ) -> Rendered:
        """See `Task`; a question without choices is the message itself, to weigh replies to it."""
        if sample.choices:
            return super().render(sample, records, notes, tokens)
        parts = Parts(
            question=sample.input,
            notes=f"About this user:\n{notes}" if notes else "",
            records=records,
            word_turn=lambda record: record.stimulus or "",
            word_list=self._list_records,
        )
        return Rendered(tuple(arrange(parts, self.params, "list")), tuple(records))

    def render_content(
        self, sample: Sample, records: Sequence[Record], notes: str, tokens: Tokens
    ) -> Rendered:
        """See `Wording`: the default, which goes with the default `render` of choices."""
        return defaults.render_content(self, sample, records, notes, self.history_format)

    def _list_records(self, records: Sequence[Record]) -> str:
        described = [self.describe(record) for record in records]
        return "\n\n".join(["From this user's history:", *described])

    def measure(self, parsed: str | None, sample: Sample) -> Mapping[str, Value]:
        return scoring.measure(parsed, sample)


class Psoups(_PreferenceTask):
    """Pairs of responses in the form of AlignX's benchmarks."""

    name = "psoups"
    kind = "category"
    title = "P-Soups and AlignX: which of two responses does a persona prefer?"
    source = "https://github.com/JinaLeejnl/AlignX (arXiv 2503.15463)"
    licence = "none stated"
    # One user has another history in each row.
    offers = ("history", "options", "comparisons", "pairs")

    def read(self, data: Path, counts: Counter[str]) -> Iterator[Comparison]:
        return psoups.read_comparisons(data, counts)


class Prism(_PreferenceTask):
    """Pairs of responses that one person rated in a conversation."""

    name = "prism"
    kind = "category"
    title = "PRISM: which of two responses does a person prefer?"
    source = "https://huggingface.co/datasets/HannahRoseKirk/prism-alignment (arXiv 2404.16019)"
    licence = "CC BY 4.0; texts of models CC BY-NC 4.0"
    offers = ("history", "dates", "options", "comparisons", "pairs", "majority")
    accepts_file = False
    metrics = (
        *scoring.METRICS,
        *(
            Metric(
                f"accuracy-{kind.split()[0]}",
                aggregate=scoring.mean_of_subset,
                size=scoring.size_of_subset,
            )
            for kind in CONVERSATION_TYPES
        ),
    )

    @dataclasses.dataclass(frozen=True)
    class Params(_PreferenceTask.Params):
        """Options of the task, beside those of the family.

        Attributes:
            gap: points of the scale by which the chosen response must be rated higher.
            pairs: responses that the chosen one is compared with: one drawn from the interaction's
                id, extreme the lowest, all each.
        """

        gap: int = 10
        pairs: prism.Pairs = "one"

        def __post_init__(self) -> None:
            if self.gap < 0:
                raise ValueError("gap is a number of points, 0 or more")

    params: Params

    def read(self, data: Path, counts: Counter[str]) -> Iterator[Comparison]:
        return prism.read_comparisons(data, self.params.gap, self.params.pairs, counts)

    def _describe_counts(self, counts: Mapping[str, int]) -> Iterator[str]:
        yield from super()._describe_counts(counts)
        if counts["dropped"]:
            yield (
                f"{counts['dropped']} of {counts['interactions']} interactions were left out: no "
                f"response is rated {self.params.gap} points lower than the chosen one"
            )

    def measure(self, parsed: str | None, sample: Sample) -> Mapping[str, Value]:
        values = scoring.measure(parsed, sample)
        for kind in CONVERSATION_TYPES:
            is_kind = float(sample.hidden["conversation_type"] == kind)
            values[f"accuracy-{kind.split()[0]}"] = [float(parsed in sample.references), is_kind]
        return values


class CommunityAlignment(_PreferenceTask):
    """Four responses of which an annotator prefers one; many annotators judge the same ones."""

    name = "community_alignment"
    kind = "category"
    title = "Community Alignment: which of four responses does an annotator prefer?"
    source = (
        "https://huggingface.co/datasets/facebook/community-alignment-dataset (arXiv 2507.09650)"
    )
    licence = "CC BY 4.0"
    offers = ("history", "options", "comparisons", "majority")
    metrics = (*scoring.METRICS, *scoring.SUBSET_METRICS)

    def read(self, data: Path, counts: Counter[str]) -> Iterator[Comparison]:
        return mark_disagreement(list(community_alignment.read_comparisons(data, counts)))

    def _describe_counts(self, counts: Mapping[str, int]) -> Iterator[str]:
        yield from super()._describe_counts(counts)
        if counts["dropped"]:
            yield (
                f"{counts['dropped']} of {counts['conversations']} conversations were left out: "
                "no response is preferred, or two are the same text"
            )

    def measure(self, parsed: str | None, sample: Sample) -> Mapping[str, Value]:
        is_right = float(parsed in sample.references)
        subsets = scoring.measure_subsets(is_right, sample.hidden)
        return {**scoring.measure(parsed, sample), **subsets}


class PersonalLLM(_PreferenceTask):
    """Responses of which a simulated user, a mixture of reward models, prefers one."""

    name = "personalllm"
    kind = "category"
    title = "PersonalLLM: which response does a mixture of reward models prefer?"
    source = "https://huggingface.co/datasets/namkoong-lab/PersonalLLM (arXiv 2409.20296)"
    licence = "CC BY 4.0"
    offers = ("history", "options", "comparisons", "majority")
    accepts_file = False
    metrics = (*scoring.METRICS, Metric("normalized-score"), *scoring.SUBSET_METRICS)

    @dataclasses.dataclass(frozen=True)
    class Params(_PreferenceTask.Params):
        """Options of the task, beside those of the family.

        Attributes:
            users: simulated users that are drawn, unless the data has users.jsonl.
            alpha: concentration of the Dirichlet distribution of their weights.
            records: prompts of the training table in a history.
            questions: prompts of the test table that each user answers.
        """

        users: int = 50
        alpha: float = 0.05
        records: int = 10
        questions: int = 20

        def __post_init__(self) -> None:
            if min(self.users, self.records, self.questions) < 1:
                raise ValueError("users, records and questions are numbers of 1 or more")
            if not self.alpha > 0:
                raise ValueError("alpha is a number above 0")

    params: Params

    def read(self, data: Path, counts: Counter[str]) -> Iterator[Comparison]:
        p = self.params
        comparisons = personalllm.read_comparisons(
            data, p.users, p.alpha, p.records, p.questions, counts
        )
        return mark_disagreement(list(comparisons))

    def _describe_counts(self, counts: Mapping[str, int]) -> Iterator[str]:
        yield from super()._describe_counts(counts)
        if counts["dropped"]:
            yield (
                f"{counts['dropped']} of {counts['prompts']} prompts were left out: two of their "
                "responses are the same text"
            )

    def measure(self, parsed: str | None, sample: Sample) -> Mapping[str, Value]:
        scores = msgspec.json.decode(sample.hidden["scores"], type=dict[str, float])
        subsets = scoring.measure_subsets(float(parsed in sample.references), sample.hidden)
        return {
            **scoring.measure(parsed, sample),
            "normalized-score": personalllm.normalize_pick(scores, parsed),
            **subsets,
        }
