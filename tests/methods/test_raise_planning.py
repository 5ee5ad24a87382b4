"""The planners of raise: greedy selection and tree search, alone and with a scripted model."""

from __future__ import annotations

import asyncio
import json
import random
import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from engine_fixtures import options

from personabench import Request, UsageError
from personabench.methods.raise_ import SCORES, Raise, read_ranking
from personabench.methods.raise_planning import (
    Rewards,
    TreeSearch,
    compute_epsilon,
    plan_greedily,
    weigh_ranks,
)
from personabench.models.backends.scripted import Scripted
from personabench.run import runner
from personabench.run.plan import plan
from personabench.testing import trial
from personabench.testing.trials import Trial

NAMES = tuple("abcdefgh")
Worth = Callable[[frozenset[str]], float | None]


class Bench:
    """Sets of attributes with a worth, and the sets that were judged and ranked."""

    def __init__(self, worth: Worth) -> None:
        self.worth = worth
        self.judged: list[frozenset[str]] = []
        self.ranked: list[frozenset[str]] = []
        self.rewards = Rewards(self.judge)

    async def judge(self, names: frozenset[str]) -> float | None:
        self.judged.append(names)
        return self.worth(names)

    async def rank(self, names: frozenset[str]) -> dict[str, float]:
        self.ranked.append(names)
        return weigh_ranks([name for name in NAMES if name not in names])

    def search(self, rollouts: int = 300, depth: int = 3, seed: int = 0) -> tuple[str, ...]:
        search = TreeSearch(
            NAMES,
            depth,
            self.rewards,
            self.rank,
            rollouts=rollouts,
            exploration=0.5,
            rng=random.Random(seed),
        )
        return asyncio.run(search.run())

    def greedy(self, depth: int = 3) -> tuple[str, ...]:
        return asyncio.run(plan_greedily(NAMES, depth, self.rewards))


def trap(names: frozenset[str]) -> float:
    """ "a" helps at once; "g" and "h" help together only, and more."""
    return 5.0 if {"g", "h"} <= names else 2.0 + ("a" in names)


def test_the_tree_finds_the_pair_where_greedy_selection_is_trapped() -> None:
    assert Bench(trap).greedy() == ("a",)
    assert {"g", "h"} <= set(Bench(trap).search())


def test_of_equally_good_sets_the_one_with_the_fewest_questions_is_taken() -> None:
    rewards = Bench(trap).rewards

    async def judge() -> None:
        for path in ("agh", "hg", "bgh", "gh", "a"):
            await rewards.of(path)

    asyncio.run(judge())
    # As it was reached first, in whichever order.
    assert rewards.best_path() == ("h", "g")


def test_no_set_is_judged_or_ranked_twice_in_whichever_order_it_is_reached() -> None:
    bench = Bench(trap)
    bench.search(rollouts=500)
    assert max(Counter(bench.judged).values()) == max(Counter(bench.ranked).values()) == 1
    # Sets of at most 3 of 8; those of full depth have nothing left to rank.
    assert len(bench.judged) <= 1 + 8 + 28 + 56 and len(bench.ranked) <= 1 + 8 + 28


def test_a_rollout_judges_two_sets_and_ranks_one_at_most() -> None:
    bench = Bench(trap)
    bench.search(rollouts=1)
    assert bench.ranked == [frozenset()]
    # By the ranking, or at random, to full depth.
    assert [len(names) for names in bench.judged] == [0, 3]
    for rollouts in (5, 20):
        bench = Bench(trap)
        bench.search(rollouts=rollouts)
        assert len(bench.judged) <= 2 * rollouts and len(bench.ranked) <= rollouts


def test_ten_attributes_have_638_sets_to_judge() -> None:
    bench = Bench(lambda names: None)
    names = [str(number) for number in range(10)]

    async def rank(known: frozenset[str]) -> dict[str, float]:
        rest = [name for name in names if name not in known]
        return dict.fromkeys(rest, 1 / len(rest))

    search = TreeSearch(
        names, 5, bench.rewards, rank, rollouts=2000, exploration=0.5, rng=random.Random(0)
    )
    assert asyncio.run(search.run()) == ()
    assert len(bench.judged) == len(set(bench.judged)) == 638


def test_the_search_depends_on_its_seed_alone() -> None:
    runs = {seed: Bench(trap) for seed in (0, 1)}
    again = Bench(trap)
    paths = {seed: bench.search(rollouts=20, seed=seed) for seed, bench in runs.items()}
    assert again.search(rollouts=20) == paths[0] and again.judged == runs[0].judged
    assert runs[0].judged != runs[1].judged


def test_an_unjudged_set_is_neither_the_worst_nor_the_best() -> None:
    def worth(names: frozenset[str]) -> float | None:
        return None if "a" in names else 1.0 + ("b" in names)

    bench = Bench(worth)
    assert bench.search() == ("b",)
    # Its unknown worth does not end the search below it.
    assert sum("a" in names for names in bench.judged) > 3
    assert Bench(lambda names: None).search() == ()


def test_a_rollout_is_less_random_the_more_is_known() -> None:
    epsilons = [compute_epsilon(size, 5) for size in range(6)]
    assert epsilons == sorted(epsilons, reverse=True)
    assert compute_epsilon(2, 4) == pytest.approx(0.1)


def test_weights_of_a_ranking_fall_and_add_up() -> None:
    weights = weigh_ranks(["b", "a", "c"])
    assert list(weights) == ["b", "a", "c"] and sum(weights.values()) == pytest.approx(1)
    assert weights["b"] == pytest.approx(2 * weights["a"]) == pytest.approx(3 * weights["c"])


@pytest.mark.parametrize(
    ("reply", "ranking"),
    [
        ("health, age, mental health", ["health", "age", "mental health"]),
        ("1. Mental_Health\n2) age\n- **health**", ["mental health", "age", "health"]),
        ("health > age", ["health", "age", "mental health"]),
        ('["age", "wealth", "age"]', ["age", "mental health", "health"]),
        ("It depends on the situation.", None),
        ("", None),
    ],
)
def test_a_ranking_is_read_from_lists(reply: str, ranking: list[str] | None) -> None:
    assert read_ranking(reply, ["mental health", "health", "age"]) == ranking


# With a model ------------------------------------------------------------------------------------

PAIR = ("marital status:", "education:")


class Model:
    """Grades answers, which repeat what they know, by a rule; ranks and rates as given."""

    def __init__(self, grade: Callable[[str], int | None], ranking: str = "age, health") -> None:
        self.grade = grade
        self.ranking = ranking
        self.calls: Counter[str] = Counter()

    def __call__(self, request: Request) -> str:
        opening = request.messages[0].content
        text = request.messages[-1].content
        if opening.startswith("You grade an answer"):
            self.calls["grade"] += 1
            score = self.grade(text.partition("Answer:")[2])
            return "{}" if score is None else json.dumps(dict.fromkeys(SCORES, score))
        if opening.startswith("You rank"):
            self.calls["ranking"] += 1
            return self.ranking
        if opening.startswith("You decide"):
            return "5"
        known = re.findall(r"^[\w -]+: .*$", text, re.MULTILINE)
        return f"Knowing {known}."


def trapped(answer: str) -> int:
    return 5 if all(name in answer for name in PAIR) else 2 + ("age:" in answer)


def play(model: Model, seed: int = 0, **params: Any) -> tuple[Raise, Trial]:
    method = Raise(Raise.Params(**{"planner": "tree", "plans": 1, "depth": 3, **params}))
    roles = {"judge": Model(lambda answer: 3)}
    return method, trial(method, "penguin", limit=1, answer=model, seed=seed, roles=roles)


def test_raise_plans_by_tree_search_what_greedy_selection_misses() -> None:
    greedy, _ = play(Model(trapped), planner="greedy")
    assert greedy.library.paths == [("age",)]
    model = Model(trapped, ranking="education, marital status")
    tree, result = play(model, rollouts=12)
    (path,) = tree.library.paths
    assert {"marital status", "education"} <= set(path)
    again, repeated = play(model, rollouts=12)
    assert again.library.paths == tree.library.paths
    assert [one.output for one in repeated.predictions] == [
        one.output for one in result.predictions
    ]


def test_unreadable_rankings_and_grades_are_counted() -> None:
    model = Model(lambda answer: None if "age:" in answer else 2, ranking="whatever")
    method, result = play(model, rollouts=6)
    counters = result.summary.counters if result.summary else {}
    # Two requests for each; a ranking that cannot be read makes all attributes equally likely.
    assert counters["ranking_unparsed"] == model.calls["ranking"] / 2 > 0
    assert counters["reward_unparsed"] > 0
    assert method.library.paths == [()]


def test_a_dry_run_states_no_fewer_calls_than_any_search_makes(tmp_path: Path) -> None:
    changes = ["planner=tree", "plans=1", "rollouts=10"]
    chosen = options(tmp_path, "raise", "penguin", limit=1, assignments=changes)
    (forecast,) = asyncio.run(plan(chosen))
    rules: list[Callable[[str], int]] = [lambda answer: 3, trapped]
    for number, grade in enumerate(rules):
        chosen = options(tmp_path / str(number), "raise", "penguin", limit=1, assignments=changes)
        roles = {"judge": Scripted(answer=Model(grade))}
        model = Scripted(answer=Model(grade))
        (outcome,) = asyncio.run(runner.run(chosen, backend=model, roles=roles))
        offline = outcome.summary.usage["prepare"].calls
        # Ten rankings, and twenty sets with an answer and a grade; two requests at most for each.
        assert 20 < offline <= 10 * 2 + 20 * 3
        assert sum(u.calls for u in outcome.summary.usage.values()) <= forecast.most("total")


@pytest.mark.parametrize(
    "wrong",
    [{"planner": "beam"}, {"depth": 0}, {"rollouts": 0}, {"exploration": -1.0}],
)
def test_parameters_that_cannot_work_are_named(wrong: dict[str, Any]) -> None:
    (name,) = wrong
    with pytest.raises(ValueError, match=name):
        Raise.Params(**wrong)


def test_a_wrong_planner_is_a_usage_error(tmp_path: Path) -> None:
    chosen = options(tmp_path, "raise", "penguin", limit=1, assignments=["raise.planner=beam"])
    with pytest.raises(UsageError, match="planner is greedy or tree, not 'beam'"):
        asyncio.run(runner.run(chosen))
