"""Reading a text takes time in proportion to its length, whatever a model or a server wrote.

Times are those of the processor, so that other processes do not count.
"""

from __future__ import annotations

import random
import re
import time

import pytest
from readers import READERS, nasty_texts

from personabench.metrics import text
from personabench.metrics.edits import levenshtein

LENGTH = 64_000
# Seconds; a quadratic reader takes whole seconds, a linear one some milliseconds.
BOUND = 0.5
_MARKS = ["```", "```\n", "\n", " ", "a", "`", "*", "**", "_", ".", "#", "b c", "Answer: ", '"']


def seconds(name: str, content: str) -> float:
    started = time.process_time()
    READERS[name](content)
    return time.process_time() - started


def slow_texts(name: str, texts: list[str]) -> list[tuple[float, str]]:
    """Texts that take longer than the bound, each measured again before it counts."""
    READERS[name]("warm up")
    slow = []
    for content in texts:
        taken = seconds(name, content)
        if taken > BOUND:
            taken = min(taken, seconds(name, content))
        if taken > BOUND:
            slow.append((taken, content[:20]))
    return slow


@pytest.mark.parametrize("name", READERS)
def test_no_text_stalls_a_reader(name: str) -> None:
    # An eighth of the units for each reader, once each; more of them follow below.
    first = list(READERS).index(name) % 8
    assert not slow_texts(name, nasty_texts(LENGTH)[4 * first :: 32])


@pytest.mark.variants
@pytest.mark.parametrize("name", READERS)
def test_no_unit_stalls_a_reader(name: str) -> None:
    assert not slow_texts(name, nasty_texts(LENGTH)[1::4])


@pytest.mark.slow
@pytest.mark.parametrize("name", READERS)
def test_no_text_of_many_stalls_a_reader(name: str) -> None:
    assert not slow_texts(name, nasty_texts(LENGTH))


@pytest.mark.slow
@pytest.mark.parametrize("name", READERS)
def test_four_times_the_text_takes_less_than_six_times_the_time(name: str) -> None:
    texts = zip(nasty_texts(LENGTH), nasty_texts(4 * LENGTH), strict=True)
    # Some milliseconds more than in proportion are noise.
    grown = [
        long[:20]
        for short, long in texts
        if seconds(name, long) > 6 * seconds(name, short) + 0.05
        and seconds(name, long) > 6 * seconds(name, short) + 0.05
    ]
    assert not grown


def strip_by_expressions(output: str) -> str:
    """What `strip_chatter` does, in quadratic time."""
    stripped = re.sub(r"(?ms)^\s*```[^\n`]*\n?(.*?)\n?```\s*$", r"\1", output)
    stripped = re.sub(r"(?s)(\*{1,3})(?=\S)(.+?)(?<=\S)\1", r"\2", stripped)
    stripped = re.sub(r"(?s)(?<!\w)(_{1,3})(?=\S)(.+?)(?<=\S)\1(?!\w)", r"\2", stripped)
    stripped = re.sub(r"`([^`\n]+)`", r"\1", stripped)
    return re.sub(r"(?m)^#{1,6}\s+", "", stripped).strip()


def test_markup_is_read_as_by_regular_expressions() -> None:
    rng = random.Random(5)
    for _ in range(3000):
        # Neither a lead-in nor quotes around the whole, which are dropped afterwards.
        output = f"x{''.join(rng.choices(_MARKS, k=rng.randint(0, 14)))}x"
        assert text.strip_chatter(output) == strip_by_expressions(output), output


def test_edit_distance_is_that_of_the_table() -> None:
    def by_table(source: list[str], target: list[str]) -> int:
        costs = list(range(len(target) + 1))
        for row, token in enumerate(source, 1):
            diagonal, costs[0] = costs[0], row
            for column, other in enumerate(target, 1):
                substitution = diagonal + (token != other)
                diagonal = costs[column]
                costs[column] = min(substitution, diagonal + 1, costs[column - 1] + 1)
        return costs[-1]

    rng = random.Random(7)
    for _ in range(500):
        source, target = (rng.choices("abcd", k=rng.randint(0, 12)) for _ in range(2))
        assert levenshtein(source, target) == by_table(source, target)


def test_a_long_edit_is_measured_at_once() -> None:
    rng = random.Random(9)
    source, target = (rng.choices("abcdefghij", k=12_000) for _ in range(2))
    started = time.process_time()
    assert 0 < levenshtein(source, target) < 12_000
    assert time.process_time() - started < 1
