"""Score a run: predictions and judgements in, `scores.jsonl` and `summary.json` out.

Scoring calls no model, so it can be repeated at any time.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import IO

from personabench.api.dataset import Dataset
from personabench.api.guard import plugin_guard
from personabench.api.judged import judged_metrics
from personabench.api.official_files import SubmissionFile
from personabench.api.task import Task
from personabench.metrics.evidence import EVIDENCE
from personabench.metrics.metric import Metric, Value
from personabench.results.checksums import Seal, make_seal, seal_object
from personabench.results.run_folder import RunFolder
from personabench.results.spec import RunSpec
from personabench.results.summary import Number, RunFacts, Summary
from personabench.run.answer_scorer import AnswerScorer
from personabench.run.attempt import plain
from personabench.run.early_scores import EarlyScores
from personabench.run.judging import answer_key
from personabench.run.ledger import Ledger
from personabench.types import Judgement, Prediction, Score, to_json


class Tally:
    """Per-sample values of every scorer and metric, collected sample by sample.

    `judged` adds the metrics of an optional judge.
    """

    def __init__(self, task: Task, judged: bool = False) -> None:
        self.task = task
        self.n = 0
        judge_metrics = judged_metrics(task) if judged else ()
        self._declared = (*task.metrics, *judge_metrics)
        declared_names = {metric.name for metric in self._declared}
        self._optional = tuple(metric for metric in EVIDENCE if metric.name not in declared_names)

        metrics = (*self._declared, *self._optional)
        self._values: dict[tuple[str, str], list[Value]] = {}
        for scorer in task.scorers:
            for metric in metrics:
                self._values[scorer, metric.name] = []

    @property
    def all(self) -> tuple[Metric, ...]:
        """The task's metrics, and those of evidence if samples have any."""
        scorer = self.task.scorers[0]
        measured = []
        for metric in self._optional:
            if self._values[scorer, metric.name]:
                measured.append(metric)
        return (*self._declared, *measured)

    def add(self, values: Mapping[str, Mapping[str, Value]]) -> None:
        """Add the values of one sample."""
        self.n += 1
        for (scorer, metric), column in self._values.items():
            measured = values[scorer]
            if metric in measured:
                column.append(measured[metric])

    def metrics(self) -> dict[str, dict[str, float]]:
        """Aggregate every metric, by scorer; empty without samples."""
        if not self.n:
            return {}
        return {scorer: self._aggregate(scorer) for scorer in self.task.scorers}

    def _aggregate(self, scorer: str) -> dict[str, float]:
        # Imported on use, since scores come after the calls.
        import numpy as np

        scores = {}
        for metric in self.all:
            values = self._values[scorer, metric.name]
            if not values:
                continue

            stage = f"metrics[{metric.name!r}].aggregate"
            with plugin_guard(self.task, stage, "a number from an array of values"):
                array = np.array(values, dtype=np.float64)
                score = metric.aggregate(array)
                scores[metric.name] = float(score)
        return scores


class _Scoring:
    """Counts and values of a run, collected while its scores are written."""

    def __init__(
        self,
        folder: RunFolder,
        task: Task,
        dataset: Dataset,
        judge: str | None,
        early: EarlyScores | None,
    ) -> None:
        self.task = task
        self.dataset = dataset
        self.judge = judge
        self.folder = folder
        self.tally = Tally(task, judge is not None)
        self.ledger = Ledger()
        self.scorer = early.scorer if early else AnswerScorer(task, judge is not None)
        self.answered = 0
        self.missing = 0
        self.unjudged = 0
        self.users: set[str] = set()
        # These three are reported even if they are zero.
        self.counters: Counter[str] = Counter(
            parse_failures=0,
            empty_output=0,
            request_errors=0,
        )
        # First, so that calls are booked offline that a sample repeats.
        self.profiles = self._add_profiles()
        self._judgements = folder.judgements(judge) if judge else {}
        self._early = early.scores if early else {}

    def write(self, positions: Sequence[int], file: IO[str]) -> Iterator[tuple[str, str]]:
        """Write the scores of the selected samples, and yield their ids and outputs."""
        index = self.dataset.index()
        samples = (index[position][0] for position in positions)
        predictions = self.folder.ordered_predictions(samples)
        for position, prediction in zip(positions, predictions, strict=True):
            if prediction is None or prediction.error is not None:
                self._count_missing(prediction)
                continue
            self._count_answer(position, prediction)
            output = prediction.output or ""
            yield prediction.sample_id, output

            score = self._score(position, prediction)
            if score is not None:
                self.tally.add(score.values)
                line = to_json(score)
                file.write(line + "\n")

    def _count_missing(self, prediction: Prediction | None) -> None:
        self.missing += 1
        if prediction is None:
            return

        self.counters["request_errors"] += 1
        for flag in ("interrupted", "timed_out"):
            if prediction.flags.get(flag):
                self.counters[flag] += 1

    def _count_answer(self, position: int, prediction: Prediction) -> None:
        self.answered += 1
        self.users.add(prediction.user_id)
        self.ledger.add(prediction.calls)

        flags = dict(prediction.flags)
        if flags.get("fallback"):
            # An interactive sample may fall back in each turn; the share of samples is reported.
            flags["fallback"] = 1.0
        data_flags = self.dataset.flags(position)
        self.counters.update(flags)
        self.counters.update(data_flags)

    def _score(self, position: int, prediction: Prediction) -> Score | None:
        if position in self._early:
            return self._early[position]
        judgement = self._current_judgement(prediction)
        sample = self.dataset.load(position)
        return self.scorer.score(sample, prediction, judgement)

    def _current_judgement(self, prediction: Prediction) -> Judgement | None:
        """The judgement of this very answer; None if it was made of an earlier one."""
        judgement = self._judgements.get(prediction.sample_id)
        if judgement is not None and judgement.answer != answer_key(prediction):
            judgement = None

        if self.judge and (judgement is None or judgement.values is None):
            self.counters["unjudged"] += 1
            # A judgement without values is final: the judge's output could not be parsed.
            self.unjudged += judgement is None
        if judgement is not None:
            self.ledger.add(judgement.calls)
            self.counters.update(judgement.flags)
        return judgement

    def _add_profiles(self) -> int:
        """Count flags and calls of the users' profiles, and return the number of profiles."""
        profiles = self.folder.profile_heads().values()
        for profile in profiles:
            self.counters.update(profile.flags)
            self.ledger.add(profile.calls)
        # The state that all users share has no key.
        personal = [profile for profile in profiles if profile.key]
        return len(personal)


def score_run(
    folder: RunFolder,
    task: Task,
    dataset: Dataset,
    spec: RunSpec,
    positions: Sequence[int],
    *,
    seconds: float,
    facts: RunFacts,
    early: EarlyScores | None = None,
) -> Summary:
    """Score a run's predictions for the selected samples, and return the summary.

    Writes `scores.jsonl`, `summary.json` and `predictions.json`. Samples without a successful
    prediction are counted and not scored, and so are those without a value of the primary metric,
    which a judge may have left unjudged.

    Args:
        seconds: time spent on the run so far.
        facts: copied into the summary; the judgements of `facts.judge` count.
        early: the scores of answers in `folder` that are known already, if there is no judge.
    """
    scoring = _Scoring(folder, task, dataset, facts.judge, early)
    submission = folder.path / "predictions.json"
    with folder.replacing(folder.scores_path) as scores, folder.replacing(submission) as submitted:
        outputs = scoring.write(sorted(positions), scores)
        if isinstance(task, SubmissionFile):
            for piece in task.submission(outputs):
                submitted.write(piece)
        # A task without a submission format has not read the outputs, which writes the scores.
        for _ in outputs:
            pass
    if not submission.stat().st_size:
        submission.unlink()

    summary = _summarize(scoring, spec, seconds, facts)
    with folder.replacing(folder.summary_path) as file:
        file.write(seal_object(to_json(summary)) + "\n")
    return summary


def _summarize(
    scoring: _Scoring,
    spec: RunSpec,
    seconds: float,
    facts: RunFacts,
) -> Summary:
    task = scoring.task
    metrics = scoring.tally.all
    scorer = scoring.scorer
    counters = scoring.counters
    counters.update(scorer.counters)
    changes = scoring.ledger.count_changes()
    if changes:
        counters["model_changes"] = changes
    counters["parse_failures"] = scorer.unparsed[task.scorers[0]]
    incomplete = scoring.missing or scoring.unjudged

    fields = {name: getattr(facts, name) for name in RunFacts.__struct_fields__}
    coverage_warnings = scorer.unseen.warnings()
    fields["warnings"] = [*facts.warnings, *coverage_warnings]
    suspicious = scorer.watch.describe(
        truncated=counters["truncated"],
        empty=counters["empty_output"],
        is_rule=facts.rule,
    )

    directions = {}
    variants = {}
    signatures = {}
    for metric in metrics:
        directions[metric.name] = metric.higher_is_better
        if metric.variant_of:
            variants[metric.name] = metric.variant_of
        if metric.signature:
            signatures[metric.name] = metric.signature()

    rounded_counters = {}
    for name, amount in sorted(counters.items()):
        rounded_counters[name] = _round(amount)

    return Summary(
        **fields,
        status="incomplete" if incomplete else "complete",
        task=spec.task,
        separation=spec.separation,
        split=spec.split,
        source=scoring.dataset.source,
        sample=spec.sample,
        method=spec.method,
        params=dict(spec.params),
        history=spec.history,
        selection=spec.selection or "",
        model=spec.model["name"],
        sampling=spec.sampling,
        seed=spec.seed,
        fingerprint=spec.fingerprint,
        data_hash=spec.data_hash,
        n=scoring.answered,
        owed=scoring.missing,
        users=len(scoring.users),
        user_ids=dict(scoring.dataset.user_counts()),
        primary=task.metrics[0].name,
        higher_is_better=directions,
        variants=variants,
        metrics=plain(scoring.tally.metrics()),
        signatures=signatures,
        parse_failures=dict(scorer.unparsed),
        counters=rounded_counters,
        usage=scoring.ledger.usage(),
        profiler_usage=scoring.ledger.profiler_usage(),
        profiles=scoring.profiles,
        seconds=round(seconds, 2),
        distinct_answers=scorer.watch.distinct,
        suspicious=suspicious,
        files=_seal_files(scoring.folder, facts.judge),
    )


def _seal_files(folder: RunFolder, judge: str | None) -> dict[str, Seal]:
    """Take checksums of the files that scores are made from, and of the scores."""
    paths = [folder.predictions_path, folder.scores_path]
    if judge:
        paths.append(folder.judgements_path(judge))

    seals = {}
    for path in paths:
        name = path.relative_to(folder.path).as_posix()
        seals[name] = make_seal(path)
    return seals


def _round(amount: float) -> Number:
    if float(amount).is_integer():
        return int(amount)
    return round(amount, 4)
