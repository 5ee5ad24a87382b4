"""Plan which attributes of a user to ask for: greedy forward selection, and tree search.

A planner looks for the set of attributes with the best judged answer to one query, and returns it
as a path: the attributes in the order in which to ask for them.  It knows neither prompts nor
model: how a set is judged and how attributes are ranked are functions that it is given.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from random import Random

Path = tuple[str, ...]
Judge = Callable[[frozenset[str]], Awaitable[float | None]]
"""The reward of an answer that knows these attributes; None if it could not be judged."""
Rank = Callable[[frozenset[str]], Awaitable[Mapping[str, float]]]
"""The prior weights of the attributes that are not in a set, highest first."""


class Rewards:
    """The rewards of sets of attributes, each judged once: a permuted set is the same knowledge."""

    def __init__(self, judge: Judge) -> None:
        self._judge = judge
        self._known: dict[frozenset[str], float | None] = {}
        self._paths: dict[frozenset[str], Path] = {}

    async def of(self, path: Sequence[str]) -> float | None:
        """The reward of the attributes of a path; None if their answer could not be judged."""
        names = frozenset(path)
        if names not in self._known:
            self._known[names] = await self._judge(names)
            self._paths[names] = tuple(path)
        return self._known[names]

    def best_path(self) -> Path:
        """The path with the highest reward; of equal ones a shorter one, then the earlier one."""
        judged = {names: reward for names, reward in self._known.items() if reward is not None}
        if not judged:
            return ()
        best = max(judged, key=lambda names: (judged[names], -len(names)))
        return self._paths[best]


async def plan_greedily(names: Sequence[str], depth: int, rewards: Rewards) -> Path:
    """Add the attribute with the best reward as long as rewards rise."""
    path: Path = ()
    best = await rewards.of(path)
    while len(path) < depth:
        candidates = [(*path, name) for name in names if name not in path]
        scores = [(await rewards.of(candidate), candidate) for candidate in candidates]
        judged = [(score, candidate) for score, candidate in scores if score is not None]
        if not judged:
            break
        score, candidate = max(judged, key=lambda pair: pair[0])
        if best is not None and score <= best:
            break
        best, path = score, candidate
    return path


@dataclass
class Node:
    """A set of attributes in the tree, whichever order led to it.

    Attributes:
        priors: weights of the attributes that may come next, highest first.
        choices: how often each of them was chosen here.
        total, count: sum and number of the judged returns of rollouts through this set.
    """

    names: frozenset[str]
    priors: Mapping[str, float]
    choices: dict[str, int] = field(default_factory=dict)
    total: float = 0.0
    count: int = 0

    @property
    def value(self) -> float | None:
        """The mean return; None if none was judged."""
        return self.total / self.count if self.count else None


class TreeSearch:
    """Monte Carlo tree search over sets of attributes, guided by a ranking of them.

    A rollout descends from the empty set, choosing attributes by value and prior, to a set that is
    not in the tree yet.  This set is ranked and joins the tree.  From there the rollout goes on to
    the full depth by the ranking, at times at random.  Both sets are judged, and the better reward
    is the return: a path may end at either.
    """

    def __init__(
        self,
        names: Sequence[str],
        depth: int,
        rewards: Rewards,
        rank: Rank,
        *,
        rollouts: int,
        exploration: float,
        rng: Random,
    ) -> None:
        self._depth = min(depth, len(names))
        self._rewards = rewards
        self._rank = rank
        self._rollouts = rollouts
        self._exploration = exploration
        self._rng = rng
        self._nodes: dict[frozenset[str], Node] = {}

    async def run(self) -> Path:
        """The best path of all sets that the rollouts judged."""
        for _ in range(self._rollouts):
            await self._roll_out()
        return self._rewards.best_path()

    async def _roll_out(self) -> None:
        path, nodes = self._descend()
        node = await self._expand(path)
        end = self._complete(path, node)

        rewards = [await self._rewards.of(path), await self._rewards.of(end)]
        judged = [reward for reward in rewards if reward is not None]
        if not judged:
            # The choices count, so that the search moves on, but the sets keep no false value.
            return
        for passed in (*nodes, node):
            passed.total += max(judged)
            passed.count += 1

    def _descend(self) -> tuple[Path, list[Node]]:
        """The path to a set that is not in the tree, or to full depth, and the nodes on it."""
        path: Path = ()
        nodes: list[Node] = []
        while len(path) < self._depth and frozenset(path) in self._nodes:
            node = self._nodes[frozenset(path)]
            name = self._choose(node)
            node.choices[name] = node.choices.get(name, 0) + 1
            nodes.append(node)
            path = (*path, name)
        return path, nodes

    def _choose(self, node: Node) -> str:
        """The attribute with the highest upper bound; of equal ones the one ranked higher."""
        visits = sum(node.choices.values())

        def bound(name: str) -> float:
            child = self._nodes.get(node.names | {name})
            value = child.value if child else None
            if value is None:
                # Nothing is known about it: as good as the sets around it, and not worthless.
                value = node.value or 0.0
            curiosity = node.priors[name] * math.sqrt(visits) / (1 + node.choices.get(name, 0))
            return value + self._exploration * curiosity

        return max(node.priors, key=bound)

    async def _expand(self, path: Path) -> Node:
        """The node of a path, ranked when it is new."""
        names = frozenset(path)
        if names not in self._nodes:
            is_end = len(path) == self._depth
            self._nodes[names] = Node(names, {} if is_end else await self._rank(names))
        return self._nodes[names]

    def _complete(self, path: Path, node: Node) -> Path:
        """The path, continued to full depth: the attributes ranked highest, or random ones."""
        remaining = list(node.priors)
        while len(path) < self._depth:
            is_random = self._rng.random() < compute_epsilon(len(path), self._depth)
            index = self._rng.randrange(len(remaining)) if is_random else 0
            path = (*path, remaining.pop(index))
        return path


def compute_epsilon(size: int, depth: int) -> float:
    """The probability of a random attribute in a rollout: lower, the more attributes are known."""
    return 0.2 / (1 + math.exp(size - depth / 2))


def weigh_ranks(ranking: Sequence[str]) -> dict[str, float]:
    """Prior weights of a ranking, highest first: in proportion to 1, 1/2, 1/3, ..."""
    total = sum(1 / rank for rank in range(1, len(ranking) + 1))
    return {name: 1 / rank / total for rank, name in enumerate(ranking, 1)}
