"""Which requests are one call: greedy ones of all seeds, and sampled ones of one sample only."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from engine_fixtures import ModelServer, model_server, options

from personabench.hashing import digest
from personabench.models.backends.base import BackendOptions
from personabench.models.backends.scripted import Scripted, echo
from personabench.results.run_folder import RunFolder
from personabench.run import runner
from personabench.types import Request, Sampling

SAMPLED = Sampling(temperature=0.8)


def run(chosen: runner.Options, backend: Scripted | None = None) -> runner.Outcome:
    (outcome,) = asyncio.run(runner.run(chosen, backend=backend))
    return outcome


def calls_of(outcome: runner.Outcome) -> tuple[int, int]:
    """The calls for answers, and how many of them were cached."""
    usage = outcome.summary.usage["predict"]
    return usage.calls, usage.cached


def outputs_of(outcome: runner.Outcome) -> dict[str, str | None]:
    return {line.sample_id: line.output for line in RunFolder(outcome.folder).iter_predictions()}


def echo_of_seed(request: Request) -> str:
    """An answer that depends on the seed, as that of a sampling model."""
    return f"{echo(request)} {request.seed}"


def prompts_of(requests: Sequence[Request]) -> Counter[str]:
    return Counter(digest(request.messages) for request in requests)


def test_greedy_calls_of_a_further_seed_are_not_paid_again(tmp_path: Path) -> None:
    first = run(options(tmp_path, limit=8))
    assert calls_of(first)[1] < calls_of(first)[0]
    for seed in (1, 2):
        again = run(options(tmp_path, limit=8, draw=0, seed=seed))
        calls, cached = calls_of(again)
        assert cached == calls > 0
        assert again.summary.fingerprint != first.summary.fingerprint
        assert outputs_of(again) == outputs_of(first)


def test_a_server_is_not_asked_again_for_a_further_seed(tmp_path: Path) -> None:
    with model_server(latency=0.0) as server:
        greedy = _server_options(tmp_path, server)
        run(greedy)
        paid = server.asked.total()
        run(_server_options(tmp_path, server, seed=1))
        assert server.asked.total() == paid

        # Without a temperature in the request the server samples, so its seeds are calls apart.
        omitted = BackendOptions(base_url=server.url, model="tiny", omit=("temperature",))
        run(_server_options(tmp_path, server, backend_options=omitted))
        paid = server.asked.total()
        run(_server_options(tmp_path, server, backend_options=omitted, seed=1))
        assert server.asked.total() > paid


def _server_options(results: Path, server: ModelServer, **changes: Any) -> runner.Options:
    chosen: dict[str, Any] = {
        "backend": "openai",
        "backend_options": BackendOptions(base_url=server.url, model="tiny"),
        "limit": 2,
        "draw": 0,
    }
    return options(results, **{**chosen, **changes})


def test_equal_sampled_requests_of_two_samples_are_independent(tmp_path: Path) -> None:
    model = Scripted(answer=echo_of_seed)
    first = run(options(tmp_path / "a", tasks="personalllm", sampling=SAMPLED), model)
    calls, cached = calls_of(first)
    assert cached == 0
    assert len(model.requests) == calls
    # The example data asks several users for the same, so that this test can fail.
    assert max(prompts_of(model.requests).values()) > 1
    assert len({request.seed for request in model.requests}) == calls

    # The same samples get the same seeds, in another order and in a new folder.
    repeated = run(
        options(tmp_path / "b", tasks="personalllm", sampling=SAMPLED, concurrency=1),
        Scripted(answer=echo_of_seed),
    )
    assert outputs_of(repeated) == outputs_of(first)
    other_seed = run(
        options(tmp_path / "a", tasks="personalllm", sampling=SAMPLED, seed=1),
        Scripted(answer=echo_of_seed),
    )
    assert calls_of(other_seed)[1] == 0
    assert outputs_of(other_seed) != outputs_of(first)


def test_a_resumed_run_gets_the_draws_that_it_paid_for(tmp_path: Path) -> None:
    part = run(options(tmp_path, sampling=SAMPLED, limit=5), Scripted(answer=echo_of_seed))
    shared = outputs_of(part)
    (tmp_path / "runs").rename(tmp_path / "lost")
    whole = run(options(tmp_path, sampling=SAMPLED, limit=12), Scripted(answer=echo_of_seed))
    assert outputs_of(whole).items() > shared.items()
    assert calls_of(whole)[1] == len(shared)


@pytest.mark.parametrize("method", ["dpl", "cipher"])
def test_work_on_records_is_shared_by_the_samples_that_need_it(tmp_path: Path, method: str) -> None:
    model = Scripted(answer=echo_of_seed)
    run(options(tmp_path, method, "reviews", sampling=SAMPLED, limit=4), model)
    by_seed = Counter(request.seed for request in model.requests)
    # Differences and drafts have the run's seed; answers have one for each sample.
    assert by_seed[0] > 1
    assert len(by_seed) > 1
    shared = [digest(request) for request in model.requests if request.seed == 0]
    assert len(set(shared)) == len(shared)
