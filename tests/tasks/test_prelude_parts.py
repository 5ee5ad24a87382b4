"""PRELUDE's files and numbers, by the numbers of its acceptance list."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from personabench.api import registry
from personabench.errors import DataError, UsageError
from personabench.leaderboard.estimates import MIN_USERS
from personabench.metrics.edits import Edit, edit_cost, measure_edit
from personabench.models.tokens import EstimatedTokens
from personabench.tasks.prelude import INTERVAL_TRAJECTORIES, PreludeEmail, PreludeSumm, scoring
from personabench.tasks.prelude.data import (
    Document,
    draw_trajectory,
    read_documents,
    read_preferences,
)
from personabench.tasks.prelude.rules import BASE


def write_folder(data: Path, *, documents: int = 6, **changed: Any) -> Path:
    """Two sources with some documents each, and a preference file."""
    data.mkdir(parents=True, exist_ok=True)
    for source in ("alpha", "beta"):
        rows = [
            {"doc_id": f"{source}{n}", "text": f" Note {n} on {source}. \n", "more": 1}
            for n in range(documents)
        ]
        (data / f"{source}.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n")
    sources = [
        {"name": "alpha", "preference": "short, dry", "rules": ["all lower case"]},
        {"name": "beta", "preference": "like a letter", "rules": ["opens with a greeting"]},
    ]
    (data / "summ.json").write_text(json.dumps({"env": "summ", "sources": sources} | changed))
    return data


# 1, metrics


def test_acceptance_1_costs_beside_lengths() -> None:
    edit = measure_edit(BASE, BASE + " What do you think?")
    assert edit == Edit(5, 12, 17)
    assert (edit.per_draft_token, edit.per_longer_text) == (
        5 / 12,
        5 / 17,
    )
    assert (measure_edit("", "").per_draft_token, measure_edit("", "").per_longer_text) == (0, 0)
    assert measure_edit("", "a b") == Edit(2, 0, 2)
    assert measure_edit("", "a b").per_draft_token == 2
    assert edit_cost(BASE, "") == edit_cost("", BASE) == 12


def test_too_few_trajectories_for_an_interval_are_announced() -> None:
    assert MIN_USERS == INTERVAL_TRAJECTORIES
    (warning,) = PreludeSumm(PreludeSumm.Params(user="rule")).open("all", None).warnings
    assert "3 trajectories are too few" in warning and "task.trajectories=6" in warning
    assert not PreludeSumm(PreludeSumm.Params(trajectories=6)).open("all", None).warnings


def test_cumulative_cost_is_the_mean_total_of_trajectories() -> None:
    rows = np.array([[3, 0.5], [1, 0.5], [10, 0.5], [0, 0.5]])
    assert scoring.average_total_cost(rows) == 7.0
    assert scoring.average_total_cost(rows[[0, 1, 0, 1]]) == 4.0


LIKED = ("bullet points", "a letter to a friend")


def make_record(preference: str = "", true: str = LIKED[0], **changed: Any) -> dict[str, Any]:
    fields = {
        "cost": 3,
        "draft_tokens": 6,
        "final_tokens": 12,
        "rounds": 4,
        "decision": "rewritten",
        "preference": true,
    }
    return fields | {"method": {"preference": preference}} | changed


def test_accuracy_is_the_nearest_true_preference_and_needs_a_preference() -> None:
    values = scoring.measure_round(make_record(), LIKED, "wordllama")
    assert values == {
        "cumulative_cost": [3, 0.25],
        "cost_per_draft_token": 0.5,
        "cost_per_longer_text": 0.25,
        "draft_tokens": 6,
        "accepted": 0.0,
        "preference_coverage": 0.0,
    }
    same_source, other_source = (
        scoring.measure_round(make_record("a list of bullet points", true), LIKED, "wordllama")
        for true in LIKED
    )
    assert (
        same_source["preference_accuracy_wordllama"],
        other_source["preference_accuracy_wordllama"],
    ) == (
        1.0,
        0.0,
    )
    tied = scoring.measure_round(make_record("letters", "x"), ("x", "x"), "wordllama")
    assert tied["preference_accuracy_wordllama"] == 0.0
    assert "preference_accuracy_wordllama" not in scoring.measure_round(
        make_record("letters"), LIKED, "off"
    )


def test_accuracy_after_learning_is_reported_beside_that_of_the_draft() -> None:
    used, true = LIKED[:2]

    def measure(**notes: str | None) -> tuple[float | None, float | None]:
        record = {**make_record(used, true), "method": notes}
        values = scoring.measure_round(record, LIKED, "wordllama")
        names = ("preference_accuracy_wordllama", "learned_accuracy_wordllama")
        return tuple(values.get(name) for name in names)  # type: ignore[return-value]

    # An edit taught the true preference, after a draft with another one or with none.
    assert measure(preference=used, inferred=true) == (0.0, 1.0)
    assert measure(preference="", inferred=true) == (None, 1.0)
    # Nothing was inferred, so the method still holds the preference of the draft.
    assert measure(preference=used, inferred=None) == (0.0, 0.0)
    assert measure(preference=true) == (1.0, 1.0)
    assert measure(preference="", inferred="") == (None, None)

    metric_names = [metric.name for metric in PreludeSumm().metrics]
    assert metric_names[-2:] == ["preference_accuracy_wordllama", "learned_accuracy_wordllama"]


def forget_bertscore() -> None:
    """Forget the model and its scores, as a new process does."""
    scoring._load_bertscore.cache_clear()  # noqa: SLF001
    scoring._compare_by_bertscore.cache_clear()  # noqa: SLF001


def test_bertscore_is_only_called_so_when_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    forget_bertscore()
    monkeypatch.setitem(sys.modules, "bert_score", None)
    with pytest.raises(UsageError, match="pip install bert-score"):
        scoring.measure_round(make_record("letters"), LIKED, "bertscore")

    class BERTScorer:
        def __init__(self, lang: str) -> None:
            assert lang == "en"

        def score(self, candidates: list[str], references: list[str]) -> tuple[list[float], ...]:
            return (
                [],
                [],
                [
                    float(candidate == reference)
                    for candidate, reference in zip(candidates, references, strict=True)
                ],
            )

    monkeypatch.setitem(sys.modules, "bert_score", SimpleNamespace(BERTScorer=BERTScorer))
    values = scoring.measure_round(make_record(LIKED[1], LIKED[1]), LIKED, "bertscore")
    assert values["preference_accuracy_bertscore"] == 1.0
    forget_bertscore()
    metric_names = [
        metric.name for metric in PreludeSumm(PreludeSumm.Params(accuracy="bertscore")).metrics
    ]
    assert "preference_accuracy_bertscore" in metric_names
    assert "preference_accuracy_wordllama" not in metric_names


# Files


def test_a_folder_of_ones_own_is_read(tmp_path: Path) -> None:
    data = PreludeSumm(PreludeSumm.Params(rounds=9, trajectories=2)).open(
        "all", write_folder(tmp_path)
    )
    assert len(data.index()) == 16
    assert len({name for name, _ in data.index()}) == 16
    assert "9 rounds do not divide by 2 sources: a trajectory has 8" in data.warnings[0]
    first = data.load(0)
    assert first.hidden["preference"] in ("short, dry", "like a letter")
    assert first.stimulus == str(first.stimulus).strip()
    assert first.view().hidden == {}
    assert first.view(privileged=True).hidden == first.hidden
    assert "alpha" not in first.id
    assert "beta" not in first.id
    assert not first.history
    assert not data.sample
    fewer_rounds = PreludeSumm(PreludeSumm.Params(rounds=8, trajectories=2)).open(
        "all", write_folder(tmp_path)
    )
    assert (
        fewer_rounds.hash
        == data.hash
        != PreludeSumm(PreludeSumm.Params(rounds=8)).open("all", tmp_path).hash
    )


def test_preferences_come_from_the_file_named_then_the_folder_then_the_sample(
    tmp_path: Path,
) -> None:
    data_folder = write_folder(tmp_path / "data")
    (data_folder / "summ.json").rename(tmp_path / "mine.json")
    with pytest.raises(DataError, match=r"news_article\.jsonl does not exist"):
        PreludeSumm().open("all", data_folder)
    params = PreludeSumm.Params(preferences=str(tmp_path / "mine.json"), rounds=4)
    assert len(PreludeSumm(params).open("all", data_folder).index()) == 12
    (data_folder / "summ.yaml").write_text(
        "env: summ\nsources:\n- {name: beta, preference: 'in\n    one line'}\n"
    )
    data = PreludeSumm(PreludeSumm.Params(rounds=2)).open("all", data_folder)
    assert {sample.hidden["preference"] for sample in data.samples()} == {"in one line"}
    with pytest.raises(UsageError, match="no such file"):
        PreludeSumm(PreludeSumm.Params(preferences="nowhere.json")).open("all", data_folder)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"env": "email"}, "env is 'email'"),
        ({"sources": []}, "named once each"),
        ({"sources": [{"name": "alpha", "preference": " "}]}, "'alpha' has no preference"),
        ({"sources": [{"name": "alpha", "preference": "x"}] * 2}, "named once each"),
        ({"sources": [{"name": "alpha", "wish": "x"}]}, "not a preference file"),
    ],
)
def test_a_preference_file_that_cannot_work_is_refused(
    tmp_path: Path, changed: dict[str, Any], message: str
) -> None:
    write_folder(tmp_path, **changed)
    with pytest.raises(DataError, match=message):
        read_preferences(tmp_path / "summ.json", "summ")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"doc_id": "beta9", "text": " "}', "empty"),
        ('{"doc_id": "beta0", "text": "again"}', "is repeated"),
        ('{"doc_id": "beta9"}', "text"),
        ("nonsense", "line 7"),
    ],
)
def test_documents_that_cannot_work_are_refused(tmp_path: Path, line: str, message: str) -> None:
    folder = write_folder(tmp_path)
    with (folder / "beta.jsonl").open("a") as file:
        file.write(line + "\n")
    with pytest.raises(DataError, match=message):
        read_documents(folder / "beta.jsonl")


def test_too_few_documents_and_rules_that_are_missing_are_refused(tmp_path: Path) -> None:
    folder = write_folder(tmp_path, documents=3)
    with pytest.raises(DataError, match=r"has 3 documents; 200 rounds take 100.*task.rounds=6"):
        PreludeSumm().open("all", folder)
    with pytest.raises(UsageError, match="at least one of each"):
        PreludeSumm(PreludeSumm.Params(rounds=1)).open("all", folder)
    write_folder(folder, documents=3, sources=[{"name": "alpha", "preference": "x"}])
    with pytest.raises(DataError, match="has no rules"):
        PreludeSumm(PreludeSumm.Params(user="rule", rounds=2)).open("all", folder)
    with pytest.raises(UsageError, match="one split"):
        PreludeSumm().open("dev", folder)


def test_acceptance_8_a_share_of_each_source_in_a_seeded_order() -> None:
    documents = [[Document(f"{source}{n}", "x") for n in range(50)] for source in "abc"]
    trajectory = draw_trajectory(documents, 31, seed=4)
    assert len(trajectory) == 30
    assert [
        sum(drawn_source == source for drawn_source, _ in trajectory) for source in range(3)
    ] == [10, 10, 10]
    assert len({document.doc_id for _, document in trajectory}) == 30
    assert (
        trajectory
        == draw_trajectory(documents, 31, seed=4)
        != draw_trajectory(documents, 31, seed=5)
    )
    assert [drawn_source for drawn_source, _ in trajectory] != sorted(
        drawn_source for drawn_source, _ in trajectory
    )


@pytest.mark.parametrize(("cls", "rounds"), [(PreludeSumm, 40), (PreludeEmail, 32)])
@pytest.mark.parametrize("kind", ["llm", "rule"])
def test_the_example_data_opens(cls: Any, rounds: int, kind: Any) -> None:
    task = cls(cls.Params(user=kind))
    data = task.open(task.default_split, None)
    assert len(data.index()) == 3 * rounds
    assert data.sample
    (warning,) = data.warnings
    assert "too few for an interval" in warning
    assert len({sample.hidden["preference"] for sample in data.samples()}) == rounds // 8
    assert task.roles == (("simulator",) if kind == "llm" else ())


def test_documents_are_cut_only_when_asked_to() -> None:
    sample = PreludeSumm().open("all", None).load(0)
    whole = PreludeSumm().render(sample, (), "", EstimatedTokens())
    (message,) = whole.messages
    assert message.content == f"{sample.input}\n\n{PreludeSumm.words.instruction}"
    assert whole.flags == {}
    cut = PreludeSumm(PreludeSumm.Params(document_tokens=10)).render(
        sample, (), "Prefers: x", EstimatedTokens()
    )
    assert cut.messages[-1].content.startswith(
        f"Summarise this document.\n\n{str(sample.stimulus)[:30]}\n\nWrite the"
    )
    assert cut.flags == {"documents_cut": 1}
    assert "Prefers: x" in cut.messages[0].content


async def test_a_weak_user_applies_a_seeded_part_of_the_preference() -> None:
    data = PreludeSumm().open("all", None)
    task = PreludeSumm(PreludeSumm.Params(user="weak"))
    parts = []
    for sample in list(data.samples())[:12]:
        part = task.weaken_preference(sample, "one, two, three", 0)
        assert part == task.weaken_preference(sample, "one, two, three", 0)
        assert set(part.split(", ")) <= {
            "one",
            "two",
            "three",
        }
        parts.append(part)
    assert len(set(parts)) > 3


def test_the_tasks_are_on_offer_with_what_they_offer() -> None:
    for name in ("prelude_summ", "prelude_email"):
        entry = registry.list_entries("task")[name]
        assert (
            entry.facts["offers"]
            == registry.load_class("task", name).offers
            == ("feedback", "preference")
        )
