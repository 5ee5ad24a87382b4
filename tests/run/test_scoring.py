"""Scoring: values per sample, missing samples, the ledger, the files written."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from personabench.api.dataset import Dataset
from personabench.api.task import Task
from personabench.api.wording import Rendered, Vocabulary
from personabench.errors import UsageError
from personabench.metrics.metric import Metric, Value
from personabench.models.tokens import Tokens
from personabench.results.run_folder import Profile, RunFolder
from personabench.results.spec import RunSpec
from personabench.results.summary import Phase, RunFacts, Summary, to_dict
from personabench.run.answer_scorer import measure
from personabench.run.ledger import Ledger
from personabench.run.scoring import Tally, score_run
from personabench.types import Call, Prediction, Record, Sample, Sampling, Usage


def root_mean(values: Any) -> float:
    return float(np.sqrt(values.mean()))


class Lengths(Task):
    """Answers are numbers; official reads digits, lenient takes the text's length."""

    name = "lengths"
    words = Vocabulary(person="reader", stimulus="book", response="length")
    metrics = (
        Metric("error", higher_is_better=False),
        Metric("rmse", False, root_mean),
        Metric("pair", True, np.size),
    )

    def open(self, split: str, data: Path | None) -> Dataset:
        raise UsageError("nothing to open")

    def render(
        self, sample: Sample, records: Sequence[Record], notes: str, tokens: Tokens
    ) -> Rendered:
        return Rendered(())

    def parse(self, output: str, sample: Sample, scorer: str) -> str | None:
        if scorer == "lenient":
            return str(len(output))
        return output if output.isdigit() else None

    def measure(self, parsed: str | None, sample: Sample) -> Mapping[str, Value]:
        off = abs(float(parsed or 9) - float(sample.references[0]))
        return {"error": off, "rmse": off * off, "pair": [off, 1.0]}


class Submitting(Lengths):
    """With a submission file."""

    name = "submitting"

    def submission(self, outputs: Iterable[tuple[str, str]]) -> Iterator[str]:
        yield "["
        yield ",".join(json.dumps(pair) for pair in outputs)
        yield "]"


class Fixed(Dataset):
    """Five samples of two users; the gold of sample n is n."""

    separation, split, hash, source = "user", "dev", "h", "five samples"

    def index(self) -> Sequence[tuple[str, str]]:
        return [(f"s{n}", f"u{n % 2}") for n in range(5)]

    def load(self, position: int) -> Sample:
        name, user = self.index()[position]
        return Sample(name, user, "how many?", references=(str(position),))


SPEC = RunSpec(
    "lengths", 1, {}, "user", "dev", True, "h", "m", "s", {}, {"name": "x"}, Sampling(), 0
)


def call(phase: Any, cached: bool = False, key: str = "k") -> Call:
    return Call(key, phase, cached, 10, 3, 0.25)


def line(name: str, output: str | None, error: str | None = None, **flags: float) -> Prediction:
    user = f"u{int(name[1]) % 2}"
    calls = (call("predict", key=name),)
    return Prediction(name, user, output, None, flags, calls, Usage(), error)


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[RunFolder]:
    made = RunFolder(tmp_path)
    made.start(SPEC)
    yield made
    made.close()


def score(
    folder: RunFolder, task: Task | None = None, positions: Sequence[int] = range(5)
) -> Summary:
    return score_run(
        folder,
        task or Lengths(),
        Fixed(),
        SPEC,
        positions,
        seconds=1.234,
        facts=RunFacts(fit="faithful"),
    )


def test_values_of_one_answer_under_every_scorer() -> None:
    sample = Fixed().load(3)
    values, unparsed = measure(Lengths(), "12", sample)
    assert values["official"]["error"] == 9 and values["lenient"]["error"] == 1 and not unparsed
    values, unparsed = measure(Lengths(), "abcd", sample)
    assert values["official"]["error"] == 6 and unparsed == {"official"}


def test_a_tally_aggregates_each_metric_its_own_way() -> None:
    tally = Tally(Lengths())
    assert tally.metrics() == {}
    for position, output in ((1, "4"), (2, "6")):
        tally.add(measure(Lengths(), output, Fixed().load(position))[0])
    assert tally.metrics()["official"] == {
        "error": 3.5,
        "rmse": pytest.approx(12.5**0.5),
        "pair": 4,
    }


def test_a_summary_counts_what_it_does_not_score(folder: RunFolder) -> None:
    for made in (
        line("s4", "4", retried=1),
        line("s0", None, "down"),
        line("s1", "none", truncated=2),
        line("s2", "", empty_output=1, fallback=3),
        line("s1", "2", retried=1, k=0.5),
    ):
        folder.append(folder.predictions_path, made)
    for key, cached in (("", False), ("p1", False), ("p2", True)):
        profile = Profile(
            "u", key, {}, (call("prepare" if not key else "profile", cached, key),), {"cut": 1}
        )
        folder.append(folder.profiles_path, profile)
    summary = score(folder)
    assert (summary.status, summary.n, summary.owed, summary.users) == (
        "incomplete",
        3,
        2,
        2,
    )
    assert summary.counters == {
        "cut": 3,
        "empty_output": 1,
        "fallback": 1,
        "k": 0.5,
        "parse_failures": 1,
        "request_errors": 1,
        "retried": 2,
    }
    assert summary.parse_failures == {"official": 1, "lenient": 0}
    assert summary.metrics["official"]["error"] == pytest.approx((0 + 1 + 7) / 3)
    assert summary.usage["prepare"] == Phase(1, 0, 10, 3, 0.25)
    assert summary.usage["profile"] == Phase(2, 1, 20, 6, 0.5)
    assert summary.usage["predict"].calls == 3 and summary.profiles == 2
    assert (summary.seconds, summary.fit, summary.fingerprint) == (
        1.23,
        "faithful",
        SPEC.fingerprint,
    )
    assert (summary.primary, summary.higher_is_better["error"]) == ("error", False)
    stored = json.loads(folder.summary_path.read_text())
    assert stored.pop("sha256") and stored == to_dict(summary)
    assert [found.sample_id for found in folder.scores()] == ["s1", "s2", "s4"]


def test_only_the_selected_samples_are_scored(folder: RunFolder) -> None:
    for number in range(5):
        folder.append(folder.predictions_path, line(f"s{number}", str(number)))
    summary = score(folder, positions=[3, 1])
    assert (summary.n, summary.users, summary.status) == (2, 1, "complete")
    assert [found.sample_id for found in folder.scores()] == ["s1", "s3"]


def test_scoring_again_gives_the_same_bytes(folder: RunFolder) -> None:
    for number in (3, 1, 4, 0, 2):
        folder.append(folder.predictions_path, line(f"s{number}", str(number)))
    score(folder)
    paths = (folder.scores_path, folder.summary_path)
    first = [path.read_bytes() for path in paths]
    score(folder, positions=[4, 3, 2, 1, 0])
    assert [path.read_bytes() for path in paths] == first


def test_a_run_without_predictions_has_no_metrics(folder: RunFolder) -> None:
    summary = score(folder)
    assert (summary.n, summary.owed, summary.metrics, summary.usage) == (0, 5, {}, {})


def test_a_submission_is_written_where_the_task_has_one(folder: RunFolder) -> None:
    for name, output in (("s2", "two"), ("s0", "nul"), ("s1", None)):
        folder.append(folder.predictions_path, line(name, output, None if output else "down"))
    score(folder)
    assert not (folder.path / "predictions.json").exists()
    score(folder, Submitting())
    assert json.loads((folder.path / "predictions.json").read_text()) == [
        ["s0", "nul"],
        ["s2", "two"],
    ]
    assert len(list(folder.scores())) == 2


def test_samples_without_references_are_counted_and_not_scored(folder: RunFolder) -> None:
    class Hidden(Fixed):
        def load(self, position: int) -> Sample:
            return super().load(position).view()

    for number in range(5):
        folder.append(folder.predictions_path, line(f"s{number}", str(number)))
    summary = score_run(folder, Submitting(), Hidden(), SPEC, range(5), seconds=0, facts=RunFacts())
    assert (summary.n, summary.metrics, list(folder.scores())) == (5, {}, [])
    assert len(json.loads((folder.path / "predictions.json").read_text())) == 5


def test_the_ledger_adds_up_by_phase() -> None:
    ledger = Ledger()
    ledger.add(
        [call("predict"), call("judge", cached=True, key="2"), call("predict", True, key="3")]
    )
    assert {
        phase: (amounts.calls, amounts.cached) for phase, amounts in ledger.usage().items()
    } == {
        "predict": (2, 1),
        "judge": (1, 1),
    }
