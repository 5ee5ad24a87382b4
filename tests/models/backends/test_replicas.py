"""The vllm backend across several servers that imitate vLLM, go down and come back."""

from __future__ import annotations

import asyncio
import sys
from asyncio.subprocess import DEVNULL, PIPE
from collections import Counter
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from aiohttp import web
from fake_vllm import SECRET, FakeVLLM, Site, request
from vllm_fixtures import attaching

from personabench.errors import BackendDown, TransientError
from personabench.models.backends import replicas
from personabench.models.backends.base import BackendOptions
from personabench.models.backends.replicas import Replica, Replicas
from personabench.models.client import Client
from personabench.run import runner

CLI = (sys.executable, "-c", "from personabench.cli.app import main; main()")


@pytest_asyncio.fixture
async def sites(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[list[Site]]:
    monkeypatch.setenv("VLLM_API_KEY", SECRET)
    monkeypatch.setattr(replicas, "PROBE_FIRST", 0.02)
    made = [Site(FakeVLLM()) for _ in range(3)]
    for site in made:
        await site.up()
    yield made
    for site in made:
        await site.down()


@pytest_asyncio.fixture
async def attach(sites: list[Site]) -> AsyncIterator[Callable[..., Any]]:
    async with attaching(sites) as make:
        yield make


async def test_a_users_calls_stay_together_and_users_spread(
    sites: list[Site], attach: Callable[..., Any]
) -> None:
    backend = await attach(3)
    assert backend.concurrency == 3 * 256
    for user in range(60):
        for call in range(3):
            await backend.complete(request(f"u{user}-{call}"), f"u{user}")
    homes: dict[str, set[int]] = {}
    for at, site in enumerate(sites):
        for body in site.fake.bodies:
            homes.setdefault(body["messages"][0]["content"].partition("-")[0], set()).add(at)
    assert all(len(home) == 1 for home in homes.values())
    assert all(5 <= len(site.fake.bodies) // 3 <= 40 for site in sites)


async def test_load_is_bounded(sites: list[Site], attach: Callable[..., Any]) -> None:
    for site in sites:
        site.fake.latency = 0.2
    backend = await attach(3)
    await asyncio.gather(*(backend.complete(request(str(at)), "one user") for at in range(60)))
    assert all(len(site.fake.bodies) <= 26 for site in sites)


def test_calls_of_nobody_go_where_least_is_in_flight() -> None:
    async def well(_: Replica) -> bool:
        return True

    members = [Replica(f"http://h{at}/v1") for at in range(3)]
    pool = Replicas(members, well)
    for member, flying in zip(members, (3, 1, 2), strict=True):
        member.in_flight = flying
    assert pool.choose("") is members[1]


def test_losing_a_server_moves_only_its_users() -> None:
    async def well(_: Replica) -> bool:
        return True

    members = [Replica(f"http://h{at}/v1") for at in range(4)]
    pool = Replicas(members, well)
    before = {f"u{at}": pool.choose(f"u{at}") for at in range(400)}
    assert all(70 <= count <= 130 for count in Counter(before.values()).values())
    members[2].alive = False
    after = {user: pool.choose(user) for user in before}
    assert all((after[user] is home) == (home is not members[2]) for user, home in before.items())


async def test_a_dead_servers_calls_are_retried_elsewhere_and_it_is_used_again(
    sites: list[Site], attach: Callable[..., Any]
) -> None:
    for site in sites:
        site.fake.latency = 0.3
    backend = await attach(2)
    client = Client(backend, None, "off", concurrency=64)
    calls = [
        asyncio.create_task(client.complete(request(str(at)), "predict", f"u{at}"))
        for at in range(40)
    ]
    await asyncio.sleep(0.15)
    assert all(site.fake.bodies for site in sites[:2])
    before = len(sites[1].fake.bodies)
    await sites[0].down()
    answers = [response.text for response, _ in await asyncio.gather(*calls)]
    assert answers == [f"answer {at}" for at in range(40)]
    assert client.traffic.paid == 40 and client.traffic.retries == 0
    assert len(sites[1].fake.bodies) == 40 and before < 40

    sites[0].fake.bodies.clear()
    await sites[0].up()
    for at in range(200):
        await backend.complete(request(f"probe {at}"), f"u{at}")
        if sites[0].fake.bodies:
            break
        await asyncio.sleep(0.02)
    await asyncio.gather(
        *(client.complete(request(f"{at} again"), "predict", f"u{at}") for at in range(40))
    )
    assert len(sites[0].fake.bodies) > 5


async def test_a_server_that_comes_back_with_another_model_stays_out(
    sites: list[Site], attach: Callable[..., Any]
) -> None:
    backend = await attach(2)
    await sites[0].down()
    for at in range(20):
        await backend.complete(request(str(at)), f"u{at}")
    sites[0].fake.entries[0] |= {"id": "org/large", "root": "org/large"}
    sites[0].fake.bodies.clear()
    await sites[0].up()
    await asyncio.sleep(0.3)
    for at in range(20):
        await backend.complete(request(str(at)), f"u{at}")
    assert sites[0].fake.bodies == []


async def test_a_sick_server_is_left_out(sites: list[Site], attach: Callable[..., Any]) -> None:
    backend = await attach(2)
    await backend.complete(request(), "ann")
    home = next(site for site in sites if site.fake.bodies)
    home.fake.sick = True
    home.fake.faults = [web.json_response({"error": "the engine is dead"}, status=500)]
    with pytest.raises(TransientError, match="the engine is dead"):
        await backend.complete(request(), "ann")
    await backend.complete(request(), "ann")
    assert len(home.fake.bodies) == 2


async def test_one_of_two_missing_at_the_start(
    sites: list[Site], attach: Callable[..., Any]
) -> None:
    await sites[0].down()
    backend = await attach(2)
    for at in range(10):
        await backend.complete(request(str(at)), f"u{at}")
    assert len(sites[1].fake.bodies) == 10
    await sites[0].up()
    await asyncio.sleep(0.5)
    for at in range(10):
        await backend.complete(request(str(at)), f"u{at}")
    assert sites[0].fake.bodies


async def test_no_server_left(sites: list[Site], attach: Callable[..., Any]) -> None:
    backend = await attach(2)
    for site in sites:
        await site.down()
    client = Client(backend, None, "off", deadline=0.0)
    with pytest.raises(BackendDown, match=r"broke the connection|accepts no connection"):
        await client.complete(request(), "predict", "u")


async def test_a_run_across_two_servers_with_one_killed_in_the_middle(
    sites: list[Site], tmp_path: Path
) -> None:
    for site in sites:
        site.fake.latency = 0.1
    options = runner.Options(
        methods=["none"],
        tasks=["lamp4"],
        backend="vllm",
        backend_options=BackendOptions(base_url=sites[0].url, replicas=(sites[1].url,)),
        concurrency=6,
        results=tmp_path,
    )
    run = asyncio.create_task(runner.run(options))
    while len(sites[0].fake.bodies) < 3:
        await asyncio.sleep(0.01)
    await sites[0].down()
    (outcome,) = await run
    assert (outcome.summary.status, outcome.summary.n) == ("complete", 60)
    assert outcome.summary.counters["request_errors"] == 0
    usage = outcome.summary.usage["predict"]
    # Samples with the same request share its reply.
    assert usage.calls + usage.repeated == 60
    (log,) = outcome.folder.glob("attempts/*.log")
    assert f"{sites[0].url} is down" in log.read_text() and "prefix cache:" in log.read_text()
    for path in tmp_path.rglob("*"):
        assert path.is_dir() or SECRET.encode() not in path.read_bytes(), path


async def test_several_urls_on_the_command_line(sites: list[Site], tmp_path: Path) -> None:
    async def typed(*words: str) -> tuple[int | None, str]:
        line = ["run", "-m", "none", "-t", "lamp4", "-n", "12", "--results", str(tmp_path), *words]
        process = await asyncio.create_subprocess_exec(*CLI, *line, stdout=DEVNULL, stderr=PIPE)
        _, err = await process.communicate()
        return process.returncode, err.decode()

    urls = f"{sites[0].url}, {sites[1].url}"
    code, err = await typed("-b", "vllm", "--base-url", urls)
    assert code == 0, err
    assert sites[0].fake.bodies and sites[1].fake.bodies
    refused = (
        (("-b", "openai", "--base-url", urls), "several --base-url"),
        (("-b", "vllm", "--vllm-args", "'"), "quot"),
    )
    for words, said in refused:
        code, err = await typed(*words)
        assert code == 2 and said in err and "Traceback" not in err
