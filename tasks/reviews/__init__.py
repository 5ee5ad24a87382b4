"""Product reviews: generate a user's review of an item, in DPL's setting (arXiv 2503.02450).

Many users reviewed the same items, as methods that compare users require.
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
from personabench.api.id_check import list_few
from personabench.api.judged import JudgedTask
from personabench.api.layout import Layout
from personabench.api.official_files import OfficialFiles
from personabench.api.task import JsonObject
from personabench.api.wording import Rendered
from personabench.errors import DataError, UsageError
from personabench.metrics import meteor
from personabench.metrics.bleu import corpus_bleu, count_ngrams, signature
from personabench.metrics.judges import similarity
from personabench.metrics.metric import Metric, Value
from personabench.metrics.scripts import SPACED
from personabench.metrics.text import ROUGE, rouge_with_variants
from personabench.models.roles import Role
from personabench.models.tokens import Tokens
from personabench.tasks.reviews import construct, hub, wording
from personabench.tasks.reviews.records import ReviewData, make_review_id
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
    offers = ("history", "population", "dates", "precedents", "items")
    source = (
        "SnowCharmQ/DPL-main and SnowCharmQ/DPL-meta on the Hugging Face hub (arXiv 2503.02450)"
    )
    licence = "CC BY-NC 4.0; texts from Amazon Reviews 2023"
    default_split = "test"
    paper_settings = {"layout": "message", "profile": "after", "order": "best_first"}
    max_tokens = 512
    metrics = METRICS
    tokenizer = "whitespace"
    words = wording.WORDS
    optional_roles = ("judge",)
    judged_metrics = (Metric("similarity"),)
    judge_content = similarity.PROMPT

    @dataclasses.dataclass(frozen=True)
    class Params(construct.Rules, Layout):
        """Options of the layout, and bounds for splits made from a table of reviews.

        Other data ignore the bounds.
        """

    params: Params

    def __init__(self, params: Any = None) -> None:
        super().__init__(params)
        # METEOR needs files that no package installs; without them the task runs without it.
        self._missing_meteor = meteor.describe_missing_data()
        if self._missing_meteor:
            available = tuple(metric for metric in METRICS if metric.name != "meteor")
            self.metrics = available  # type: ignore[misc]

    def open(self, split: str, data: Path | None) -> Dataset:
        """See `Task`; a split is `[CATEGORY/]val|test` of published data, a table or the sample."""
        category, part = _parse_split(split)
        root = SAMPLE if data is None else data
        if hub.is_copy(root):
            category = hub.choose_category(root, category)
            content = hub.read_split(root, category, part)
        elif category:
            raise UsageError(
                f"{root} holds no DPL-main folder, so it has no category {category}; "
                f"for a table of reviews write --split {part}"
            )
        else:
            category = "table"
            content = construct.construct_split(root, part, self.params)

        if data is None:
            content = content._replace(source="example data, not Amazon reviews")
        warning = self._warn_of_meteor()
        if warning:
            content = content._replace(warnings=(*content.warnings, warning))
        return ReviewData(content, category, part, sample=data is None)

    def render(
        self, sample: Sample, records: Sequence[Record], notes: str, tokens: Tokens
    ) -> Rendered:
        opening = wording.WORDS.instruction
        return wording.render_chat(sample, records, notes, opening, self.params)

    def render_content(
        self, sample: Sample, records: Sequence[Record], notes: str, tokens: Tokens
    ) -> Rendered:
        return wording.render_chat(sample, records, notes, wording.GOAL, self.params)

    def describe(self, record: Record) -> str:
        return wording.describe_record(record)

    def query_text(self, sample: Sample) -> str:
        return wording.make_search_text(sample.attributes, sample.stimulus) or sample.input

    def document_text(self, record: Record) -> str:
        return wording.make_search_text(record.fields, record.stimulus) or record.response

    def question(self, record: Record, like: Sample) -> Sample:
        """See `Task`; the question states the rating and the title of the record's own review."""
        question = super().question(record, like)
        request = wording.format_request(question.stimulus, question.attributes)
        return msgspec.structs.replace(question, input=request)

    def facts(self, known: Mapping[str, str]) -> str:
        return wording.format_facts(known)

    def parse(self, output: str, sample: Sample, scorer: str) -> str | None:
        if scorer not in self.scorers:
            raise UsageError(
                f"{self.name} has no scorer '{scorer}'; it has: {', '.join(self.scorers)}"
            )
        return wording.parse_reply(output, scorer)

    def measure(self, parsed: str | None, sample: Sample) -> Mapping[str, Value]:
        if not sample.references:
            return {}

        text = parsed or ""
        gold = sample.references[0]
        values: dict[str, Value] = {
            **rouge_with_variants(text, gold),
            "bleu": count_ngrams(text, gold),
        }
        if not self._missing_meteor:
            values["meteor"] = meteor.meteor(text, gold)
        return values

    async def assess(
        self, sample: Sample, output: str, interaction: JsonObject, judge: Role
    ) -> JsonObject | None:
        """Judge the similarity to the real review; see `personabench.metrics.judges.similarity`."""
        judged = await similarity.rate_similarity(
            judge,
            item=sample.stimulus or sample.item or "",
            rating=sample.attributes["rating"],
            review_title=sample.attributes["review_title"],
            real=sample.references[0],
            # The official parser, so that a judgement does not depend on the scorer.
            generated=wording.parse_reply(output, "official") or "",
        )
        if judged.attempts > 1:
            judge.flag("judge_retried", judged.attempts - 1)
        if judged.value is None:
            return None
        return {
            "similarity": judged.value,
            "evidence": judged.evidence,
        }

    def measure_interaction(
        self, interaction: JsonObject, assessment: JsonObject | None, sample: Sample
    ) -> Mapping[str, Value]:
        return {"similarity": assessment["similarity"]} if assessment else {}

    def read_references(self, path: Path) -> dict[str, Sample]:
        """See `Task`; the reference file is a split's own file: parquet, arrow or JSON lines."""
        if path.suffix not in (".parquet", ".arrow", ".jsonl"):
            raise DataError(
                f"{path}: expected a split's own file of DPL-main: .parquet, .arrow or .jsonl"
            )

        warning = self._warn_of_meteor()
        if warning:
            warnings.warn(warning, stacklevel=2)
        samples = {}
        for row in hub.RowList([path]):
            sample_id = make_review_id(row.user_id, row.data)
            samples[sample_id] = Sample(
                sample_id,
                user_id=row.user_id,
                input="",
                references=(row.data.text,),
                item=row.data.asin,
            )
        return samples

    def audit(self, dataset: Dataset) -> list[str]:
        """List reviews to write that occur in the user's own history."""
        leaking = [sample.id for sample in dataset.samples() if _is_leaking(sample)]
        if not leaking:
            return []
        return [f"the review to write occurs in the history: {list_few(leaking)}"]

    def download(self, split: str, target: Path, **options: Any) -> None:
        # Imported here, since only this command needs it.
        from personabench.tasks.reviews.download import download

        category, part = _parse_split(split)
        download(category, part, target, **options)

    def describe_missing(self) -> str:
        return self._missing_meteor or ""

    def _warn_of_meteor(self) -> str | None:
        return self._missing_meteor or meteor.describe_limitations()


def _parse_split(split: str) -> tuple[str, str]:
    category, _, part = split.rpartition("/")
    if part not in hub.SPLITS or "/" in category:
        raise UsageError(
            f"reviews has no split '{split}'; "
            "write [CATEGORY/]test or [CATEGORY/]val, such as Books/test"
        )
    return category, part


def _is_leaking(sample: Sample) -> bool:
    return any(
        record.item == sample.item or record.response in sample.references
        for record in sample.history
    )
