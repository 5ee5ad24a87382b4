"""Score single answers: an answer and its sample in, values and counts out.

Answers are scored in any order, so that those of a run are scored as they arrive.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from personabench.api.guard import explain_result
from personabench.api.judged import JudgedTask, judged_metrics
from personabench.api.task import Task
from personabench.metrics.metric import Value
from personabench.metrics.scripts import ReferenceCoverage
from personabench.run.suspicion import AnswerWatch
from personabench.types import Judgement, Prediction, Sample, Score


def measure(
    task: Task,
    output: str,
    sample: Sample,
) -> tuple[dict[str, Mapping[str, Value]], set[str]]:
    """Measure one answer under each of the task's scorers.

    Returns:
        the values by scorer, and the scorers that could not parse the answer.
    """
    values: dict[str, Mapping[str, Value]] = {}
    unparsed: set[str] = set()
    # Scorers mostly parse an answer alike, and some metrics are slow: measure each reading once.
    measured: dict[str | None, Mapping[str, Value]] = {}
    for scorer in task.scorers:
        parsed = task.parse(output, sample, scorer)
        if parsed is None:
            unparsed.add(scorer)
        if parsed not in measured:
            measured[parsed] = task.measure(parsed, sample)
        values[scorer] = measured[parsed]
    return values, unparsed


class AnswerScorer:
    """Scores the answers to a task's samples, and counts what holds over all of them.

    Attributes:
        watch: signs that the answers do not come from the method.
        unseen: references that metrics do not cover.
        unparsed: answers that could not be parsed, by scorer.
        counters: further counts.
    """

    def __init__(self, task: Task, judged: bool = False) -> None:
        self.watch = AnswerWatch()
        self.unseen = ReferenceCoverage((*task.metrics, *(judged_metrics(task) if judged else ())))
        self.unparsed: Counter[str] = Counter(dict.fromkeys(task.scorers, 0))
        self.counters: Counter[str] = Counter()
        self._task = task
        self._judged = judged
        self._primary = task.metrics[0].name

    def score(
        self, sample: Sample, prediction: Prediction, judgement: Judgement | None = None
    ) -> Score | None:
        """Score an answer; None if there is nothing to score it by."""
        task = self._task
        if task.protocol == "static" and not sample.references and not self._judged:
            return None

        output = prediction.output or ""
        values, unparsed = measure(task, output, sample)
        retrieval: Mapping[str, Value] = {}
        if prediction.shown is not None:
            retrieval = task.measure_retrieval(sample, prediction.shown)
        judged_values = None if judgement is None else judgement.values
        interaction = task.measure_interaction(prediction.interaction, judged_values, sample)

        # Counted after the task's code, which may fail, so that an answer counts once.
        answer = self.watch.add(sample, output)
        self.unparsed.update(unparsed)
        if prediction.shown is None and sample.evidence:
            # Made by an earlier version, or by a memory that does not know the sources of its
            # items: the metrics of evidence leave this sample out.
            self.counters["shown_unknown"] += 1

        further = {**retrieval, **interaction}
        # Copies would take memory: most answers have one reading, and nothing further.
        complete = values
        if further:
            complete = {scorer: {**metrics, **further} for scorer, metrics in values.items()}
        first_values = complete[task.scorers[0]]
        if self._primary not in first_values:
            self._require_judge(first_values)
            return None

        for reference in sample.references[:1]:
            self.unseen.add(reference)
        return Score(prediction.sample_id, prediction.user_id, complete, answer)

    def _require_judge(self, values: Mapping[str, Value]) -> None:
        """Accept that the primary metric has no value if a judge or an interaction gives it.

        Raises:
            PluginError: nothing else can give it.
        """
        waits_for_judge = isinstance(self._task, JudgedTask)
        if waits_for_judge or self._task.protocol != "static":
            return

        measured = ", ".join(values) or "nothing"
        problem = f"it returned no value of it, only of {measured}"
        expected = f"a number for the primary metric '{self._primary}'"
        raise explain_result(self._task, "measure", expected, problem)
