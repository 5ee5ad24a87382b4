"""Plans: what a run would cost, and why a call is not stored."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest
from rigs import options

from personabench import registry, runner
from personabench.backends.scripted import Scripted, echo
from personabench.errors import UsageError
from personabench.hashing import digest
from personabench.plan import explain, filler, plan, read_prices
from personabench.runfolder import RunFolder
from personabench.spec import Sampling
from personabench.testing import trial
from personabench.types import Request

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


def talkative(task: str) -> Scripted:
    """A model unlike the rehearsal's: one to four features a record, drafts that differ, any label of the task."""
    labels = registry.load("task", task)().labels

    def answer(request: Request) -> str:
        name = digest(request.messages)
        if request.schema is None:
            asks_for_a_label = labels and request.messages[0].content.endswith("only.")
            return labels[int(name[:4], 16) % len(labels)] if asks_for_a_label else echo(request)
        if "features" not in request.schema["properties"]:
            return filler(request.schema)
        found = [{"name": name[at : at + 4], "context": name, "factor": None} for at in range(1 + int(name[0], 16) % 4)]
        return json.dumps({"features": found})

    return Scripted(answer=answer)


@pytest.mark.parametrize("task", ["lamp2m", "lamp3", "lamp4", "lamp7"])
@pytest.mark.parametrize("method", ["rpm", "cipher"])
def test_the_plan_holds_for_a_model_that_says_more(tmp_path: Path, method: str, task: str) -> None:
    """Exactly for rpm, and for cipher on texts; on labels cipher's calls depend on how many drafts are right."""
    chosen = options(tmp_path, method, task)
    (forecast,) = asyncio.run(plan(chosen))
    (out,) = asyncio.run(runner.run(chosen, backend=talkative(task)))
    ledger = {phase: amounts["calls"] for phase, amounts in out.summary["usage"].items()}
    if method == "cipher" and task in ("lamp2m", "lamp3"):
        planned, made = sum(forecast.calls.values()), sum(ledger.values())
        assert abs(planned - made) <= made / 10
    else:
        assert forecast.calls == ledger


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


def test_an_interrupted_plan_or_trial_gives_nothing_rather_than_a_part(tmp_path: Path) -> None:
    path = tmp_path / "interrupting.py"
    path.write_text(
        "import asyncio, os, signal\n\nfrom personabench import Method\n\n\nclass Interrupting(Method):\n"
        "    async def predict(self, sample, state, ctx):\n"
        "        os.kill(os.getpid(), signal.SIGINT)\n        await asyncio.sleep(0.01)\n"
        "        return await ctx.answer(sample)\n"
    )
    with pytest.raises(KeyboardInterrupt):
        asyncio.run(plan(options(tmp_path / "results", str(path))))
    with pytest.raises(KeyboardInterrupt):
        trial(registry.load("method", str(path))())
