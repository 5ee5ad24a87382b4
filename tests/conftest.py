"""What tests of several folders need."""

from __future__ import annotations

import gc
import os
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING, Any

import pytest
from edit_fixtures import Markers

from personabench.leaderboard.stats.scores import Scores
from personabench.retrieval.embedders import Embedders

if TYPE_CHECKING:
    from browser_page import Page


def pytest_xdist_auto_num_workers() -> int:
    """One more than the cores, since many tests wait for processes and servers."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return (cores or 1) + 1


@pytest.fixture
def quick_vectors(monkeypatch: pytest.MonkeyPatch) -> None:
    """Vectors by marker word instead of an embedder's."""
    monkeypatch.setattr(Embedders, "embed", lambda self, texts, name: Markers().embed(texts, name))


@pytest.fixture
def few_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    """Intervals and tests of 400 draws, where a test is about something else in a table."""
    compute = Scores.__init__

    def compute_with_few(*args: Any, draws: int = 0, **options: Any) -> None:
        compute(*args, draws=400, **options)

    monkeypatch.setattr(Scores, "__init__", compute_with_few)


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    """One browser for all tests of the report's page."""
    from browser_page import open_browser

    yield from open_browser(tmp_path_factory.mktemp("chromium"))


def pytest_collection_finish(session: pytest.Session) -> None:
    """Leave modules and tests out of later searches for garbage, each of which reads them all."""
    gc.collect()
    gc.freeze()


TRIED, HELD = "tried", "held"
Case = Callable[[str], AbstractContextManager[None]]


@pytest.fixture
def case(record_property: Callable[[str, Any], None]) -> Case:
    """Count a case of a suite, and whether it held; the sums are printed at the end."""

    @contextmanager
    def counted(suite: str) -> Iterator[None]:
        record_property(f"{TRIED}:{suite}", 1)
        yield
        record_property(f"{HELD}:{suite}", 1)

    return counted


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print how many cases of each suite were tried, and how many held."""
    totals: Counter[str] = Counter()
    for reports in terminalreporter.stats.values():
        for report in reports:
            # With several processes the properties of a report travel to this one.
            if getattr(report, "when", "") == "call":
                for name, amount in report.user_properties:
                    totals[name] += amount

    suites = sorted(name.partition(":")[2] for name in totals if name.startswith(TRIED))
    if suites:
        terminalreporter.section("trust: docs/trust.md says what these suites try")
    for suite in suites:
        tried, held = totals[f"{TRIED}:{suite}"], totals[f"{HELD}:{suite}"]
        terminalreporter.write_line(f"{suite}: {tried:,} tried, {held:,} held")
