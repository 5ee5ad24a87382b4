"""Product reviews: what would this reviewer write of this item?  DPL's setting (arXiv 2503.02450).

Many people reviewed the same items, which is what methods that compare people need.
"""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from personabench.api.data_sources import Audited, Downloadable
from personabench.api.dataset import Dataset
from personabench.api.id_check import few
from personabench.api.judged import JudgedTask
from personabench.api.official_files import OfficialFiles
from personabench.api.task import JsonObject
from personabench.api.wording import Rendered
from personabench.errors import DataError, UsageError
from personabench.metrics import meteor
from personabench.metrics.bleu import corpus_bleu, signature, statistics
from personabench.metrics.judges import similarity
from personabench.metrics.metric import Metric, Value
from personabench.metrics.scripts import SPACED
from personabench.metrics.text import ROUGE, rouge_with_variants
from personabench.models.roles import Role
from personabench.models.tokens import Tokens
from personabench.tasks.reviews import construct, hub, wording
from personabench.tasks.reviews.records import ReviewData, name_of
from personabench.types import Record, Sample

SAMPLE = Path(__file__).parent / "sample"
METRICS: tuple[Metric, ...] = (
    *ROUGE,
    Metric("meteor", scope=SPACED),
    Metric("bleu", aggregate=corpus_bleu, signature=signature, scope=SPACED),
)


class Reviews(JudgedTask, OfficialFiles, Audited, Downloadable):
    """Which review did this person write of an item, under a given rating and review title?"""

    name = "reviews"
    title = "Product reviews: personalized review generation (the setting of DPL)"
    kind = "text"
    source = (
        "SnowCharmQ/DPL-main and SnowCharmQ/DPL-meta on the Hugging Face hub (arXiv 2503.02450)"
    )
    licence = "CC BY-NC 4.0; texts from Amazon Reviews 2023"
    default_split = "test"
    max_tokens = 512
    metrics = METRICS
    words = wording.WORDS
    optional_roles = ("judge",)
    judged_metrics = (Metric("similarity"),)
    judge_params = ("similarity_prompt",)

    @dataclasses.dataclass(frozen=True)
    class Params(construct.Rules):
        """Bounds by which splits are made from a table of reviews; published data and the sample need none.

        Attributes:
            similarity_prompt: the hash of the similarity judge's wording; it names judgements and is never chosen.
        """

        similarity_prompt: str = similarity.PROMPT[:12]

        def __post_init__(self) -> None:
            super().__post_init__()
            if self.similarity_prompt != similarity.PROMPT[:12]:
                raise ValueError(
                    f"similarity_prompt is told, not chosen; it is {similarity.PROMPT[:12]}"
                )

    params: Params

    def __init__(self, params: Any = None) -> None:
        super().__init__(params)
        self._no_meteor = meteor.describe_missing_data()
        if self._no_meteor:
            self.metrics = tuple(each for each in METRICS if each.name != "meteor")  # type: ignore[misc]

    def open(self, split: str, data: Path | None) -> Dataset:
        """See `Task`; a split is `[CATEGORY/]val|test`, of published data, of a table of reviews, or of the sample."""
        category, part = _parsed(split)
        root = SAMPLE if data is None else data
        if hub.is_copy(root):
            category = hub.category_of(root, category)
            found = hub.read(root, category, part)
        elif category:
            raise UsageError(
                f"{root} holds no DPL-main folder, so it has no category {category}; a table's split is {part}"
            )
        else:
            category, found = "table", construct.read(root, part, self.params)
        if data is None:
            found = found._replace(source="bundled sample, not Amazon reviews")
        if warning := self._no_meteor or meteor.describe_limitations():
            found = found._replace(warnings=(*found.warnings, warning))
        return ReviewData(found, category, part, sample=data is None)

    def render(
        self, sample: Sample, records: Sequence[Record], notes: str, tokens: Tokens
    ) -> Rendered:
        return wording.chat(sample, records, notes)

    def describe(self, record: Record) -> str:
        return wording.describe(record)

    def query_text(self, sample: Sample) -> str:
        return (
            wording.search_text(sample.attributes.get("review_title", ""), sample.stimulus)
            or sample.input
        )

    def document_text(self, record: Record) -> str:
        return (
            wording.search_text(record.fields["review_title"], record.stimulus) or record.response
        )

    def question(self, record: Record, like: Sample) -> Sample:
        """See `Task`; with the rating and the title of the record's own review."""
        asked = super().question(record, like)
        return msgspec.structs.replace(
            asked, input=wording.request(asked.stimulus, asked.attributes)
        )

    def facts(self, known: Mapping[str, str]) -> str:
        return wording.facts(known)

    def parse(self, output: str, sample: Sample, scorer: str) -> str | None:
        if scorer not in self.scorers:
            raise UsageError(
                f"{self.name} has no scorer '{scorer}'; it has: {', '.join(self.scorers)}"
            )
        return wording.read(output, scorer)

    def measure(self, parsed: str | None, sample: Sample) -> Mapping[str, Value]:
        if not sample.references:
            return {}
        text, gold = parsed or "", sample.references[0]
        values: dict[str, Value] = {
            **rouge_with_variants(text, gold),
            "bleu": statistics(text, gold),
        }
        return values if self._no_meteor else values | {"meteor": meteor.meteor(text, gold)}

    async def assess(
        self, sample: Sample, output: str, record: JsonObject, judge: Role
    ) -> JsonObject | None:
        """How similar the review is to the real one; see `personabench.metrics.judges.similarity`."""
        judged = await similarity.rate_similarity(
            judge,
            item=sample.stimulus or sample.item or "",
            rating=sample.attributes["rating"],
            review_title=sample.attributes["review_title"],
            real=sample.references[0],
            generated=wording.read(output, "official") or "",
        )
        if judged.attempts > 1:
            judge.flag("judge_retried", judged.attempts - 1)
        return (
            None
            if judged.value is None
            else {"similarity": judged.value, "evidence": judged.evidence}
        )

    def measure_interaction(
        self, record: JsonObject, assessment: JsonObject | None, sample: Sample
    ) -> Mapping[str, Value]:
        return {"similarity": assessment["similarity"]} if assessment else {}

    def read_references(self, path: Path) -> dict[str, Sample]:
        """See `Task`; the reference file is a split's own file: parquet, arrow, or JSON lines of its rows."""
        if path.suffix not in (".parquet", ".arrow", ".jsonl"):
            raise DataError(
                f"{path}: expected a split's own file of DPL-main: .parquet, .arrow or .jsonl"
            )
        if said := self._no_meteor or meteor.describe_limitations():
            warnings.warn(said, stacklevel=2)
        found = {}
        for row in hub.RowList([path]):
            name = name_of(row.user_id, row.data)
            found[name] = Sample(name, row.user_id, "", references=(row.data.text,))
        return found

    def audit(self, dataset: Dataset) -> list[str]:
        """Reviews to be written that stand in their own writer's history."""
        leaking = [
            sample.id
            for sample in dataset.samples()
            if any(
                record.item == sample.item or record.response in sample.references
                for record in sample.history
            )
        ]
        return [f"the review to write stands in the history: {few(leaking)}"] if leaking else []

    def download(self, split: str, target: Path, **options: Any) -> None:
        from personabench.tasks.reviews.download import download

        category, part = _parsed(split)
        download(category, part, target, **options)


def _parsed(split: str) -> tuple[str, str]:
    category, _, part = split.rpartition("/")
    if part not in hub.SPLITS or "/" in category:
        raise UsageError(
            f"reviews has no split '{split}'; write [CATEGORY/]test or [CATEGORY/]val, such as Books/test"
        )
    return category, part
