"""The part that all sources of preferences share: samples of comparisons, wording and metrics."""

from __future__ import annotations

import dataclasses
from abc import abstractmethod
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

from personabench.api import defaults
from personabench.api.data_sources import Downloadable
from personabench.api.dataset import Dataset
from personabench.api.layout import Layout, Parts, arrange
from personabench.api.rows import NoDataError
from personabench.api.task import Task
from personabench.api.wording import Rendered, Vocabulary
from personabench.metrics.metric import Metric, Value
from personabench.models.tokens import Tokens
from personabench.tasks.prefpair import scoring
from personabench.tasks.prefpair.comparison import Agreement, Comparison, Orders, make_samples
from personabench.tasks.prefpair.download import download
from personabench.types import Record, Sample


class PreferenceTask(Task, Downloadable):
    """The part that all sources share: samples of comparisons, wording and metrics.

    Attributes:
        data_name: the folder of the data, if it is that of another task.
    """

    data_name: ClassVar[str] = ""

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

    @property
    def shows_profile(self) -> bool:
        """Whether requests begin with what users say about themselves."""
        return self.params.self_description == "on"

    def open(self, split: str, data: Path | None) -> Dataset:
        self._counts: Counter[str] = Counter()
        self._agreement = Agreement()
        dataset = super().open(split, data)
        if data is None:
            dataset.source = f"example data, not {self.title.partition(':')[0]}"
        agreement = self._agreement.describe()
        dataset.warnings = (
            *dataset.warnings,
            *([agreement] if agreement else []),
            *self._describe_counts(self._counts),
        )
        return dataset

    def load(self, split: str, data: Path | None) -> Iterator[Sample]:
        if data is None:
            raise NoDataError(f"the example data of {self.name} are missing; name a folder")
        counts = self._counts = Counter()
        folder = data / (self.data_name or self.name)
        agreement = self._agreement = Agreement()
        for comparison in self.read(folder if folder.is_dir() else data, counts):
            agreement.add(comparison)
            yield from make_samples(comparison, self.params.orders, self.shows_profile)

    def download(self, split: str, target: Path, **options: Any) -> None:
        download(self.data_name or self.name, split, target, **options)

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
        if self.params.orders == 1:
            yield "each comparison is put in one order only, so that a bias for a place stays"

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
