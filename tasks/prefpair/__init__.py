"""Which of several responses does this user prefer?

Loaders for data sets of comparisons: `psoups` (P-Soups and the benchmarks of AlignX, arXiv
2503.15463), `prism` (arXiv 2404.16019), `community_alignment` (arXiv 2507.09650), `personalllm`
(arXiv 2409.20296), `personafeedback` (arXiv 2506.12915) and `personalized_rewardbench` (arXiv
2604.07343).  A sample is one order of the responses, and every comparison is put in two
orders by default.  `personafeedback_gen` and `personalllm_gen` have the response written instead.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path

import msgspec

from personabench.api.dataset import Dataset
from personabench.metrics.judges.personafeedback import read_choice
from personabench.metrics.metric import Metric, Value
from personabench.metrics.text import ROUGE, rouge_with_variants
from personabench.tasks.prefpair import (
    community_alignment,
    personafeedback,
    personalllm,
    prism,
    psoups,
    rewardbench,
    scoring,
)
from personabench.tasks.prefpair.base import PreferenceTask
from personabench.tasks.prefpair.comparison import Comparison, mark_disagreement
from personabench.tasks.prefpair.generation import JUDGED_METRICS, GeneratedAnswers, Rewards
from personabench.types import Record, Sample

__all__ = [
    "CommunityAlignment",
    "PersonaFeedback",
    "PersonaFeedbackGen",
    "PersonalLLM",
    "PersonalLLMGen",
    "PersonalizedRewardBench",
    "Prism",
    "Psoups",
]

CONVERSATION_TYPES = ("unguided", "values guided", "controversy guided")


class Psoups(PreferenceTask):
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


class Prism(PreferenceTask):
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
    class Params(PreferenceTask.Params):
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


class CommunityAlignment(PreferenceTask):
    """Four responses of which an annotator prefers one; many annotators judge the same ones."""

    name = "community_alignment"
    kind = "category"
    title = "Community Alignment: which of four responses does an annotator prefer?"
    source = (
        "https://huggingface.co/datasets/facebook/community-alignment-dataset (arXiv 2507.09650)"
    )
    licence = "CC BY 4.0"
    offers = ("history", "options", "comparisons", "majority")
    metrics = (*scoring.choice_metrics(chance=0.25), *scoring.SUBSET_METRICS)

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
        return scoring.measure_subsets(parsed, sample)


class PersonalLLM(PreferenceTask):
    """Responses of which a simulated user, a mixture of reward models, prefers one."""

    name = "personalllm"
    kind = "category"
    title = "PersonalLLM: which response does a mixture of reward models prefer?"
    source = "https://huggingface.co/datasets/namkoong-lab/PersonalLLM (arXiv 2409.20296)"
    licence = "CC BY 4.0"
    offers = ("history", "options", "comparisons", "majority")
    accepts_file = False
    # A response of mean score is what guessing gets.
    metrics = (
        *scoring.choice_metrics(chance=None),
        Metric("normalized-score", chance=0.0),
        *scoring.SUBSET_METRICS,
    )

    @dataclasses.dataclass(frozen=True)
    class Params(PreferenceTask.Params):
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
        values = scoring.measure_subsets(parsed, sample)
        values["normalized-score"] = personalllm.normalize_pick(scores, parsed)
        return values


class PersonaFeedback(PreferenceTask):
    """Two answers to a question, of which one suits a persona; three tiers in two tracks."""

    name = "personafeedback"
    kind = "category"
    title = "PersonaFeedback: which of two answers suits a persona?"
    source = "https://github.com/PersonalAILab/PersonaFeedback (arXiv 2506.12915)"
    licence = "see its page"
    offers = ("history", "options", "pairs")
    accepts_file = False
    metrics = (*scoring.METRICS, *scoring.group_metrics(personafeedback.CELLS))

    @dataclasses.dataclass(frozen=True)
    class Params(PreferenceTask.Params):
        """Options of the task, beside those of the family.

        Attributes:
            setting: knowledge of a user: memory is a history of memories, persona a text in the
                request, none is nothing.
        """

        setting: personafeedback.Setting = "memory"

        def __post_init__(self) -> None:
            if self.self_description == "on":
                raise ValueError("setting=persona shows the persona; leave self_description off")

    params: Params

    @property
    def shows_profile(self) -> bool:
        """Whether requests begin with the persona."""
        return self.params.setting == "persona"

    def read(self, data: Path, counts: Counter[str]) -> Iterator[Comparison]:
        return personafeedback.read_comparisons(data, self.params.setting, counts)

    def describe(self, record: Record) -> str:
        return record.response

    def parse(self, output: str, sample: Sample, scorer: str) -> str | None:
        """See `Task`; also reads the last "answer: X", as the benchmark does."""
        letter = read_choice(output)
        if letter is not None and sample.choices:
            return sample.choices["AB".index(letter)]
        return super().parse(output, sample, scorer)

    def measure(self, parsed: str | None, sample: Sample) -> Mapping[str, Value]:
        return scoring.measure_groups(parsed, sample, "cell", personafeedback.CELLS)


class PersonalizedRewardBench(PreferenceTask):
    """Two answers to a question, one by a user's rubric and one against it."""

    name = "personalized_rewardbench"
    kind = "category"
    title = "Personalized RewardBench: which of two answers keeps to a user's rubric?"
    source = "https://huggingface.co/datasets/QiyaoMa/Personalized-RewardBench (arXiv 2604.07343)"
    licence = "see its page"
    offers = ("history", "options", "pairs")
    metrics = (*scoring.METRICS, *scoring.group_metrics(rewardbench.CATEGORIES))

    def read(self, data: Path, counts: Counter[str]) -> Iterator[Comparison]:
        return rewardbench.read_comparisons(data, counts)

    def describe(self, record: Record) -> str:
        return f"Earlier question: {record.response}"

    def measure(self, parsed: str | None, sample: Sample) -> Mapping[str, Value]:
        return scoring.measure_groups(parsed, sample, "category", rewardbench.CATEGORIES)


class PersonaFeedbackGen(GeneratedAnswers):
    """Write the answer that suits a persona; a judge compares it with the one that does."""

    name = "personafeedback_gen"
    kind = "text"
    data_name = "personafeedback"
    title = "PersonaFeedback: write the answer that suits a persona"
    source = PersonaFeedback.source
    licence = PersonaFeedback.licence
    offers = ("history",)
    accepts_file = False
    roles = ("judge",)
    metrics = JUDGED_METRICS

    @dataclasses.dataclass(frozen=True)
    class Params(GeneratedAnswers.Params):
        """Options of the task, beside those of the family.

        Attributes:
            setting: knowledge of a user, as in `personafeedback`.
        """

        setting: personafeedback.Setting = "memory"

    params: Params

    @property
    def shows_profile(self) -> bool:
        """Whether requests begin with the persona."""
        return self.params.setting == "persona"

    def read(self, data: Path, counts: Counter[str]) -> Iterator[Comparison]:
        return personafeedback.read_comparisons(
            data, self.params.setting, counts, with_personas=True
        )

    def describe(self, record: Record) -> str:
        return record.response

    def measure(self, parsed: str | None, sample: Sample) -> Mapping[str, Value]:
        return {}


class PersonalLLMGen(GeneratedAnswers):
    """Write a response for a simulated user, whose reward models score it elsewhere."""

    name = "personalllm_gen"
    kind = "text"
    offers = ("history", "comparisons")
    data_name = "personalllm"
    title = "PersonalLLM: write a response for a mixture of reward models"
    source = PersonalLLM.source
    licence = PersonalLLM.licence
    accepts_file = False
    optional_roles = ("judge",)
    judged_metrics = JUDGED_METRICS
    metrics = (*ROUGE, Metric("normalized-score"), Metric("rewarded"))

    @dataclasses.dataclass(frozen=True)
    class Params(GeneratedAnswers.Params, PersonalLLM.Params):
        """Options of the task, those of `personalllm` and of written answers.

        Attributes:
            rewards: a file with the rewards of the written answers.
        """

        rewards: str = ""

        def __post_init__(self) -> None:
            GeneratedAnswers.Params.__post_init__(self)
            PersonalLLM.Params.__post_init__(self)

    params: Params
    _rewards: Rewards | None = None

    def open(self, split: str, data: Path | None) -> Dataset:
        dataset = super().open(split, data)
        # Now, so that a broken file of rewards is told before any call.
        if self.params.rewards and dataset.index():
            self._open_rewards(dataset.load(0))
        return dataset

    def read(self, data: Path, counts: Counter[str]) -> Iterator[Comparison]:
        p = self.params
        return personalllm.read_comparisons(
            data, p.users, p.alpha, p.records, p.questions, counts, with_weights=True
        )

    def _open_rewards(self, sample: Sample) -> Rewards:
        if self._rewards is None:
            user = msgspec.json.decode(sample.hidden["user"], type=personalllm.SimulatedUser)
            self._rewards = Rewards(Path(self.params.rewards), list(user.scales))
        return self._rewards

    def measure(self, parsed: str | None, sample: Sample) -> Mapping[str, Value]:
        """See `Task`; an answer without rewards has no normalized score, and is counted."""
        values: dict[str, Value] = dict(rouge_with_variants(parsed or "", sample.references[0]))
        if not self.params.rewards:
            return values
        user = msgspec.json.decode(sample.hidden["user"], type=personalllm.SimulatedUser)
        rewards = self._open_rewards(sample).find(sample.stimulus or "", parsed or "")
        values["rewarded"] = float(rewards is not None)
        if rewards is not None:
            scores = msgspec.json.decode(sample.hidden["scores"], type=dict[str, float])
            values["normalized-score"] = personalllm.normalize_score(scores, user.score(rewards))
        return values
