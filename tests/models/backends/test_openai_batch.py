"""Batch jobs against a loopback server that keeps them as the API does."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from aiohttp import web
from fake_api import SECRET, Server, completion, options, said, serving

from personabench.errors import DataError, RunError, UsageError
from personabench.models import client
from personabench.models.backends import openai_batch
from personabench.models.backends.base import BackendOptions
from personabench.models.backends.openai import OpenAI
from personabench.run import runner


class Jobs:
    """Files and batches; `polls` is how often a batch is asked about before it is done.

    `line` makes the answer to one call, None for none; `status` is how batches end; `ready` holds
    them back.
    """

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.sizes: list[int] = []
        self.inputs: list[str] = []
        self.endpoints: list[str] = []
        self.polled = 0
        self.status = "completed"
        self.ready = asyncio.Event()
        self.ready.set()
        self.trouble: list[web.Response] = []
        self.line: Callable[[str], dict[str, Any] | None] = self.answer

    @staticmethod
    def answer(text: str) -> dict[str, Any] | None:
        return {
            "response": {"status_code": 200, "body": json.loads(completion("Dry again").text or "")}
        }

    async def upload(self, http: web.Request) -> web.Response:
        form = await http.post()
        assert form["purpose"] == "batch"
        name = f"file-{len(self.files)}"
        self.files[name] = form["file"].file.read()  # type: ignore[union-attr]
        return web.json_response(self._file(name))

    async def create(self, http: web.Request) -> web.Response:
        if self.trouble:
            return self.trouble.pop(0)
        body = await http.json()
        assert body["completion_window"] == "24h"
        self.endpoints.append(body["endpoint"])
        self.inputs.append(body["input_file_id"])
        self.sizes.append(len(self.files[body["input_file_id"]].splitlines()))
        return web.json_response(self._batch(len(self.inputs) - 1, "validating"))

    async def retrieve(self, http: web.Request) -> web.Response:
        if self.trouble:
            return self.trouble.pop(0)
        self.polled += 1
        number = int(http.match_info["id"].removeprefix("batch-"))
        if not self.ready.is_set():
            return web.json_response(self._batch(number, "in_progress"))
        files: dict[str, list[str]] = {"output_file_id": [], "error_file_id": []}
        for line in self.files[self.inputs[number]].splitlines():
            call = json.loads(line)
            assert call["method"] == "POST" and call["body"]["model"] == "tiny"
            assert call["url"] == self.endpoints[number]
            body = call["body"]
            made = self.line(
                body["prompt"] if "prompt" in body else body["messages"][-1]["content"]
            )
            if made is not None:
                kind = "output_file_id" if made.get("response") else "error_file_id"
                files[kind].append(
                    json.dumps({"id": "x", "custom_id": call["custom_id"], "error": None, **made})
                )
        named = {kind: f"{kind}-{number}" for kind, lines in files.items() if lines}
        self.files |= {named[kind]: "\n".join(reversed(files[kind])).encode() for kind in named}
        return web.json_response({**self._batch(number, self.status), **named})

    async def content(self, http: web.Request) -> web.Response:
        return web.Response(body=self.files[http.match_info["id"]])

    def _file(self, name: str) -> dict[str, Any]:
        return {
            "id": name,
            "object": "file",
            "bytes": 1,
            "created_at": 0,
            "filename": "f",
            "purpose": "batch",
        }

    def _batch(self, number: int, status: str) -> dict[str, Any]:
        failed = {"object": "list", "data": [{"code": "c", "message": f"too much for {SECRET}"}]}
        return {
            "id": f"batch-{number}",
            "object": "batch",
            "completion_window": "24h",
            "created_at": 0,
            "endpoint": "/v1/chat/completions",
            "input_file_id": self.inputs[number],
            "status": status,
            "errors": failed if status == "failed" else None,
        }


async def _complete_text(http: web.Request) -> web.Response:
    choice = {"index": 0, "text": '{"word": "yes"}', "finish_reason": "stop"}
    return web.json_response({"model": "tiny", "choices": [choice]})


@pytest_asyncio.fixture
async def jobs(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Jobs]:
    monkeypatch.setattr(openai_batch, "WINDOW", 0.1)
    monkeypatch.setattr(openai_batch, "POLL", 0.02)
    kept = Jobs()

    def routes(app: web.Application) -> None:
        app.router.add_post("/v1/completions", _complete_text)
        app.router.add_post("/v1/files", kept.upload)
        app.router.add_get("/v1/files/{id}/content", kept.content)
        app.router.add_post("/v1/batches", kept.create)
        app.router.add_get("/v1/batches/{id}", kept.retrieve)

    async with serving(monkeypatch, routes) as server:
        kept.server = server  # type: ignore[attr-defined]
        yield kept


@pytest.fixture
def server(jobs: Jobs) -> Server:
    found: Server = jobs.server  # type: ignore[attr-defined]
    return found


def asked(server: Server, tmp_path: Path, samples: int = 8) -> runner.Options:
    return options(
        server, tmp_path, samples, concurrency=64, batch=tmp_path / "results" / "batches"
    )


def notes(tmp_path: Path) -> list[Path]:
    return list((tmp_path / "results" / "batches").glob("*.json"))


async def test_calls_of_a_run_are_one_batch(jobs: Jobs, server: Server, tmp_path: Path) -> None:
    (outcome,) = await runner.run(asked(server, tmp_path))
    assert (
        outcome.summary.status == "complete"
        and outcome.summary.metrics["official"]["rouge-1"] == 1.0
    )
    assert jobs.sizes == [8] and not server.bodies and not notes(tmp_path)
    (again,) = await runner.run(asked(server, tmp_path))
    assert again.summary.metrics == outcome.summary.metrics and jobs.sizes == [8]


async def test_a_base_model_gets_a_batch_of_completions(
    jobs: Jobs, server: Server, tmp_path: Path
) -> None:
    server.probes_too = True
    server.replies = [said(400, "you must provide a chat template")]
    choice = {"index": 0, "text": "Dry again", "finish_reason": "stop"}
    body = {
        "model": "tiny",
        "choices": [choice],
        "usage": {"prompt_tokens": 90, "completion_tokens": 2},
    }
    jobs.line = lambda text: {"response": {"status_code": 200, "body": body}}
    (outcome,) = await runner.run(asked(server, tmp_path))
    assert outcome.summary.status == "complete" and jobs.endpoints == ["/v1/completions"]
    assert outcome.summary.metrics["official"]["rouge-1"] == 1.0


async def test_a_model_that_only_streams_takes_no_batch(
    jobs: Jobs, server: Server, tmp_path: Path
) -> None:
    server.probes_too = True
    server.replies = [said(400, "This model only support stream mode")]
    with pytest.raises(RunError, match="leave out --batch"):
        await runner.run(asked(server, tmp_path))
    assert not jobs.inputs
    with pytest.raises(UsageError, match="not with --extra stream"):
        OpenAI(BackendOptions(batch=tmp_path, extra={"stream": True}))


@pytest.mark.parametrize("limit", ["MAX_CALLS", "MAX_BYTES"])
async def test_more_calls_than_a_file_takes_are_several_batches(
    jobs: Jobs, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: str
) -> None:
    (outcome,) = await runner.run(replace(asked(server, tmp_path), limit=1))
    size = len(jobs.files[jobs.inputs[0]])
    monkeypatch.setattr(openai_batch, limit, 3 if limit == "MAX_CALLS" else 3 * size + 30)
    (outcome,) = await runner.run(replace(asked(server, tmp_path), cache="off"))
    assert outcome.summary.status == "complete" and jobs.sizes == [1, 3, 3, 1]
    most = max(len(jobs.files[name]) for name in jobs.inputs)
    assert limit == "MAX_CALLS" or most <= openai_batch.MAX_BYTES


async def test_calls_that_need_answers_are_the_next_batch(
    jobs: Jobs, server: Server, tmp_path: Path
) -> None:
    (outcome,) = await runner.run(replace(asked(server, tmp_path), methods=["summary"]))
    assert outcome.summary.status == "complete"
    assert len(jobs.sizes) == 2 and jobs.sizes[-1] == 8


async def test_a_batch_that_is_out_is_found_again(
    jobs: Jobs, server: Server, tmp_path: Path
) -> None:
    jobs.ready.clear()
    run = asyncio.create_task(runner.run(asked(server, tmp_path)))
    async with asyncio.timeout(20):
        while not jobs.polled:
            await asyncio.sleep(0.01)
    run.cancel()
    await asyncio.gather(run, return_exceptions=True)
    assert len(notes(tmp_path)) == 1
    written = [path for path in (tmp_path / "results").rglob("*") if path.is_file()]
    assert all(SECRET.encode() not in path.read_bytes() for path in written)
    jobs.ready.set()
    (outcome,) = await runner.run(asked(server, tmp_path))
    assert outcome.summary.status == "complete" and jobs.sizes == [8] and not notes(tmp_path)


async def test_a_note_stays_while_answers_of_its_batch_are_not_asked_for(
    jobs: Jobs, server: Server, tmp_path: Path
) -> None:
    jobs.ready.clear()
    run = asyncio.create_task(runner.run(asked(server, tmp_path)))
    async with asyncio.timeout(20):
        while not jobs.polled:
            await asyncio.sleep(0.01)
    run.cancel()
    await asyncio.gather(run, return_exceptions=True)
    jobs.ready.set()
    (part,) = await runner.run(replace(asked(server, tmp_path), limit=3))
    assert part.summary.n == 3 and len(notes(tmp_path)) == 1
    (whole,) = await runner.run(asked(server, tmp_path))
    assert whole.summary.n == 8 and jobs.sizes == [8] and not notes(tmp_path)


async def test_calls_that_fail_in_a_batch_are_owed_and_sent_again(
    jobs: Jobs, server: Server, tmp_path: Path
) -> None:
    def some(text: str) -> dict[str, Any] | None:
        if "story 1" in text:
            return {"error": {"code": "odd", "message": f"no {SECRET}"}}
        if "story 2" in text:
            body = json.loads(said(400, "maximum context length is 9").text or "")
            return {"response": {"status_code": 400, "body": body}}
        return Jobs.answer(text)

    jobs.line = some
    (outcome,) = await runner.run(asked(server, tmp_path))
    assert (outcome.summary.n, outcome.summary.owed) == (6, 2)
    lines = (outcome.folder / "predictions.jsonl").read_text()
    assert (
        "answered in a batch: odd: no ***" in lines
        and "answered 400" in lines
        and SECRET not in lines
    )
    jobs.line = Jobs.answer
    (outcome,) = await runner.run(asked(server, tmp_path))
    assert outcome.summary.status == "complete" and jobs.sizes == [8, 2]


async def test_an_expired_batch_keeps_what_it_answered(
    jobs: Jobs, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client, "RETRY_FIRST", 0.001)

    def slow(text: str) -> dict[str, Any] | None:
        jobs.status = "expired" if len(jobs.sizes) == 1 else "completed"
        return None if "story 1" in text and len(jobs.sizes) == 1 else Jobs.answer(text)

    jobs.line = slow
    (outcome,) = await runner.run(asked(server, tmp_path))
    assert outcome.summary.status == "complete" and jobs.sizes == [8, 1]
    assert outcome.summary.counters["retried_batch"] == 1


async def test_calls_that_an_expired_batch_lists_are_sent_again(
    jobs: Jobs, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client, "RETRY_FIRST", 0.001)

    def expire(text: str) -> dict[str, Any] | None:
        jobs.status = "expired" if len(jobs.sizes) == 1 else "completed"
        if "story 1" in text and len(jobs.sizes) == 1:
            return {"error": {"code": "batch_expired", "message": "not executed in time"}}
        return Jobs.answer(text)

    jobs.line = expire
    (outcome,) = await runner.run(asked(server, tmp_path))
    assert outcome.summary.status == "complete" and jobs.sizes == [8, 1]


async def test_a_refused_batch_ends_the_run_with_the_servers_words(
    jobs: Jobs, server: Server, tmp_path: Path
) -> None:
    jobs.status = "failed"
    jobs.line = lambda _: None
    with pytest.raises(RunError, match=r"refused a batch of 8 calls: too much for \*\*\*"):
        await runner.run(asked(server, tmp_path))
    assert not notes(tmp_path)


async def test_a_wrong_key_ends_the_run(jobs: Jobs, server: Server, tmp_path: Path) -> None:
    jobs.trouble = [said(401, f"bad key {SECRET}")]
    with pytest.raises(RunError, match=r"401: .*bad key \*\*\*.*check OPENAI_API_KEY"):
        await runner.run(asked(server, tmp_path))


async def test_trouble_while_waiting_is_sat_out(jobs: Jobs, server: Server, tmp_path: Path) -> None:
    jobs.ready.clear()
    run = asyncio.create_task(runner.run(asked(server, tmp_path)))
    async with asyncio.timeout(20):
        while not jobs.polled:
            await asyncio.sleep(0.01)
    jobs.trouble = [said(500, "oops"), said(429, "slow down")]
    jobs.ready.set()
    (outcome,) = await run
    assert outcome.summary.status == "complete" and jobs.sizes == [8] and not jobs.trouble


async def test_a_damaged_note_is_named(server: Server, tmp_path: Path) -> None:
    folder = tmp_path / "batches"
    folder.mkdir()
    (folder / "x.json").write_text('{"api": ')
    made = OpenAI(BackendOptions(base_url=server.url, batch=folder))
    with pytest.raises(DataError, match=r"x\.json is damaged.*delete it"):
        await made.identify()
    await made.aclose()


def test_batches_are_not_for_azure(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--batch: not with --api-version"):
        OpenAI(BackendOptions(batch=tmp_path, api_version="v"))
