"""Score: predictions and judgements in, `scores.jsonl` and `summary.json` out.

No model is called, so it can be repeated at will.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import IO

import numpy as np

from personabench.api.dataset import Dataset
from personabench.api.task import Task
from personabench.metrics.metric import Value
from personabench.metrics.scripts import Unseen
from personabench.results.checksums import Seal, seal
from personabench.results.run_folder import RunFolder
from personabench.results.spec import RunSpec
from personabench.results.summary import Phase, RunFacts, Summary
from personabench.run.attempt import plain
from personabench.run.judging import answer_key
from personabench.types import Call, Sample, Score, to_json


def measure(
    task: Task, output: str, sample: Sample
) -> tuple[dict[str, Mapping[str, Value]], set[str]]:
    """The values one answer contributes under each of the task's scorers, and the scorers that could not read it."""
    values: dict[str, Mapping[str, Value]] = {}
    unread: set[str] = set()
    seen: dict[str | None, Mapping[str, Value]] = {}
    for scorer in task.scorers:
        parsed = task.parse(output, sample, scorer)
        if parsed is None:
            unread.add(scorer)
        if parsed not in seen:
            seen[parsed] = task.measure(parsed, sample)
        values[scorer] = seen[parsed]
    return values, unread


class Tally:
    """Per-sample values of every scorer and metric, gathered sample by sample; `judged` adds an optional judge's."""

    def __init__(self, task: Task, judged: bool = False) -> None:
        self.task = task
        self.all = (*task.metrics, *(task.judged_metrics if judged else ()))
        self.n = 0
        self._values: dict[tuple[str, str], list[Value]] = {
            (scorer, metric.name): [] for scorer in task.scorers for metric in self.all
        }

    def add(self, values: Mapping[str, Mapping[str, Value]]) -> None:
        """Take in one sample."""
        self.n += 1
        for (scorer, metric), gathered in self._values.items():
            if metric in values[scorer]:
                gathered.append(values[scorer][metric])

    def metrics(self) -> dict[str, dict[str, float]]:
        """Every metric, by scorer; empty without samples."""
        if not self.n:
            return {}
        return {
            scorer: {
                metric.name: metric.aggregate(np.array(values, dtype=np.float64))
                for metric in self.all
                if (values := self._values[scorer, metric.name])
            }
            for scorer in self.task.scorers
        }


def score_run(
    folder: RunFolder,
    task: Task,
    dataset: Dataset,
    spec: RunSpec,
    positions: Sequence[int],
    *,
    seconds: float,
    facts: RunFacts,
) -> Summary:
    """Score a run's predictions for the selected samples; returns the summary.

    Writes `scores.jsonl`, `summary.json` and `predictions.json`.  Samples without a successful prediction are
    counted, never scored, and so are those without a value of the primary metric, which a judge may have left
    unjudged.  `seconds` is the time spent so far; `facts` go into the summary beside; its `judge` is the key of
    the judge whose judgements count.
    """
    index = dataset.index()
    positions = sorted(positions)
    tally, n, missing, owing, users = Tally(task, facts.judge is not None), 0, 0, 0, set()
    judgements = folder.judgements(facts.judge) if facts.judge else {}
    counters: Counter[str] = Counter(
        dict.fromkeys(("parse_failures", "empty_output", "request_errors"), 0)
    )
    unread: Counter[str] = Counter(dict.fromkeys(task.scorers, 0))
    ledger = Ledger()
    unseen = Unseen(tally.all)
    submission = folder.path / "predictions.json"
    primary = task.metrics[0].name

    def scored(file: IO[str]) -> Iterator[tuple[str, str]]:
        nonlocal n, missing, owing
        lines = folder.ordered_predictions(index[position][0] for position in positions)
        for position, prediction in zip(positions, lines, strict=True):
            if prediction is None or prediction.error is not None:
                missing += 1
                if prediction is not None:
                    counters["request_errors"] += 1
                    if prediction.flags.get("interrupted"):
                        counters["interrupted"] += 1
                continue
            n += 1
            users.add(prediction.user_id)
            ledger.add(prediction.calls)
            # A sample that takes several turns may fall back in each; what is shown is the share of samples.
            once = {"fallback": 1.0} if prediction.flags.get("fallback") else {}
            counters.update({**prediction.flags, **once})
            counters.update(dataset.flags(position))
            output = prediction.output or ""
            yield prediction.sample_id, output
            judged = judgements.get(prediction.sample_id)
            if judged is not None and judged.answer != answer_key(prediction):
                judged = None
            if facts.judge and (judged is None or judged.values is None):
                counters["unjudged"] += 1
                owing += judged is None
            if judged is not None:
                ledger.add(judged.calls)
                counters.update(judged.flags)
            sample = dataset.load(position)
            if sample.references or task.protocol != "static" or facts.judge:
                values, failed = measure(task, output, sample)
                more = task.measure_interaction(
                    prediction.record, None if judged is None else judged.values, sample
                )
                values = {scorer: {**found, **more} for scorer, found in values.items()}
                unread.update(failed)
                if primary not in values[task.scorers[0]]:
                    continue
                tally.add(values)
                for reference in sample.references[:1]:
                    unseen.add(reference)
                file.write(to_json(Score(prediction.sample_id, prediction.user_id, values)) + "\n")

    with folder.replacing(folder.scores_path) as scores, folder.replacing(submission) as submitted:
        outputs = scored(scores)
        for piece in task.submission(outputs):
            submitted.write(piece)
        for _ in outputs:
            pass
    if not submission.stat().st_size:
        submission.unlink()
    counters["parse_failures"] = unread[task.scorers[0]]
    profiles = folder.profiles().values()
    for profile in profiles:
        counters.update(profile.flags)
        ledger.add(profile.calls)
    known = {name: getattr(facts, name) for name in RunFacts.__struct_fields__}
    summary = Summary(
        **known | {"warnings": [*facts.warnings, *unseen.warnings()]},
        status="incomplete" if missing or owing else "complete",
        task=spec.task,
        separation=spec.separation,
        split=spec.split,
        source=dataset.source,
        sample=spec.sample,
        method=spec.method,
        params=dict(spec.params),
        history=spec.history,
        model=spec.model["name"],
        sampling=spec.sampling,
        seed=spec.seed,
        fingerprint=spec.fingerprint,
        data_hash=spec.data_hash,
        n=n,
        owed=missing,
        users=len(users),
        user_ids=dict(dataset.user_counts()),
        primary=primary,
        higher_is_better={metric.name: metric.higher_is_better for metric in tally.all},
        variants={metric.name: metric.variant_of for metric in tally.all if metric.variant_of},
        metrics=plain(tally.metrics()),
        signatures={metric.name: metric.signature() for metric in tally.all if metric.signature},
        parse_failures=dict(unread),
        counters={name: _tidy(amount) for name, amount in sorted(counters.items())},
        usage=ledger.phases(),
        profiles=sum(bool(profile.key) for profile in profiles),
        seconds=round(seconds, 2),
        files=_seals(folder, facts.judge),
    )
    with folder.replacing(folder.summary_path) as file:
        file.write(to_json(summary) + "\n")
    return summary


def _seals(folder: RunFolder, judge: str | None) -> dict[str, Seal]:
    """What the files were that scores are made from, and the scores."""
    paths = [
        folder.predictions_path,
        folder.scores_path,
        *([folder.judgements_path(judge)] if judge else []),
    ]
    return {path.relative_to(folder.path).as_posix(): seal(path) for path in paths}


class Ledger:
    """Calls, cached calls, tokens and model seconds by phase; a cached call counts at its full cost."""

    def __init__(self) -> None:
        self._calls: Counter[str] = Counter()
        self._cached: Counter[str] = Counter()
        self._input_tokens: Counter[str] = Counter()
        self._output_tokens: Counter[str] = Counter()
        self._seconds: dict[str, float] = {}

    def add(self, calls: Iterable[Call]) -> None:
        """Book calls."""
        for call in calls:
            phase = call.phase
            self._calls[phase] += 1
            self._cached[phase] += call.cached
            self._input_tokens[phase] += call.input_tokens
            self._output_tokens[phase] += call.output_tokens
            # Rounded after each call, so that a run scored again gives the same sum to the digit.
            self._seconds[phase] = round(self._seconds.get(phase, 0.0) + call.seconds, 4)

    def phases(self) -> dict[str, Phase]:
        """Usage by phase."""
        return {
            phase: Phase(
                calls=self._calls[phase],
                cached=self._cached[phase],
                input_tokens=self._input_tokens[phase],
                output_tokens=self._output_tokens[phase],
                seconds=self._seconds[phase],
            )
            for phase in self._calls
        }


def _tidy(amount: float) -> float:
    return int(amount) if float(amount).is_integer() else round(amount, 4)
