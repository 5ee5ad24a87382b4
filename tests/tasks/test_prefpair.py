"""Preference pairs: both orders, hidden facts, and users who judged the same."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from prefpair_files import EXAMPLE, edit, metrics_of, psoups_row, text_of

from personabench import Record, comparison_record, rejected_responses
from personabench.leaderboard.run_comparison import compare_runs
from personabench.results.index import read_runs
from personabench.run import runner
from personabench.run.controls import apply_control
from personabench.tasks.prefpair import CommunityAlignment, PersonalLLM, Prism, Psoups, scoring
from personabench.tasks.prefpair.comparison import Agreement, Comparison
from personabench.testing import trial
from personabench.types import Request, Sample

TASKS = (Psoups, Prism, CommunityAlignment, PersonalLLM)


def choose_shortest(request: Request) -> str:
    """Name the shortest response, whatever its place."""
    _, _, after = text_of(request).rpartition("\n\n(A) ")
    blocks = "(A) " + after.partition("\n\nWhich of these")[0]
    options: dict[str, str] = {}
    for line in blocks.split("\n"):
        options[line[1]] = line[4:]
    return min(options, key=lambda letter: (len(options[letter]), options[letter]))


# Comparisons as records -------------------------------------------------------------------------


def test_a_comparison_shows_what_was_preferred_and_what_was_not_but_no_score() -> None:
    record = comparison_record("Tea?", "Yes 🍵", ["No", "Later"], score="91", reason="It is warm.")
    task = Psoups()
    assert rejected_responses(record) == ("No", "Later")
    assert task.describe(record) == (
        "Prompt: Tea?\nPreferred: Yes 🍵\nNot preferred: No\nNot preferred: Later\n"
        "Reason: It is warm."
    )
    assert task.document_text(record) == "Tea?\nYes 🍵"


@pytest.mark.parametrize("content", ["", "no list", "[1]", "[broken"])
def test_a_field_of_that_name_by_chance_is_no_comparison(content: str) -> None:
    record = Record(stimulus="Tea?", response="Yes", fields={"rejected": content})
    assert rejected_responses(record) == ()
    assert Psoups().describe(record).endswith(": Yes")


# Both orders ------------------------------------------------------------------------------------


@pytest.mark.parametrize("task", TASKS)
def test_an_answer_by_place_has_chance_accuracy_and_nothing_strict(task: Any) -> None:
    metrics = metrics_of(trial("none", task(), answer=lambda request: "A"))
    assert (metrics["strict"], metrics["flip"], metrics["first-share"]) == (0.0, 1.0, 1.0)
    if task in (Psoups, Prism):
        assert metrics["accuracy"] == 0.5


def test_an_answer_by_content_never_flips() -> None:
    metrics = metrics_of(trial("none", Psoups(), answer=choose_shortest))
    assert metrics["flip"] == 0.0
    assert metrics["first-share"] == 0.5
    assert metrics["accuracy"] == metrics["strict"]
    assert metrics["accuracy"] == metrics_of(trial("shortest_option", Psoups()))["accuracy"]


@pytest.mark.parametrize("answer", ["", "both", "A or B", "The answer is A. The answer is B."])
def test_an_unparsed_answer_is_wrong_and_counted(answer: str) -> None:
    result = trial("none", Psoups(), answer=lambda request: answer)
    metrics = metrics_of(result)
    assert (metrics["accuracy"], metrics["strict"], metrics["flip"]) == (0.0, 0.0, 0.0)
    assert {line.parsed for line in result.predictions} == {None}
    assert len(result.predictions) == 72


def measured(picks: Sequence[tuple[str, str]]) -> Mapping[str, float]:
    """Metrics of pairs with the gold text "good", by the texts chosen in the two orders."""
    rows: dict[str, list[Any]] = {}
    for number, chosen in enumerate(picks):
        for order, text in enumerate(chosen):
            choices = ("good", "bad") if order == 0 else ("bad", "good")
            hidden = {"comparison": f"c{number}", "order": str(order), "orders": "2"}
            sample = Sample(references=("good",), choices=choices, hidden=hidden)
            for name, value in scoring.measure(text or None, sample).items():
                rows.setdefault(name, []).append(value)
    return {m.name: m.aggregate(np.array(rows[m.name], dtype=float)) for m in scoring.METRICS}


def test_strict_mean_and_flip_by_hand() -> None:
    picks = [("good", "good"), ("good", "bad"), ("bad", "good"), ("bad", "bad")]
    metrics = measured(picks)
    assert (metrics["strict"], metrics["accuracy"], metrics["flip"]) == (0.25, 0.5, 0.5)
    # An answer in one order alone is no steady choice.
    assert measured([("good", ""), ("", "")])["flip"] == 0.5


def test_accuracy_by_prompt_has_an_interval_over_prompts() -> None:
    result = trial("shortest_option", Psoups())
    metrics = metrics_of(result)
    assert metrics["accuracy-by-prompt"] == metrics["accuracy"]
    numbers: dict[str | None, set[float]] = {}
    for sample in Psoups().open("all", None).samples():
        row = scoring.measure(sample.references[0], sample)["accuracy-by-prompt"]
        assert isinstance(row, list) and row[0] == 1.0
        numbers.setdefault(sample.stimulus, set()).add(row[1])
    # One unit for all samples of a prompt, whoever judged it, and another for each prompt.
    assert all(len(units) == 1 for units in numbers.values())
    assert len(set.union(*numbers.values())) == len(numbers) > 6


@pytest.mark.usefixtures("few_draws")
def test_compare_of_two_users_has_an_interval_over_their_prompts(tmp_path: Path) -> None:
    rows = [psoups_row(f"Question {number}?", persona=number % 2) for number in range(12)]
    path = tmp_path / "pair.json"
    path.write_text(json.dumps(rows))
    results = tmp_path / "results"
    for method in ("longest_option", "first_option"):
        chosen = runner.Options(
            [method], ["psoups"], backend="scripted", data=path, results=results
        )
        asyncio.run(runner.run(chosen))
    comparison = compare_runs(*read_runs(results))
    metrics = comparison.metrics
    assert comparison.users == 2
    assert metrics["accuracy"].gain.low is None
    assert metrics["accuracy-by-prompt"].gain.low is not None


def test_a_resample_weighs_a_comparison_as_often_as_it_occurs() -> None:
    twice = measured([("good", "good"), ("good", "good"), ("bad", "good")])
    assert twice["strict"] == pytest.approx(2 / 3)
    rows = np.array([[0, 0, 1], [0, 1, 1], [0, 0, 1], [0, 1, 1], [1, 0, 0], [1, 1, 1]], dtype=float)
    assert scoring.strict_accuracy(rows) == pytest.approx(2 / 3)


def test_a_comparison_that_a_limit_cuts_has_no_strict_value() -> None:
    assert np.isnan(scoring.strict_accuracy(np.array([[5.0, 0.0, 1.0]])))
    metrics = metrics_of(trial("none", Psoups(), limit=3, answer=lambda request: "A"))
    assert metrics["flip"] == 1.0


def test_one_order_has_half_the_samples_and_no_flip() -> None:
    both = list(Psoups().open("all", None).samples())
    task = Psoups(Psoups.Params(orders=1))
    single = list(task.open("all", None).samples())
    assert [sample.choices for sample in single] == [sample.choices for sample in both[::2]]
    assert "flip" not in metrics_of(trial("none", task, answer=lambda request: "A"))


@pytest.mark.parametrize("orders", [1, 2])
def test_the_preferred_response_stands_at_each_place_alike(tmp_path: Path, orders: Any) -> None:
    rows = [psoups_row(f"Question {number}?", persona=number % 2) for number in range(1_000)]
    path = tmp_path / "many.json"
    path.write_text(json.dumps(rows))
    task = Psoups(Psoups.Params(orders=orders))
    samples = list(task.open("all", path).samples())
    first = sum(sample.choices[0] == sample.references[0] for sample in samples)
    assert 0.45 < first / len(samples) < 0.55
    path.write_text(json.dumps(rows[:10]))
    some = list(task.open("all", path).samples())
    by_id = {sample.id: sample.choices for sample in samples}
    assert all(by_id[sample.id] == sample.choices for sample in some)


# Hidden facts -----------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["none", "full", "rag", "summary"])
def test_hidden_facts_of_psoups_reach_no_request(tmp_path: Path, method: str) -> None:
    rows = [psoups_row(f"Question {number}?", persona=number % 2) for number in range(4)]
    for row in rows:
        row["ground_truth_persona"] += " SENTINEL"
        row["Preference Direction"] = ["SENTINEL"]
        row["Demographic Information"] = "SENTINEL"
    path = tmp_path / "rows.json"
    path.write_text(json.dumps(rows))
    task = Psoups()
    result = trial(method, task, dataset=task.open("all", path), answer=lambda request: "A")
    assert result.requests
    assert not any("SENTINEL" in text_of(request) for request in result.requests)


@pytest.mark.parametrize("method", ["none", "full", "rag", "summary"])
def test_names_and_scores_of_models_reach_no_request(tmp_path: Path, method: str) -> None:
    shutil.copytree(EXAMPLE / "prism", tmp_path / "prism")

    def mark(row: dict[str, Any]) -> None:
        row.update(model_name=f"SENTINEL {row['model_name']}", model_provider="SENTINEL")
        # Scores that no text contains.
        row["score"] += 0.70707

    edit(tmp_path / "prism" / "utterances.jsonl", mark)
    edit(
        tmp_path / "prism" / "conversations.jsonl", lambda row: row.update(open_feedback="SENTINEL")
    )
    task = Prism()
    result = trial(method, task, dataset=task.open("all", tmp_path), answer=lambda request: "A")
    assert result.requests
    for request in result.requests:
        assert "SENTINEL" not in text_of(request)
        assert "70707" not in text_of(request)
        assert "if_chosen" not in text_of(request)


@pytest.mark.parametrize("task", [Psoups, Prism])
def test_profiles_are_shown_on_demand_only(task: Any) -> None:
    shown = {
        value: list(task(task.Params(self_description=value)).open("all", None).samples())
        for value in ("off", "on")
    }
    assert not any("about themself" in sample.input for sample in shown["off"])
    assert all("about themself" in sample.input for sample in shown["on"])


# Users who judged the same ----------------------------------------------------------------------


def test_agreement_and_the_ceiling_of_one_answer_for_all_by_hand() -> None:
    def vote(user: str, chosen: str, prompt: str = "Tea?") -> Comparison:
        other = "no" if chosen == "yes" else "yes"
        return Comparison(f"{user}-{prompt}", user, prompt, (chosen, other), ())

    agreement = Agreement()
    agreement.add(vote("u1", "yes"))
    assert agreement.describe() is None
    for user, chosen in (("u2", "yes"), ("u3", "no"), ("u1", "yes")):
        agreement.add(vote(user, chosen))
    agreement.add(vote("u1", "no", "Coffee?"))
    # One of three pairs agrees, and two of three users prefer the majority's.
    text = str(agreement.describe())
    assert text.startswith("1 prompts with the same responses")
    assert "agree in 33.3%" in text and "right in 66.7% at most" in text


@pytest.mark.parametrize("task", [CommunityAlignment, PersonalLLM, Psoups])
def test_a_shuffled_history_is_another_users_of_the_same_prompts(task: Any) -> None:
    dataset = task().open("all", None)
    shuffled = apply_control(dataset, "shuffled", seed=0)
    shared = borrowed = different = 0
    for position in range(len(dataset.index())):
        own, other = dataset.load(position), shuffled.load(position)
        assert other.history_owner not in (own.user_id, None)
        preferences = {record.stimulus: record.response for record in own.history}
        for record in other.history:
            assert record.stimulus != own.stimulus
            borrowed += 1
            shared += record.stimulus in preferences
            different += preferences.get(record.stimulus) != record.response
        assert len(other.history) <= len(own.history)
    assert shared / borrowed > 0.8
    assert different / borrowed > 0.5


def test_a_shuffled_history_of_dated_comparisons_is_no_newer_than_the_question() -> None:
    dataset = Prism().open("all", None)
    shuffled = apply_control(dataset, "shuffled", seed=0)
    for position in range(len(dataset.index())):
        sample = shuffled.load(position)
        assert all((record.time or "") <= (sample.time or "") for record in sample.history)


def test_who_prefers_the_same_throughout_lends_nothing(tmp_path: Path) -> None:
    rows = [psoups_row("Why?", persona=0), psoups_row("Why?", persona=1)]
    path = tmp_path / "rows.json"
    path.write_text(json.dumps(rows))
    # Both have the same four comparisons, so that neither is another user for the other.
    shuffled = apply_control(Psoups().open("all", path), "shuffled", seed=0)
    assert not any(sample.history for sample in shuffled.samples())
    assert shuffled.flags(0) == {"no_donor": 1.0}
