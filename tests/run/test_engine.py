"""The engine on scripted models: order, resume, failure, interruption, memory."""

from __future__ import annotations

import asyncio
import os
import signal
import tracemalloc
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from engine_fixtures import Jittery, headlines, make_engine

from personabench import Context, Method, Sample, User
from personabench.errors import BackendError, RunError, UsageError
from personabench.methods.none import NoPersonalization
from personabench.methods.recency import Recency
from personabench.methods.summary import Summary
from personabench.run.selection import select
from personabench.testing.trials import trial
from personabench.types import Request, Response, Usage


class Once(Method):
    """Counts profiles; can be told to fail on chosen samples."""

    name = "once"

    def __init__(self, params: Any = None) -> None:
        super().__init__(params)
        self.profiled: list[str] = []
        self.failing: set[str] = set()
        self.error: type[Exception] = BackendError

    async def profile(self, user: User, ctx: Context) -> dict[str, int]:
        self.profiled.append(user.id)
        await asyncio.sleep(0.002)
        return {"records": len(user.history)}

    async def predict(self, sample: Sample, state: Any, ctx: Context) -> str:
        if sample.id in self.failing:
            raise self.error("the model said no")
        await ctx.answer(sample)
        return f"{state['records']} records"


async def test_every_sample_is_predicted_once(tmp_path: Path) -> None:
    setup = make_engine(tmp_path, NoPersonalization(), headlines(tmp_path / "data", 30, each=2))
    assert await setup.run()
    lines = list(setup.folder.iter_predictions())
    assert len(lines) == 60 and len({line.sample_id for line in lines}) == 60
    assert setup.engine.progress.done == setup.engine.progress.total == 60
    assert await setup.run() and len(list(setup.folder.iter_predictions())) == 60
    setup.close()


async def test_concurrency_does_not_change_predictions(tmp_path: Path) -> None:
    seen = []
    for concurrency in (1, 256):
        setup = make_engine(
            tmp_path / str(concurrency), Summary(), backend=Jittery(), concurrency=concurrency
        )
        await setup.run()
        seen.append(
            {
                name: (line.output, line.parsed, line.flags, [call.key for call in line.calls])
                for name, line in setup.predictions().items()
            }
        )
        setup.close()
    assert seen[0] == seen[1] and len(seen[0]) > 20


async def test_no_more_samples_under_way_than_asked(tmp_path: Path) -> None:
    class Watching(Jittery):
        now = most = 0

        async def complete(self, request: Request, group: str) -> Response:
            self.now += 1
            self.most = max(self.most, self.now)
            try:
                return await super().complete(request, group)
            finally:
                self.now -= 1

    backend = Watching()
    setup = make_engine(
        tmp_path,
        NoPersonalization(),
        headlines(tmp_path / "data", 60),
        backend=backend,
        concurrency=7,
    )
    await setup.run()
    setup.close()
    assert backend.most == 7


async def test_a_profile_is_made_once_per_visible_history(tmp_path: Path) -> None:
    data = headlines(tmp_path / "data", 12, each=4)
    method = Once()
    setup = make_engine(tmp_path, method, data, concurrency=16)
    await setup.run()
    setup.close()
    assert sorted(method.profiled) == [f"u{user:05d}" for user in range(12)]
    assert [line.user_id for line in setup.folder.profiles().values()].count("u00003") == 1

    again = Once()
    other = make_engine(tmp_path / "elsewhere", again, data, cache=make_cache(tmp_path))
    await other.run()
    assert again.profiled == [] and all(line.reused for line in other.folder.profiles().values())
    assert {line.output for line in other.predictions().values()} == {"2 records"}
    other.close()

    longer = Once()
    third = make_engine(
        tmp_path / "longer",
        longer,
        headlines(tmp_path / "more", 12, records=3),
        cache=make_cache(tmp_path),
    )
    await third.run()
    assert len(longer.profiled) == 12
    third.close()


async def test_a_refresh_replaces_the_states_on_disk(tmp_path: Path) -> None:
    data = headlines(tmp_path / "data", 2)
    for policy, answer in (("use", "old"), ("refresh", "new")):
        setup = make_engine(
            tmp_path, Summary(), data, backend=Jittery(answer=lambda _, a=answer: a), policy=policy
        )  # type: ignore[arg-type]
        await setup.run()
        states = setup.folder.profiles()
        assert {line.state for line in states.values()} == {answer} and len(states) == 2
        assert {line.profile for line in setup.predictions().values()} == states.keys()
        setup.close()


async def test_an_interrupted_refresh_goes_on_and_a_finished_one_begins_anew(
    tmp_path: Path,
) -> None:
    data = headlines(tmp_path / "data", 12, each=2)

    async def command(backend: Jittery, interrupt: float | None = None) -> Counter[str]:
        setup = make_engine(
            tmp_path, Summary(), data, backend=backend, policy="refresh", concurrency=2
        )
        if interrupt:
            asyncio.get_running_loop().call_later(interrupt, os.kill, os.getpid(), signal.SIGINT)
        complete = await setup.run()
        assert complete is not bool(interrupt)
        if complete:
            setup.folder.refresh.end()
        assert all(line.error is None for line in setup.predictions().values())
        setup.close()
        return backend.asked

    whole = await command(Jittery())
    assert set(whole.values()) == {1}
    first = await command(Jittery(longest=0.03), interrupt=0.15)
    rest = await command(Jittery())
    assert 0 < first.total() < whole.total() and rest.total() > 0
    dropped_in_flight = first + rest - whole
    assert first + rest >= whole and dropped_in_flight.total() <= 2
    assert await command(Jittery()) == whole


async def test_tokens_the_server_had_at_hand_are_summed(tmp_path: Path) -> None:
    class Warm(Jittery):
        async def complete(self, request: Request, group: str) -> Response:
            return Response("fine", usage=Usage(50, 3, 32))

    setup = make_engine(
        tmp_path, NoPersonalization(), headlines(tmp_path / "data", 1), backend=Warm()
    )
    await setup.run()
    assert [line.usage for line in setup.predictions().values()] == [Usage(50, 3, 32)]
    setup.close()


async def test_a_state_is_the_same_whether_made_or_stored(tmp_path: Path) -> None:
    class Tuples(Method):
        name = "tuples"

        async def profile(self, user: User, ctx: Context) -> Any:
            return {"sizes": (len(user.history),)}

        async def predict(self, sample: Sample, state: Any, ctx: Context) -> str:
            return repr(state)

    data = headlines(tmp_path / "data", 2)
    answers = []
    for place in ("one", "two"):
        setup = make_engine(tmp_path / place, Tuples(), data, cache=make_cache(tmp_path))
        await setup.run()
        answers.append({line.output for line in setup.predictions().values()})
        setup.close()
    assert answers == [{"{'sizes': [2]}"}] * 2


def make_cache(place: Path) -> Any:
    from personabench.models.cache import Cache

    return Cache(place / "cache.sqlite")


@pytest.mark.parametrize("error", [BackendError, ZeroDivisionError])
async def test_a_failure_ends_the_sample_and_is_owed_again(
    tmp_path: Path, error: type[Exception]
) -> None:
    data = headlines(tmp_path / "data", 10)
    method = Once()
    method.failing, method.error = {"q00002-0", "q00007-0"}, error
    setup = make_engine(tmp_path, method, data)
    assert await setup.run()
    failed = {name: line for name, line in setup.predictions().items() if line.error}
    assert failed.keys() == method.failing and setup.engine.progress.failed == 2
    assert all(
        "the model said no" in (line.error or "") and line.output is None
        for line in failed.values()
    )
    assert all(line.attempts == 1 for line in setup.predictions().values())
    setup.close()

    method.failing = {"q00002-0"}
    for attempt in (2, 3):
        setup = make_engine(tmp_path, method, data)
        await setup.run()
        line = setup.predictions()["q00002-0"]
        assert line.attempts == attempt and line.error
        setup.close()
    recovered = setup.predictions()["q00007-0"]
    assert recovered.error is None and recovered.attempts == 2
    assert setup.predictions()["q00001-0"].attempts == 1


async def test_what_is_not_text_is_an_error_and_an_empty_answer_a_flag(tmp_path: Path) -> None:
    class Odd(Method):
        name = "odd"

        async def predict(self, sample: Sample, state: Any, ctx: Context) -> Any:
            return 4 if sample.id == "q00000-0" else " "

    setup = make_engine(tmp_path, Odd(), headlines(tmp_path / "data", 2))
    await setup.run()
    found = setup.predictions()
    assert "expected the answer as text (str), but it returned int 4" in (
        found["q00000-0"].error or ""
    )
    assert found["q00001-0"].error is None and found["q00001-0"].flags == {"empty_output": 1}
    setup.close()


async def test_methods_never_see_references(tmp_path: Path) -> None:
    seen: list[Sample] = []

    class Curious(Method):
        name = "curious"

        async def predict(self, sample: Sample, state: Any, ctx: Context) -> str:
            seen.append(sample)
            return "x"

    setup = make_engine(tmp_path, Curious())
    await setup.run()
    setup.close()
    assert seen and not any(sample.references for sample in seen)


async def test_a_fatal_error_stops_the_run_and_keeps_what_is_done(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    class Dying(Jittery):
        async def complete(self, request: Request, group: str) -> Response:
            if self.asked.total() >= 12:
                raise RunError("no space")
            return await super().complete(request, group)

    data = headlines(tmp_path / "data", 40)
    setup = make_engine(tmp_path, NoPersonalization(), data, backend=Dying(), concurrency=6)
    with pytest.raises(RunError, match="no space"):
        await setup.run()
    setup.close()
    assert len(setup.predictions()) == 12 and not any(
        line.error for line in setup.predictions().values()
    )
    assert "never retrieved" not in caplog.text

    backend = Jittery()
    setup = make_engine(tmp_path, NoPersonalization(), data, backend=backend)
    assert await setup.run()
    setup.close()
    assert len(setup.predictions()) == 40 and backend.asked.total() == 28


async def test_the_first_interrupt_finishes_what_is_in_flight(tmp_path: Path) -> None:
    backend = Jittery(longest=0.2)
    setup = make_engine(
        tmp_path,
        NoPersonalization(),
        headlines(tmp_path / "data", 50),
        backend=backend,
        concurrency=5,
    )
    asyncio.get_running_loop().call_later(0.1, os.kill, os.getpid(), signal.SIGINT)
    assert await setup.run() is False
    setup.close()
    done = setup.predictions()
    assert 5 <= len(done) < 50 and len(done) == backend.asked.total()
    assert not any(line.error for line in done.values())


async def test_the_second_interrupt_stops_at_once(tmp_path: Path) -> None:
    backend = Jittery(longest=60)
    setup = make_engine(
        tmp_path, Once(), headlines(tmp_path / "data", 20), backend=backend, concurrency=5
    )
    loop = asyncio.get_running_loop()
    for after in (0.1, 0.15):
        loop.call_later(after, os.kill, os.getpid(), signal.SIGINT)
    began = loop.time()
    assert await setup.run() is False
    setup.close()
    assert loop.time() - began < 5 and not any(line.error for line in setup.predictions().values())


async def test_the_grace_of_an_interrupt_ends(tmp_path: Path) -> None:
    setup = make_engine(
        tmp_path,
        NoPersonalization(),
        headlines(tmp_path / "data", 9),
        backend=Jittery(longest=600),
        grace=0.2,
    )
    loop = asyncio.get_running_loop()
    loop.call_later(0.05, os.kill, os.getpid(), signal.SIGTERM)
    began = loop.time()
    assert await setup.run() is False
    assert loop.time() - began < 5
    setup.close()


async def test_nothing_outlives_an_interrupted_run(tmp_path: Path) -> None:
    class Slow(Once):
        async def profile(self, user: User, ctx: Context) -> dict[str, int]:
            await asyncio.sleep(600)
            return {}

    setup = make_engine(tmp_path, Slow(), headlines(tmp_path / "data", 9), grace=0.05)
    asyncio.get_running_loop().call_later(0.05, os.kill, os.getpid(), signal.SIGINT)
    await setup.run()
    setup.close()
    assert [
        task for task in asyncio.all_tasks() if task.get_name() in ("profile", "worker 0")
    ] == []


async def test_acceptance_11_recency_without_dates_is_refused_before_any_call(
    tmp_path: Path,
) -> None:
    backend = Jittery()
    setup = make_engine(
        tmp_path, Recency(), headlines(tmp_path / "data", 3), backend=backend, dated=False
    )
    with pytest.raises(UsageError, match="sorts records by date"):
        await setup.run()
    setup.close()
    assert not backend.asked


def test_a_limit_takes_whole_users_and_a_larger_one_goes_on(tmp_path: Path) -> None:
    from personabench.api.registry import load_class

    dataset = load_class("task", "lamp4")().open("user/dev", headlines(tmp_path, 30, each=3))
    chosen = {limit: select(dataset, limit, seed=4) for limit in (1, 5, 20, 1000)}
    assert [len(positions) for positions in chosen.values()] == [3, 6, 21, 90]
    for smaller, larger in ((1, 5), (5, 20), (20, 1000)):
        assert chosen[larger][: len(chosen[smaller])] == chosen[smaller]
    assert sorted(select(dataset, None, 4)) == list(range(90))
    assert select(dataset, 5, seed=5) != chosen[5]


@pytest.mark.variants
async def test_memory_does_not_grow_with_the_number_of_samples(tmp_path: Path) -> None:
    peaks = {}
    for samples in (500, 3000):
        data = headlines(tmp_path / f"data{samples}", samples, records=1)
        setup = make_engine(
            tmp_path / str(samples), NoPersonalization(), data, backend=Jittery(0), concurrency=16
        )
        owed = setup.engine.owed(setup.positions)
        setup.engine.client.backend.asked = Ignoring()  # type: ignore[attr-defined]
        tracemalloc.start()
        await setup.engine.run(owed)
        peaks[samples] = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert setup.engine.progress.done == samples
        setup.close()
    per_sample = (peaks[3000] - peaks[500]) / 2500
    assert per_sample < 100, peaks


class Ignoring(dict[str, int]):
    """A counter that keeps nothing."""

    def __missing__(self, key: str) -> int:
        return 0

    def __setitem__(self, key: str, value: int) -> None:
        pass


def test_profiles_of_several_users_are_made_at_once() -> None:
    """Users' offline calls overlap although each user's samples come together."""
    inside, most = 0, 0

    class Studious(Method):
        name = "studious"

        async def profile(self, user: User, ctx: Context) -> str:
            nonlocal inside, most
            inside += 1
            most = max(most, inside)
            await asyncio.sleep(0.02)
            inside -= 1
            return user.id

        async def predict(self, sample: Sample, state: str, ctx: Context) -> str:
            assert state == sample.user_id
            return state

    result = trial(Studious(), "lamp4", concurrency=8)
    assert all(line.error is None for line in result.predictions)
    assert len(result.profiles) == len({line.user_id for line in result.predictions})
    assert 6 <= most <= 8
