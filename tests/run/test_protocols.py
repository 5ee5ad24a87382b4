"""Online and dialogue tasks: toy ones, run through the engine and the runner."""

from __future__ import annotations

import asyncio
import dataclasses
from pathlib import Path
from typing import Any

import msgspec
import pytest
from toy_methods import SECRET, TOY, Counting, Daily, Peeking, Plain, Talk

from personabench import Method, Sample, Task
from personabench.api.task import JsonObject
from personabench.cli.model_options import RoleArguments, role_backends
from personabench.errors import BackendError, UsageError
from personabench.models.backends.base import BackendOptions
from personabench.models.backends.scripted import Scripted
from personabench.models.cache import Cache, Policy
from personabench.models.client import Client
from personabench.models.roles import OPTION_PREFIXES, Role
from personabench.results.run_folder import RunFolder
from personabench.results.spec import RunSpec
from personabench.retrieval.embedders import Embedders
from personabench.run.engine import Engine
from personabench.run.options import Options
from personabench.run.plan import plan
from personabench.run.runner import run
from personabench.testing.trials import trial
from personabench.types import Prediction, Request, Sampling


@dataclasses.dataclass
class Stage:
    """An engine on a toy task, with its own models."""

    engine: Engine
    folder: RunFolder
    model: Scripted
    user: Scripted
    cache: Cache | None

    async def run(self) -> bool:
        return await self.engine.run(self.engine.owed(range(12)))

    def lines(self) -> list[Prediction]:
        return list(self.folder.iter_predictions())

    def close(self) -> None:
        self.folder.close()
        if self.cache:
            self.cache.close()


def stage(
    place: Path, task: Task, method: Method, policy: Policy = "off", latency: float = 0.0
) -> Stage:
    """An engine in a folder, answered by counting models."""
    model = Scripted(
        answer=lambda request: f"said {len(request.messages[-1].content)}", latency=latency
    )
    user = Scripted(
        BackendOptions(model="user"),
        answer=lambda r: f"{len(r.messages[-1].content)} more",
        latency=latency,
    )
    dataset = task.open("dev", None)
    spec = RunSpec(
        task.name,
        1,
        {},
        "user",
        "dev",
        True,
        "toy",
        method.name,
        "h",
        {},
        model.identity,
        Sampling(),
        0,
        simulator=user.identity,
    )
    folder = RunFolder(place / "run")
    folder.start(spec)
    cache = None if policy == "off" else Cache(place / "cache.sqlite")
    client = Client(model, cache, policy)
    roles = {"simulator": dataclasses.replace(client, backend=user)}
    engine = Engine(task, dataset, method, spec, client, Embedders(), folder, cache, roles=roles)  # type: ignore[arg-type]
    return Stage(engine, folder, model, user, cache)


def meaning(line: Prediction) -> Any:
    """A line without what time and caching leave on it."""
    return [
        line.sample_id,
        line.output,
        line.flags,
        line.interaction,
        [(call.key, call.phase) for call in line.calls],
    ]


async def test_a_dialogue_goes_through_the_method_in_every_turn(tmp_path: Path) -> None:
    made = stage(tmp_path, Talk(), Plain())
    assert await made.run()
    made.close()
    line = made.lines()[0]
    assert line.interaction.keys() == {"first", "plain", "question"} and line.output == "said 7"
    assert [call.phase for call in line.calls] == ["predict", "predict", "predict", "simulate"]
    own = [call for call in line.calls if call.phase == "predict"]
    assert line.usage.input_tokens == sum(call.input_tokens for call in own)
    assert not any(
        SECRET in message.content for request in made.model.requests for message in request.messages
    )
    assert all(SECRET in request.messages[0].content for request in made.user.requests)


async def test_online_rounds_come_in_order_and_users_at_once(tmp_path: Path) -> None:
    made = stage(tmp_path, Daily(), Counting(), latency=0.005)
    assert await made.run()
    made.close()
    lines = made.lines()
    for user in "abc":
        mine = [line for line in lines if line.user_id == user]
        assert [line.sample_id for line in mine] == [f"{user}{day}" for day in range(4)]
        assert [line.interaction["method"]["seen"] for line in mine] == [0, 1, 2, 3]
    assert [line.user_id for line in lines[:3]] != ["a", "a", "a"]
    assert all(line.flags == {"lengthened": 1} for line in lines)
    assert {call.phase for line in lines for call in line.calls} == {
        "predict",
        "simulate",
        "update",
    }
    assert made.folder.rounds.read("b").round == 4  # type: ignore[union-attr]


class Pulled(BaseException):
    """The plug."""


@pytest.mark.parametrize("calls", range(1, 12, 2))
async def test_a_trajectory_killed_anywhere_goes_on_as_if_nothing_had_been(
    tmp_path: Path, calls: int
) -> None:
    whole = stage(tmp_path / "whole", Daily(), Counting())
    await whole.run()
    whole.close()

    broken = stage(tmp_path / "broken", Daily(), Counting())
    asked, complete = 0, broken.model.complete

    async def until(request: Request, group: str) -> Any:
        nonlocal asked
        asked += 1
        if asked > calls:
            raise Pulled
        return await complete(request, group)

    broken.model.complete = until  # type: ignore[method-assign]
    with pytest.raises(Pulled):
        await broken.run()
    broken.close()
    before = (tmp_path / "broken/run/predictions.jsonl").read_bytes() if broken.lines() else b""
    finished = len(broken.lines())

    again = stage(tmp_path / "broken", Daily(), Counting())
    assert await again.run()
    again.close()
    after = (tmp_path / "broken/run/predictions.jsonl").read_bytes()
    assert after.startswith(before)
    assert sorted(map(meaning, again.lines())) == sorted(map(meaning, whole.lines()))
    assert len(again.user.requests) == 12 - finished
    ends = [(tmp_path / side / "run/states").glob("*.json") for side in ("whole", "broken")]
    states = [
        {path.name: msgspec.json.decode(path.read_bytes())["state"] for path in each}
        for each in ends
    ]
    assert states[0] == states[1] and len(states[0]) == 3


async def test_a_round_that_was_kept_but_not_written_is_written_and_not_paid_again(
    tmp_path: Path,
) -> None:
    made = stage(tmp_path, Daily(), Counting())
    await made.run()
    made.close()
    path = tmp_path / "run/predictions.jsonl"
    content = path.read_bytes()
    rows = content.splitlines(keepends=True)
    torn = next(row for row in rows if b'"c3"' in row)
    path.write_bytes(b"".join(row for row in rows if row != torn) + torn[:30])
    again = stage(tmp_path, Daily(), Counting())
    assert await again.run()
    again.close()
    assert not again.model.requests and sorted(path.read_bytes().splitlines()) == sorted(
        content.splitlines()
    )


async def test_a_refresh_starts_every_trajectory_anew_and_goes_on_where_it_was_killed(
    tmp_path: Path,
) -> None:
    first = stage(tmp_path, Daily(), Counting(), "use")
    await first.run()
    first.close()
    renewed = stage(tmp_path, Daily(), Counting(), "refresh")
    complete, asked = renewed.user.complete, 0

    async def until(request: Request, group: str) -> Any:
        nonlocal asked
        asked += 1
        if asked > 2:
            raise Pulled
        return await complete(request, group)

    renewed.user.complete = until  # type: ignore[method-assign]
    with pytest.raises(Pulled):
        await renewed.run()
    renewed.close()
    again = stage(tmp_path, Daily(), Counting(), "refresh")
    made = sum(kept.round for user in "abc" if (kept := again.folder.rounds.read(user)))
    assert await again.run()
    again.close()
    assert len(again.user.requests) == 12 - made and made <= 2
    assert sorted(map(str, map(meaning, again.lines()[-12:]))) == sorted(
        map(str, map(meaning, first.lines()[:12]))
    )


async def test_a_failed_round_stops_its_user_and_no_other(tmp_path: Path) -> None:
    class Moody(Daily):
        async def react(
            self, sample: Sample, output: str, simulator: Role
        ) -> tuple[JsonObject, JsonObject]:
            if sample.id == "b1":
                raise BackendError("the user left")
            return await super().react(sample, output, simulator)

    made = stage(tmp_path, Moody(), Counting())
    assert await made.run()
    made.close()
    good = {line.sample_id for line in made.lines() if not line.error}
    assert good == {f"{user}{day}" for user in "ac" for day in range(4)} | {"b0"}
    assert [line.error for line in made.lines() if line.error] == ["the user left"]
    again = stage(tmp_path, Daily(), Counting())
    assert await again.run()
    again.close()
    assert len(again.user.requests) == 3 and made.folder.rounds.read("b").round == 4  # type: ignore[union-attr]
    assert (
        next(line for line in again.lines() if line.sample_id == "b1" and not line.error).attempts
        == 2
    )


def test_an_oracle_is_told_what_is_hidden_and_nobody_else() -> None:
    assert {line.output for line in trial(Peeking(), Daily()).predictions} == {SECRET}
    found = trial(Counting(), Daily(), roles={"simulator": lambda request: "more"})
    assert not any(
        SECRET in message.content for request in found.requests for message in request.messages
    )
    assert found.summary.metrics["official"] == {"length": 4.0} and found.summary.n == 12


def test_a_simulator_is_part_of_what_a_run_is_and_a_judge_is_not(tmp_path: Path) -> None:
    folders = []
    for name in ("one", "two"):
        options = Options([f"{TOY}Counting"], [f"{TOY}Daily"], backend="scripted", results=tmp_path)
        user = Scripted(BackendOptions(model=name))
        (outcome,) = asyncio.run(run(options, backend=Scripted(), roles={"simulator": user}))
        folders.append(outcome.folder)
        assert outcome.summary.status == "complete"
    assert folders[0] != folders[1]


def test_a_plan_rehearses_every_role(tmp_path: Path) -> None:
    for task, calls in (
        ("Daily", {"predict": 12, "simulate": 12, "update": 12}),
        ("Judged", {"predict": 12, "judge": 12}),
    ):
        method = "Counting" if task == "Daily" else "Plain"
        (forecast,) = asyncio.run(
            plan(
                Options([f"{TOY}{method}"], [f"{TOY}{task}"], backend="scripted", results=tmp_path)
            )
        )
        assert forecast.calls == calls


def test_a_plan_prices_each_role_by_its_own_model(tmp_path: Path) -> None:
    roles: dict[Any, Any] = {"simulator": ("scripted", BackendOptions(model="user"))}
    options = Options(
        [f"{TOY}Plain"], [f"{TOY}Daily"], backend="scripted", results=tmp_path, roles=roles
    )
    (forecast,) = asyncio.run(plan(options))
    (given, made), (told, wrote) = forecast.spent["scripted"], forecast.spent["user"]
    assert (made, wrote) == (12 * 64, 12 * 8)
    prices = {"scripted": {"input": 1.0, "output": 2.0}, "user": {"input": 10.0, "output": 20.0}}
    assert forecast.price(prices) == pytest.approx(
        (given + 2 * made + 10 * told + 20 * wrote) / 1e6
    )
    row = forecast.as_dict(prices)
    assert row["price"] < forecast.price(prices) < row["price_at_most"]
    assert forecast.as_dict({"scripted": prices["scripted"]})["price"] is None


def test_a_role_takes_from_the_model_under_test_what_is_not_named() -> None:
    here, there = "http://here/v1", "http://there/v1"
    under = BackendOptions("big", here, timeout=9.0, headers={"X-Team": "secret"}, api_version="1")
    players = role_backends(
        "openai",
        under,
        {"simulator": RoleArguments(model="small"), "judge": RoleArguments(backend="local")},
    )
    assert players["simulator"] == (
        "openai",
        BackendOptions(
            "small",
            here,
            timeout=9.0,
            headers={"X-Team": "secret"},
            role="simulator",
            api_version="1",
        ),
    )
    assert players["judge"] == ("local", BackendOptions(timeout=9.0, role="judge"))
    arguments = RoleArguments(backend="openai", model="small", base_url=there)
    elsewhere = role_backends("openai", under, {"judge": arguments})["judge"]
    assert elsewhere == ("openai", BackendOptions("small", there, timeout=9.0, role="judge")), (
        "a secret goes to no other server"
    )
    unnamed: dict[Any, RoleArguments] = dict.fromkeys(OPTION_PREFIXES, RoleArguments())
    assert role_backends("local", BackendOptions(), unnamed) == {}


def test_a_role_that_no_task_has_is_an_error(tmp_path: Path) -> None:
    roles: dict[Any, Any] = {"judge": ("scripted", BackendOptions(model="judge"))}
    options = Options(
        [f"{TOY}Counting"], [f"{TOY}Daily"], backend="scripted", results=tmp_path, roles=roles
    )
    with pytest.raises(UsageError, match="--judge-model: none of the tasks"):
        asyncio.run(run(options, backend=Scripted()))
