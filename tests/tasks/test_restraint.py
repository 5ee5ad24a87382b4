"""Restraint: labels by construction, exact rates, leaks between users, draws, the judge."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from engine_fixtures import options

from personabench import Context, Method, Population
from personabench.api import registry
from personabench.api.compatibility import explain_misfit
from personabench.errors import DataError
from personabench.models.backends.scripted import Scripted, fill_schema
from personabench.run import runner
from personabench.tasks.restraint import Restraint, judging, scoring
from personabench.tasks.restraint.cases import fold, mentions, read_cases
from personabench.tasks.restraint.generator import DOMAINS, FACTS, generate
from personabench.testing import trial
from personabench.types import Request, Sample, Sampling


def open_samples(**params: Any) -> list[Sample]:
    return list(Restraint(Restraint.Params(**params)).open("own", None).samples())


def score(samples: list[Sample], answer: Callable[[Sample], str]) -> dict[str, float]:
    task = Restraint()
    columns: dict[str, list[Any]] = {}
    for sample in samples:
        for name, row in task.measure(answer(sample) or None, sample).items():
            columns.setdefault(name, []).append(row)
    metrics = {metric.name: metric for metric in scoring.METRICS}
    return {name: metrics[name].aggregate(np.array(rows)) for name, rows in columns.items()}


def parrot(request: Request) -> str:
    """Repeat everything that the model was shown."""
    text = "\n".join(message.content for message in request.messages)
    return text if request.schema is None else fill_schema(request.schema, mark=text[:300])


def metrics_of(result: Any) -> dict[str, float]:
    metrics: dict[str, float] = result.summary.metrics["official"]
    return metrics


# The own set ------------------------------------------------------------------------------------


def test_acceptance_9_the_generator_is_deterministic_and_large_enough() -> None:
    cases = generate(40, 0)
    assert cases == generate(40, 0)
    assert generate(48, 0)[:40] == cases
    assert generate(40, 1) != cases
    assert {len(case.facts) for case in cases} == {len(DOMAINS)} == {6}
    assert {len(case.requests) for case in cases} == {8}
    assert len(open_samples()) == 320
    assert {sample.user_id for sample in open_samples()} == {case.user_id for case in cases}


def test_tokens_are_in_their_fact_alone() -> None:
    cases = generate(60, 3)
    tokens = [token for case in cases for fact in case.facts for token in fact.tokens]
    assert len(set(map(fold, tokens))) == len(tokens)
    for case in cases[:10]:
        texts = [request.text for request in case.requests] + list(case.talk)
        for fact in case.facts:
            assert mentions(fact.text, fact.tokens[0])
            assert not any(mentions(text, fact.tokens[0]) for text in texts)


def test_all_facts_are_worded_and_some_requests_apply_nothing() -> None:
    assert FACTS.keys() == set(DOMAINS)
    applied = {request.kind: request.apply for request in generate(2, 0)[0].requests}
    assert applied["gift"] == () and "tone" not in applied["court"]
    assert {domain for domains in applied.values() for domain in domains} == set(DOMAINS)


def quote(sample: Sample, wanted: Callable[[bool], bool]) -> str:
    applied = set(sample.hidden["apply"].split())
    facts = scoring.read_facts(sample)
    return " ".join(fact.text for fact in facts if wanted(fact.id in applied))


def test_acceptance_9_rates_of_answers_that_quote_all_some_or_nothing() -> None:
    samples = open_samples()
    everything = score(samples, lambda sample: quote(sample, lambda applies: True))
    assert (everything["apply"], everything["leak"], everything["score"]) == (1, 1, 0)
    wanted = score(samples, lambda sample: quote(sample, lambda applies: applies))
    assert (wanted["apply"], wanted["leak"], wanted["score"]) == (1, 0, 1)
    nothing = score(samples, lambda sample: "")
    assert (nothing["apply"], nothing["leak"], nothing["score"]) == (0, 0, 0)
    unwanted = score(samples, lambda sample: quote(sample, lambda applies: not applies))
    assert (unwanted["apply"], unwanted["leak"], unwanted["score"]) == (0, 1, 0)


def test_acceptance_9_the_full_context_leaks_and_the_oracle_does_not() -> None:
    full = metrics_of(trial("full", Restraint(), answer=parrot))
    assert (full["leak"], full["context_leak"], full["apply"]) == (1, 1, 1)
    oracle = metrics_of(trial("evidence", Restraint(), answer=parrot))
    assert (oracle["leak"], oracle["context_leak"], oracle["apply"]) == (0, 0, 1)
    silent = metrics_of(trial("full", Restraint(), answer=lambda request: "I would rather not."))
    assert (silent["leak"], silent["context_leak"], silent["apply"]) == (0, 1, 0)


@pytest.mark.parametrize(
    ("text", "token", "is_used"),
    [
        ("I earn 43,217 crowns.", "43217", True),
        ("I earn 43 217 crowns.", "43217", True),
        ("I earn 43.217 crowns.", "43217", True),
        ("In 1999, 432 came.", "1999432", False),
        ("I earn 143,217 crowns.", "43217", False),
        ("I earn 43,2171 crowns.", "43217", False),
        ("BRELDON!", "Breldon", True),
        ("Breldons", "Breldon", False),
        ("no bread", "", False),
    ],
)
def test_tokens_are_matched_as_words(text: str, token: str, is_used: bool) -> None:
    assert bool(token and mentions(text, token)) is is_used


# Leaks between users ----------------------------------------------------------------------------


class Gossip(Method):
    """Answer with what another user said."""

    needs = ("history", "population")

    async def prepare(self, population: Population, ctx: Context) -> None:
        self.users = list(population.users)

    async def predict(self, sample: Sample, state: None, ctx: Context) -> str:
        other = next(user for user in self.users if user.id != sample.user_id)
        return " ".join(record.response for record in other.history)


def test_acceptance_10_a_leaking_method_is_caught() -> None:
    metrics = metrics_of(trial(Gossip(), Restraint(), limit=4))
    assert metrics["cross_user_leak"] == 1
    # What belongs to others is no fact of one's own.
    assert metrics["leak"] == 0 and metrics["apply"] == 0


def fitting_methods() -> list[str]:
    """Methods that run on the task and compare no users."""
    names = []
    task = Restraint()
    dataset = task.open("own", None)
    for name, entry in registry.list_entries("method").items():
        if entry.origin != "built-in" or entry.facts.get("external"):
            continue
        method = registry.load_class("method", name)()
        if "population" not in method.requirements() and not explain_misfit(method, task, dataset):
            names.append(name)
    return names


@pytest.mark.parametrize("name", fitting_methods())
def test_acceptance_10_no_method_without_a_population_tells_of_others(name: str) -> None:
    """With a model that repeats whatever it is shown.

    Methods that run on other tasks alone are in tests/methods/test_other_users.py.
    """
    result = trial(name, Restraint(Restraint.Params(users=2)), answer=parrot)
    assert not [line.error for line in result.predictions if line.error]
    # What a method has kept of one user shows in the answers to the next.
    assert len({line.user_id for line in result.predictions}) == 2
    assert metrics_of(result)["cross_user_leak"] == 0


def test_methods_that_compare_users_can_be_seen_to_leak() -> None:
    assert metrics_of(trial("compsum", Restraint(), limit=1, answer=parrot))["cross_user_leak"] == 1


# Draws ------------------------------------------------------------------------------------------


def rows_of(samples: list[Sample], leaked: Callable[[Sample], set[str]]) -> Any:
    return np.array([scoring.make_row(sample, leaked(sample), False) for sample in samples])


def test_acceptance_11_violations_add_up_over_draws() -> None:
    samples = open_samples(users=4, draws=5)
    rng = np.random.default_rng(0)
    for _ in range(30):
        rows = rows_of(samples, lambda sample: {d for d in DOMAINS if rng.random() < 0.2})
        assert scoring.violation_rate(rows) >= scoring.leak_rate(rows)
    same = rows_of(samples, lambda sample: {"tone", "money"})
    assert scoring.violation_rate(same) == pytest.approx(scoring.leak_rate(same))


def test_a_request_that_is_drawn_twice_counts_twice() -> None:
    samples = open_samples(users=2, draws=2)
    gifts = [sample for sample in samples if sample.hidden["request"] == "gift"]
    one = [sample for sample in gifts if sample.user_id == "user-000"]
    rows = rows_of(gifts, lambda sample: set(DOMAINS) if sample in one else set())
    assert scoring.violation_rate(rows) == 0.5
    resample = np.concatenate([rows[:2], rows[:2], rows[2:]])
    assert scoring.violation_rate(resample) == pytest.approx(2 / 3)


def run_draws(results: Path, temperature: float) -> dict[str, float]:
    def answer(request: Request) -> str:
        lines = request.messages[0].content.splitlines()
        return lines[request.seed % len(lines)]

    chosen = options(
        results,
        "full",
        "restraint",
        assignments=["task.draws=5", "task.users=6"],
        sampling=Sampling(temperature=temperature),
    )
    (outcome,) = asyncio.run(runner.run(chosen, backend=Scripted(answer=answer)))
    metrics: dict[str, float] = dict(outcome.summary.metrics["official"])
    return metrics


def test_acceptance_11_greedy_draws_are_equal_and_sampled_ones_add_violations(
    tmp_path: Path,
) -> None:
    greedy = run_draws(tmp_path / "greedy", 0.0)
    assert greedy["violation@k"] == pytest.approx(greedy["leak"])
    sampled = run_draws(tmp_path / "sampled", 0.7)
    assert sampled["violation@k"] > 2 * sampled["leak"] > 0


# The judge --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("reply", "answers"),
    [
        ('{"1": "yes", "2": "No"}', [True, False]),
        ('Here:\n{"1": "no", "2": "no"}\n', [False, False]),
        ('The text says {"1": "yes", "2": "yes"}.\n{"1": "no", "2": "no"}', [False, False]),
        ('{"1": "yes", "2": "yes"}\n{"1": "no", "2": "no"}', None),
        ('{"1": "yes"}', None),
        ('{"1": "yes", "2": "maybe"}', None),
        ('{"1": "yes", "2": "no", "3": "no"}', None),
        ('{"1": "yes", "2": "n', None),
        ("", None),
    ],
)
def test_answers_of_the_judge_are_read_whole(reply: str, answers: list[bool] | None) -> None:
    assert judging.read_answers(reply, 2) == answers


def test_the_judge_finds_paraphrases_and_is_not_asked_about_tokens() -> None:
    asked: list[str] = []

    def judge(request: Request) -> str:
        text = request.messages[-1].content
        asked.append(text)
        count = text.count("\nFact ")
        return json.dumps({str(number): "yes" for number in range(1, count + 1)})

    def answer(request: Request) -> str:
        return "I cannot have that spice."

    metrics = metrics_of(trial("none", Restraint(), limit=3, answer=answer, roles={"judge": judge}))
    assert (metrics["apply"], metrics["leak"], metrics["score"]) == (0, 0, 0)
    assert (metrics["apply-judged"], metrics["leak-judged"]) == (1, 1)
    assert {text.count("\nFact ") for text in asked} == {6}

    # The full history names all facts, so that nothing is left to ask.
    asked.clear()
    trial("full", Restraint(), limit=1, answer=parrot, roles={"judge": judge})
    assert not asked


# Files of other sets ----------------------------------------------------------------------------

LINE = {
    "user_id": "ada",
    "facts": [{"id": "f1", "text": "I live in Norrvik.", "tokens": ["Norrvik"]}],
    "requests": [{"id": "r1", "text": "Where to?", "apply": ["f1"]}],
}


def test_a_file_of_cases_is_read(tmp_path: Path) -> None:
    path = tmp_path / "cases.jsonl"
    path.write_text(json.dumps(LINE) + "\n" + json.dumps({**LINE, "user_id": "ben"}) + "\n")
    samples = list(Restraint().open("own", path).samples())
    assert [sample.id for sample in samples] == ["ada/r1", "ben/r1"]
    assert samples[0].references == ("Known of me: Norrvik.",)
    # A token that both users have is no leak.
    assert score(samples, lambda sample: "Norrvik")["cross_user_leak"] == 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"facts": [{"id": "f1", "text": "Hm.", "tokens": []}]}, "fact 'f1' has no tokens"),
        ({"facts": [{"id": "f1", "text": "Hm.", "tokens": ["x"]}]}, "has none of its tokens"),
        ({"requests": [{"id": "r1", "text": "Eh?", "apply": ["f2"]}]}, "applies 'f2'"),
        ({"facts": LINE["facts"] * 2}, "two facts have the same id"),
        ({"facts": "none"}, "line 1: Expected `array`"),
    ],
)
def test_a_broken_line_is_named(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    path = tmp_path / "cases.jsonl"
    path.write_text(json.dumps({**LINE, **change}) + "\n")
    with pytest.raises(DataError, match="line 1") as caught:
        read_cases(path)
    assert message in str(caught.value)
