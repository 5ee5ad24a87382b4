"""Plans: what a run would cost, and why a call is not stored."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from rigs import options

from personabench import runner
from personabench.errors import UsageError
from personabench.plan import explain, plan, read_prices
from personabench.runfolder import RunFolder
from personabench.spec import Sampling

METHODS = "none,rag,summary,dpl"


def run(chosen: runner.Options) -> list[runner.Outcome]:
    return asyncio.run(runner.run(chosen))


@pytest.mark.parametrize("task", ["lamp3", "lamp4"])
def test_the_plan_states_the_calls_that_the_ledger_will_show(tmp_path: Path, task: str) -> None:
    chosen = options(tmp_path / "results", METHODS, task)
    forecasts = asyncio.run(plan(chosen))
    assert not (tmp_path / "results").exists()
    outcomes = run(chosen)
    for forecast, out in zip(forecasts, outcomes, strict=True):
        usage = out.summary["usage"]
        assert forecast.calls == {phase: amounts["calls"] for phase, amounts in usage.items()}, forecast.method
        assert forecast.owed == out.summary["n"] and forecast.cached <= sum(one["cached"] for one in usage.values())
    assert [sum(forecast.calls.values()) for forecast in forecasts] == sorted(
        sum(forecast.calls.values()) for forecast in forecasts
    )
    assert [forecast.as_dict({})["calls"] for forecast in asyncio.run(plan(chosen))] == [0, 0, 0, 0]


def test_a_plan_knows_what_is_stored(tmp_path: Path) -> None:
    chosen = options(tmp_path, "summary", limit=4)
    (before,) = asyncio.run(plan(chosen))
    (out,) = run(chosen)
    (out.folder / "predictions.jsonl").unlink()
    (after,) = asyncio.run(plan(chosen))
    assert before.calls == after.calls
    assert after.cached == sum(after.calls.values()) and after.input_tokens == after.output_tokens == 0
    (larger,) = asyncio.run(plan(options(tmp_path, "summary")))
    assert larger.cached == after.cached < sum(larger.calls.values())
    row = before.as_dict({"scripted": {"input": 2.0, "output": 8.0}})
    assert row["price"] == (2 * before.input_tokens + 8 * before.output_tokens) / 1e6 > 0
    assert before.as_dict({"another": {"input": 1.0, "output": 1.0}})["price"] is None


def test_why_names_the_first_difference(tmp_path: Path) -> None:
    (out,) = run(options(tmp_path, limit=1))
    name = next(RunFolder(out.folder).iter_predictions()).sample_id
    (stored,) = asyncio.run(explain(options(tmp_path), name))
    assert stored["stored"] and stored["difference"] is None
    (missing,) = asyncio.run(explain(options(tmp_path, sampling=Sampling(max_tokens=7)), name))
    assert not missing["stored"] and missing["difference"].startswith("max_tokens: wanted 7, stored")
    with pytest.raises(UsageError, match="has no sample 'nobody'"):
        asyncio.run(explain(options(tmp_path), "nobody"))


@pytest.mark.parametrize("content", ["nonsense", '{"m": {"input": 1}}', '{"m": 3}'])
def test_a_broken_price_file_is_named(tmp_path: Path, content: str) -> None:
    path = tmp_path / "prices.json"
    path.write_text(content)
    with pytest.raises(UsageError, match=r"prices\.json"):
        read_prices(path)
    with pytest.raises(UsageError, match=r"none\.json"):
        read_prices(tmp_path / "none.json")
