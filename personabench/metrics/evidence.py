"""Retrieval metrics: the records that a model saw against those that hold the evidence.

Samples without evidence marks have no value, rather than a free 1 or 0.  Recall is meaningless
without the number of records behind it, which is therefore a metric of its own: showing everything
has a recall of 1.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from personabench.metrics.metric import Metric, Value
from personabench.types import Sample

EVIDENCE = (
    Metric("evidence-recall"),
    Metric("evidence-precision"),
    Metric("records-shown", higher_is_better=False),
)


def measure_evidence(sample: Sample, shown: Sequence[str]) -> Mapping[str, Value]:
    """Return the values of `EVIDENCE` for a sample, given the ids of the shown records.

    Recall is the share of the evidence that was shown, also of evidence that a history control
    hides.  Precision is the share of the shown records that are evidence; it has no value if
    nothing was shown.
    """
    evidence = set(sample.evidence)
    if not evidence:
        return {}

    # Records of another user may have the same ids, but they hold no evidence.
    hits = 0 if sample.history_owner else len(evidence.intersection(shown))
    values: dict[str, Value] = {
        "evidence-recall": hits / len(evidence),
        "records-shown": float(len(shown)),
    }
    if shown:
        values["evidence-precision"] = hits / len(shown)
    return values
