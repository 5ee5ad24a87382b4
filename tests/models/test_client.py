"""Cache policies, single flight, retries and the concurrency limit of the client."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from personabench.errors import (
    BackendDown,
    BackendError,
    BudgetExceeded,
    CacheMiss,
    Refused,
    RunError,
    Throttled,
    TransientError,
)
from personabench.models.backends.scripted import Scripted
from personabench.models.budget import Budget
from personabench.models.cache import Cache
from personabench.models.client import Client
from personabench.models.rate_limit import Limiter
from personabench.models.roles import Role
from personabench.types import Message, Request, Response, Usage


def ask(content: str, **changes: int) -> Request:
    return Request((Message("user", content),), max_tokens=changes.pop("max_tokens", 20), **changes)


class Naps:
    """Stands in for sleeping."""

    def __init__(self) -> None:
        self.taken: list[float] = []

    async def __call__(self, seconds: float) -> None:
        self.taken.append(seconds)
        await asyncio.sleep(0)


class Moody(Scripted):
    """Raises what `trouble` gives for each attempt, counted from 1; answers where it gives None."""

    def __init__(self, trouble: Callable[[int], Exception | None]) -> None:
        super().__init__()
        self.trouble = trouble
        self.attempts = 0

    async def complete(self, request: Request, group: str) -> Response:
        self.attempts += 1
        error = self.trouble(self.attempts)
        if error is not None:
            raise error
        return await super().complete(request, group)


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    return Cache(tmp_path / "cache.sqlite")


async def test_use_pays_once_and_books_the_rest_as_saved(cache: Cache) -> None:
    backend = Scripted()
    client = Client(backend, cache)
    first, paid = await client.complete(ask("a"), "predict", "u")
    second, saved = await client.complete(ask("a"), "judge", "u")
    assert first == second and len(backend.requests) == 1
    assert (paid.cached, saved.cached, saved.phase) == (False, True, "judge")
    assert (saved.input_tokens, saved.output_tokens) == (paid.input_tokens, paid.output_tokens)
    assert (client.traffic.paid, client.traffic.cached) == (1, 1)
    assert client.traffic.output_tokens == paid.output_tokens

    fresh = Scripted()
    _, call = await Client(fresh, cache).complete(ask("a"), "predict", "u")
    assert call.cached and not fresh.requests


@pytest.mark.parametrize("changed", ["seed", "repeat", "max_tokens", "logprobs"])
async def test_any_changed_field_is_another_call(cache: Cache, changed: str) -> None:
    backend = Scripted()
    client = Client(backend, cache)
    await client.complete(ask("a"), "predict", "u")
    await client.complete(ask("a", **{changed: 7}), "predict", "u")
    assert len(backend.requests) == 2


async def test_refresh_pays_again_and_overwrites(cache: Cache) -> None:
    await Client(Scripted(answer=lambda _: "old"), cache).complete(ask("a"), "predict", "u")
    response, call = await Client(Scripted(answer=lambda _: "new"), cache, "refresh").complete(
        ask("a"), "predict", "u"
    )
    assert response.text == "new" and not call.cached
    response, call = await Client(Scripted(), cache).complete(ask("a"), "predict", "u")
    assert response.text == "new" and call.cached


async def test_off_neither_reads_nor_writes(cache: Cache) -> None:
    await Client(Scripted(answer=lambda _: "old"), cache).complete(ask("a"), "predict", "u")
    backend = Scripted(answer=lambda _: "new")
    client = Client(backend, cache, "off")
    for name in ("a", "b"):
        response, call = await client.complete(ask(name), "predict", "u")
        assert response.text == "new" and not call.cached
    assert cache.stats()["responses"] == 1


async def test_only_never_calls_and_says_what_differs(cache: Cache) -> None:
    await Client(Scripted(), cache).complete(ask("the same start, then this"), "predict", "u")
    backend = Scripted()
    client = Client(backend, cache, "only")
    _, call = await client.complete(ask("the same start, then this"), "predict", "u")
    assert call.cached
    with pytest.raises(
        CacheMiss, match=r"messages\[0\] \(user\) from character 23: wanted 'at', stored 'is'"
    ):
        await client.complete(ask("the same start, then that"), "predict", "u")
    with pytest.raises(CacheMiss, match="seed: wanted 3, stored 0"):
        await Client(backend, cache, "only").complete(
            ask("the same start, then this", seed=3), "predict", "u"
        )
    assert not backend.requests


async def test_only_the_first_of_many_misses_is_compared_with_all_that_is_stored(
    cache: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    await Client(Scripted(), cache).complete(ask("a"), "predict", "u")
    compared: list[Request] = []
    nearest = cache.nearest
    monkeypatch.setattr(
        cache, "nearest", lambda model, request: compared.append(request) or nearest(model, request)
    )
    client = Client(Scripted(), cache, "only")
    said = []
    for name in "bcd":
        with pytest.raises(CacheMiss, match="not in the cache") as caught:
            await client.complete(ask(name), "predict", "u")
        said.append(str(caught.value))
    assert compared == [ask("b")] and "nearest stored call differs" in said[0]
    assert all("cache why" in words for words in said[1:]) and said[1] != said[2]


class Replying(Scripted):
    """Gives one response, whatever is asked."""

    def __init__(self, text: str, finish: str = "stop") -> None:
        super().__init__()
        self.given = text, finish

    async def complete(self, request: Request, group: str) -> Response:
        return Response(*self.given, Usage(1, request.max_tokens))


async def test_half_a_surrogate_pair_is_replaced_where_the_reply_enters(cache: Cache) -> None:
    for _ in range(2):
        client = Client(Replying("nice \ud83d, \U0001f600\udc00"), cache)
        response, _ = await client.complete(ask("a"), "predict", "u")
        assert response.text == "nice \ufffd, \U0001f600\ufffd"
    assert cache.stats()["responses"] == 1


async def test_another_model_is_another_call(cache: Cache) -> None:
    from personabench.models.backends.base import BackendOptions

    await Client(Scripted(BackendOptions(model="one")), cache).complete(ask("a"), "predict", "u")
    with pytest.raises(CacheMiss, match="model: wanted"):
        await Client(Scripted(BackendOptions(model="two")), cache, "only").complete(
            ask("a"), "predict", "u"
        )


@pytest.mark.parametrize("policy", ["use", "off"])
async def test_identical_calls_under_way_are_one_call(cache: Cache, policy: str) -> None:
    backend = Scripted(latency=0.02)
    client = Client(backend, cache, policy)  # type: ignore[arg-type]
    results = await asyncio.gather(
        *(client.complete(ask("a"), "predict", str(n)) for n in range(20))
    )
    assert len(backend.requests) == 1
    assert sorted(call.cached for _, call in results) == [False] + [True] * 19


async def test_a_failed_flight_fails_for_all_and_is_not_remembered(cache: Cache) -> None:
    class Late(Moody):
        async def complete(self, request: Request, group: str) -> Response:
            await asyncio.sleep(0.01)
            return await super().complete(request, group)

    client = Client(Late(lambda attempt: BackendError("refused") if attempt == 1 else None), cache)
    results = await asyncio.gather(
        *(client.complete(ask("a"), "predict", "u") for _ in range(3)), return_exceptions=True
    )
    assert [str(result) for result in results] == ["refused"] * 3
    _, call = await client.complete(ask("a"), "predict", "u")
    assert not call.cached


async def test_who_waits_survives_the_cancelling_of_another_who_waits(cache: Cache) -> None:
    client = Client(Scripted(latency=0.03), cache)
    owner, cancelled, waiting = (
        asyncio.create_task(client.complete(ask("a"), "predict", "u")) for _ in range(3)
    )
    await asyncio.sleep(0.01)
    cancelled.cancel()
    assert (await waiting)[0] == (await owner)[0]


@pytest.mark.parametrize(
    ("text", "finish", "spent", "kept"),
    [
        ("fine", "stop", 3, 1),
        ("cut at its own limit", "length", 20, 1),
        ("cut before its limit", "length", 7, 0),
        ("broken off by a filter", "refused", 20, 0),
        ("<think>nothing but a thought", "length", 20, 0),
        ("", "stop", 0, 0),
        (" \n", "stop", 1, 0),
    ],
)
async def test_empty_and_cut_off_answers_are_not_stored(
    cache: Cache, text: str, finish: str, spent: int, kept: int
) -> None:
    class Fixed(Scripted):
        async def complete(self, request: Request, group: str) -> Response:
            return Response(text, finish, Usage(5, spent))

    await Client(Fixed(), cache).complete(ask("a"), "predict", "u")
    assert cache.stats()["responses"] == kept


async def test_transient_errors_are_tried_again_with_growing_pauses(cache: Cache) -> None:
    backend = Moody(lambda attempt: TransientError("busy") if attempt <= 4 else None)
    naps = Naps()
    client = Client(backend, cache, sleep=naps)  # type: ignore[arg-type]
    response, call = await client.complete(ask("a"), "predict", "u")
    assert (
        response.text and not call.cached and backend.attempts == 5 and client.traffic.retries == 4
    )
    for pause, middle in zip(naps.taken, (0.5, 1, 2, 4), strict=True):
        assert middle * 0.5 <= pause <= middle * 1.5


async def test_retry_after_is_honoured(cache: Cache) -> None:
    backend = Moody(lambda attempt: TransientError("slow down", 7.5) if attempt <= 2 else None)
    naps = Naps()
    await Client(backend, cache, sleep=naps).complete(ask("a"), "predict", "u")  # type: ignore[arg-type]
    assert naps.taken == [7.5, 7.5]


async def test_a_retry_after_of_nothing_still_pauses(cache: Cache) -> None:
    backend = Moody(lambda attempt: TransientError("slow down", 0.0) if attempt <= 2 else None)
    naps = Naps()
    await Client(backend, cache, sleep=naps).complete(ask("a"), "predict", "u")  # type: ignore[arg-type]
    assert len(naps.taken) == 2 and min(naps.taken) > 0


async def test_a_receipt_keeps_the_tokens_the_server_had_at_hand(cache: Cache) -> None:
    class Warm(Scripted):
        async def complete(self, request: Request, group: str) -> Response:
            return Response("fine", usage=Usage(50, 3, 32))

    client = Client(Warm(), cache)
    for _ in range(2):
        _, call = await client.complete(ask("a"), "predict", "u")
        assert call.cached_tokens == 32


@pytest.mark.parametrize(
    "error", [BackendError("400: no"), BackendDown("401: key"), ValueError("odd"), RunError("full")]
)
async def test_nothing_else_is_tried_again(cache: Cache, error: Exception) -> None:
    backend = Moody(lambda _: error)
    with pytest.raises(type(error), match=str(error)):
        await Client(backend, cache).complete(ask("a"), "predict", "u")
    assert backend.attempts == 1 and cache.stats()["responses"] == 0


async def test_retries_are_told_by_kind_and_calls_in_anothers_name(cache: Cache) -> None:
    class Other(Moody):
        async def complete(self, request: Request, group: str) -> Response:
            return msgspec.structs.replace(await super().complete(request, group), model="another")

    troubles = [
        TransientError("x", kind="timeout"),
        Throttled("x", None, "429"),
        Throttled("x", None, "429"),
        None,
    ]
    backend = Other(lambda attempt: troubles[min(attempt, 4) - 1])
    client = Client(backend, cache, sleep=Naps())  # type: ignore[arg-type]
    flags: list[str] = []
    await client.complete(ask("a"), "predict", "u", flag=flags.append)
    assert flags == ["retried_timeout", "retried_429", "retried_429", "other_model"]
    flags.clear()
    await client.complete(ask("a"), "predict", "u", flag=flags.append)
    assert flags == ["other_model"]


async def test_waiting_for_ones_turn_does_not_use_up_the_time_for_retries(cache: Cache) -> None:
    backend = Moody(lambda attempt: TransientError("busy", 0.01) if attempt == 2 else None)
    client = Client(backend, cache, concurrency=1, deadline=0.15, sleep=Naps())  # type: ignore[arg-type]
    client.limiter = Limiter(1, rpm=150)
    await client.complete(ask("a"), "predict", "u")
    _, call = await client.complete(ask("b"), "predict", "u")
    assert not call.cached and backend.attempts == 3


async def test_the_first_calls_all_refused_alike_end_the_run(cache: Cache) -> None:
    backend = Moody(
        lambda attempt: Refused(f"answered 400: no field 'seed' (request {attempt})", 400)
    )
    client = Client(backend, cache)
    for name in "abcdefg":
        with pytest.raises(Refused):
            await client.complete(ask(name), "predict", "u")
    with pytest.raises(
        BackendDown, match=r"first 8 calls were all refused alike: answered 400: no field 'seed'"
    ):
        await client.complete(ask("h"), "predict", "u")


@pytest.mark.parametrize(
    "words",
    [
        lambda attempt: "maximum context length is 4096 tokens",
        lambda attempt: "blocked by the content management policy",
        lambda attempt: "no field 'seed'" if attempt % 2 else "no field 'top_p'",
    ],
)
async def test_prompts_refused_for_what_they_hold_end_their_samples_only(
    cache: Cache, words: Callable[[int], str]
) -> None:
    client = Client(Moody(lambda attempt: Refused(words(attempt), 400)), cache)
    for number in range(20):
        with pytest.raises(Refused):
            await client.complete(ask(str(number)), "predict", "u")


async def test_refusals_after_an_answer_end_their_samples_only(cache: Cache) -> None:
    client = Client(Moody(lambda attempt: Refused("no", 400) if attempt > 1 else None), cache)
    await client.complete(ask("good"), "predict", "u")
    for number in range(20):
        with pytest.raises(Refused):
            await client.complete(ask(str(number)), "predict", "u")


async def test_cached_and_failed_calls_cost_nothing(cache: Cache) -> None:
    budget = Budget({"scripted": {"input": 1e6, "output": 2e6}})
    backend = Moody(lambda attempt: TransientError("busy") if attempt == 1 else None)
    client = Client(backend, cache, sleep=Naps(), budget=budget)  # type: ignore[arg-type]
    _, call = await client.complete(ask("a"), "predict", "u")
    paid = call.input_tokens + 2 * call.output_tokens
    assert budget.spent == paid > 0
    await client.complete(ask("a"), "predict", "u")
    with pytest.raises(BackendError):
        await Client(Moody(lambda _: BackendError("no")), cache, budget=budget).complete(
            ask("b"), "predict", "u"
        )
    assert budget.spent == paid


async def test_replies_that_were_broken_off_cost_their_tokens_and_are_asked_for_a_few_times(
    cache: Cache,
) -> None:
    class Breaking(Scripted):
        async def complete(self, request: Request, group: str) -> Response:
            await super().complete(request, group)
            return Response("half an", "interrupted", Usage(10, 5), ending="abort")

    budget = Budget({"scripted": {"input": 1e6, "output": 1e6}})
    backend = Breaking()
    with pytest.raises(
        BackendError, match="broke a reply off, or ended it in the word 'abort'"
    ) as caught:
        await Client(backend, cache, sleep=Naps(), budget=budget).complete(ask("a"), "predict", "u")  # type: ignore[arg-type]
    assert not isinstance(caught.value, BackendDown) and len(backend.requests) == 3
    assert budget.spent == 3 * 15 and cache.stats()["responses"] == 0


async def test_a_role_names_its_replies_that_are_not_whole(cache: Cache) -> None:
    for finish, flag in (("length", "judge_truncated"), ("refused", "judge_refused")):
        judge = Role("judge", Client(Replying("<think>Hm</think>5", finish), cache, "off"), "u", 0)
        assert await judge.complete("How good?", max_tokens=20) == "5"
        assert judge.flags == {flag: 1}


async def test_no_allowance_for_tokens_is_given_back_where_the_server_does_not_count(
    cache: Cache,
) -> None:
    class Silent(Scripted):
        async def complete(self, request: Request, group: str) -> Response:
            return Response("fine")

    given: list[tuple[int, int | None]] = []
    client = Client(Silent(), cache)
    client.limiter = Limiter(1, tpm=1e9)
    client.limiter.leave = lambda set_aside, used: given.append((set_aside, used))  # type: ignore[method-assign]
    flags: list[str] = []
    await client.complete(ask("a"), "predict", "u", flag=flags.append)
    ((set_aside, used),) = given
    assert used is not None and used >= set_aside > 20 and flags == ["usage_missing"]


async def test_spending_stops_before_the_limit(cache: Cache) -> None:
    budget = Budget({"scripted": {"input": 0.0, "output": 1e6}}, 50.0)
    client = Client(Scripted(answer=lambda _: "two", latency=0.001), cache, budget=budget)
    results = await asyncio.gather(
        *(client.complete(ask(str(number)), "predict", "u") for number in range(60)),
        return_exceptions=True,
    )
    assert budget.spent == sum(not isinstance(result, Exception) for result in results) == 31
    assert all(isinstance(result, BudgetExceeded) for result in results[31:])


async def test_a_model_that_never_answers_ends_the_run_at_the_deadline(cache: Cache) -> None:
    client = Client(Moody(lambda _: TransientError("503")), cache, deadline=0.0)
    with pytest.raises(BackendDown, match="503; given up after 0 s of retries"):
        await client.complete(ask("a"), "predict", "u")
    with pytest.raises(BackendDown, match="asks to wait 3600 s, but calls are retried for 300 s"):
        patient = Client(Moody(lambda _: TransientError("429", 3600.0)), cache, deadline=300.0)
        await patient.complete(ask("a"), "predict", "u")


async def test_one_request_that_never_succeeds_while_others_do_ends_its_sample_only(
    cache: Cache,
) -> None:
    class Poisoned(Scripted):
        async def complete(self, request: Request, group: str) -> Response:
            if request.messages[0].content == "poison":
                await asyncio.sleep(0.02)
                raise TransientError("500")
            return await super().complete(request, group)

    client = Client(Poisoned(), cache, deadline=0.01)
    results = await asyncio.gather(
        client.complete(ask("poison"), "predict", "u"),
        client.complete(ask("a"), "predict", "u"),
        return_exceptions=True,
    )
    assert isinstance(results[0], BackendError) and not isinstance(
        results[0], BackendDown | RunError
    )
    assert not isinstance(results[1], BaseException)


async def test_waiting_for_a_retry_leaves_the_slot_to_others(cache: Cache) -> None:
    backend = Moody(lambda attempt: TransientError("busy", 0.2) if attempt == 1 else None)
    client = Client(backend, cache, concurrency=1)
    first = asyncio.create_task(client.complete(ask("a"), "predict", "u"))
    await asyncio.sleep(0.01)
    await asyncio.wait_for(client.complete(ask("b"), "predict", "u"), 0.1)
    assert not first.done()
    await first


async def test_a_response_is_stored_before_it_is_handed_on(cache: Cache) -> None:
    client = Client(Scripted(), cache)
    _, call = await client.complete(ask("a"), "predict", "u")
    assert Cache(cache.path).get(call.key) is not None
