"""Kills at random calls: the same command again gives the same scores and pays nothing twice."""

from __future__ import annotations

import json
import random
import signal
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
from counted_run import Ended, run_counted

Case = Callable[[str], AbstractContextManager[None]]
CONCURRENCY = {"crowded": 24}
"""Calls in flight, if not `FEW`; from sixteen on, stored calls share transactions."""
FEW = 4
RUNS = {
    "static": ("-t", "lamp4", "-m", "summary", "-n", "8"),
    "online": ("-t", "prelude_summ", "-m", "cipher", "-n", "8", "--set", "task.rounds=10"),
    "dialogue": ("-t", "prefdisco", "-m", "none", "-n", "4"),
    "crowded": ("-t", "lamp4", "-m", "summary", "-n", "40"),
    "judged": ("-t", "prefdisco_warm", "-m", "summary", "-n", "4"),
}
SIGNALS = (signal.SIGKILL, signal.SIGINT, signal.SIGTERM)
SUITE = "kills at random calls"


def command(protocol: str) -> list[str]:
    concurrency = str(CONCURRENCY.get(protocol, FEW))
    return ["run", *RUNS[protocol], "-b", "scripted", "--concurrency", concurrency, "--json"]


def read_run(folder: Path) -> dict[str, str]:
    """What a run says of its samples: scores, metrics and counters."""
    (spec,) = folder.glob("results/runs/*/*/*/*/spec.json")
    summary = json.loads((spec.parent / "summary.json").read_text())
    kept = ("status", "n", "users", "owed", "metrics", "counters", "parse_failures", "fingerprint")
    facts = {name: json.dumps(summary[name]) for name in kept}
    return {**facts, "scores": (spec.parent / "scores.jsonl").read_text()}


class Whole:
    def __init__(self, protocol: str, ended: Ended, facts: dict[str, str]) -> None:
        self.protocol = protocol
        self.calls = ended.calls
        self.facts = facts


# The other protocols are killed often enough by the suite below.
FIRST, *OTHERS = RUNS
PROTOCOLS = [FIRST, *(pytest.param(name, marks=pytest.mark.trust) for name in OTHERS)]


@pytest.fixture(scope="module", params=PROTOCOLS)
def whole(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Whole:
    """A run of a protocol that nothing interrupts."""
    folder = tmp_path_factory.mktemp(request.param)
    ended = run_counted(command(request.param), folder)
    assert ended.code == 0, ended.output
    return Whole(request.param, ended, read_run(folder))


def check_kill(whole: Whole, folder: Path, number: int, kill_at: int, seed: int) -> None:
    """Kill a run at one of its calls, resume it, and compare it with the whole run."""
    folder.mkdir()
    words = command(whole.protocol)
    killed = run_counted(words, folder, kill_at=kill_at, signal_number=number, seed=seed)
    name = f"{whole.protocol}, {signal.Signals(number).name} at call {kill_at}, seed {seed}"
    assert "Traceback" not in killed.output, (name, killed.output)
    # An interrupt at one of the last calls lets the run finish.
    allowed = {-signal.SIGKILL} if number == signal.SIGKILL else {130, 143, 0}
    assert killed.code in allowed, (name, killed.code, killed.output)

    resumed = run_counted(words, folder, seed=seed + 1)
    assert resumed.code == 0, (name, resumed.output)
    assert read_run(folder) == whole.facts, name

    paid = killed.calls + resumed.calls
    assert paid.keys() == whole.calls.keys(), name
    again = (paid - whole.calls).total()
    # Calls in flight were not finished; every finished one is on disk.
    assert again <= CONCURRENCY.get(whole.protocol, FEW), (name, again)


def draw_kills(protocol: str, calls: int, amount: int) -> Iterator[tuple[int, int]]:
    rng = random.Random(f"kills of {protocol}")
    for seed in range(amount):
        yield rng.randint(1, calls), seed


def test_a_kill_of_every_protocol(whole: Whole, tmp_path: Path, case: Case) -> None:
    (kill_at, seed), *_ = draw_kills(whole.protocol, whole.calls.total(), 1)
    with case(SUITE):
        check_kill(whole, tmp_path / "run", signal.SIGKILL, kill_at, seed)


@pytest.mark.trust
@pytest.mark.parametrize("number", SIGNALS)
def test_kills_of_every_protocol_and_signal(
    whole: Whole, tmp_path: Path, number: int, case: Case
) -> None:
    for kill_at, seed in draw_kills(f"{whole.protocol} {number}", whole.calls.total(), 5):
        with case(SUITE):
            check_kill(whole, tmp_path / str(seed), number, kill_at, seed)
