"""Calls gathered into batch jobs, which APIs answer within a day at a lower price.

Methods ask one call after the other, so a batch is what waits at one moment: it is sent when nothing has joined it for
a while, and the answers of one batch set off the calls of the next.  A batch that is out is noted in a file of its own
until its answers were handed on, so that a command that was stopped finds its calls again instead of paying twice.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from pathlib import Path
from typing import Any

import msgspec

from personabench.errors import BackendDown, BackendError, DataError, RunError, TransientError

ENDPOINT = "/v1/chat/completions"
MOST = 10_000
WINDOW = 2.0
POLL = 20.0
LOST = 3600.0
_OVER = ("completed", "failed", "expired", "cancelled")
_log = logging.getLogger("personabench.openai")


class Note(msgspec.Struct):
    """A batch that is out: where, and the names of its calls whose answers are still to be handed on."""

    api: str
    batch: str
    calls: list[str]


class _Reply(msgspec.Struct):
    status_code: int
    body: msgspec.Raw


class _Error(msgspec.Struct):
    code: str | None = None
    message: str | None = None


class _Line(msgspec.Struct):
    custom_id: str
    response: _Reply | None = None
    error: _Error | None = None


class Batches:
    """The batch jobs of one API.

    Args:
        client: the SDK's client.
        received: the SDK's class of HTTP responses, which answers are handed on as.
        where: the API's address.
        quote: how words of the API are repeated.
        folder: where batches that are out are noted.

    Raises:
        DataError: a note is damaged.
    """

    def __init__(
        self,
        client: Any,
        received: Callable[..., Any],
        where: str,
        quote: Callable[[str], str],
        folder: Path,
    ) -> None:
        self._client = client
        self._received = received
        self._where = where
        self._quote = quote
        self._folder = folder
        self._waiting: dict[str, bytes] = {}
        self._answers: dict[str, asyncio.Future[Any]] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._work: set[asyncio.Task[None]] = set()
        self._over: list[Note] = []
        notes = [_read(path) for path in sorted(folder.glob("*.json"))]
        self._out = {name: note for note in notes if note.api == where for name in note.calls}

    async def send(self, content: bytes) -> Any:
        """The HTTP response to a body, whenever its batch has one.

        Raises:
            TransientError: the batch ended before the call's turn.
            BackendDown: the API refuses the batch, or is out of reach for long.
            openai.OpenAIError: it could not be sent.
        """
        name = hashlib.sha256(content).hexdigest()[:32]
        note = self._out.get(name)
        if note is not None:
            for each in note.calls:
                self._out.pop(each, None)
            self._start(self._follow(note))
        elif name not in self._answers:
            self._waiting[name] = content
            self._wait()
        answer = self._answer(name)
        try:
            return await asyncio.shield(answer)
        finally:
            if answer.done():
                self._answers.pop(name, None)

    async def aclose(self) -> None:
        """Stop watching; a note stays of answers that were not handed on."""
        if self._timer is not None:
            self._timer.cancel()
        for task in self._work:
            task.cancel()
        await asyncio.gather(*self._work, return_exceptions=True)
        for note in self._over:
            note.calls = [name for name in note.calls if name in self._answers]
            if note.calls:
                self._path(note).write_bytes(msgspec.json.encode(note))
            else:
                self._path(note).unlink(missing_ok=True)
        for answer in self._answers.values():
            answer.cancel()

    def _answer(self, name: str) -> asyncio.Future[Any]:
        return self._answers.setdefault(name, asyncio.get_running_loop().create_future())

    def _wait(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        delay = 0.0 if len(self._waiting) >= MOST else WINDOW
        self._timer = asyncio.get_running_loop().call_later(delay, self._flush)

    def _flush(self) -> None:
        calls, self._waiting = self._waiting, {}
        if calls:
            self._start(self._carry(calls))

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work, name="batch")
        self._work.add(task)
        task.add_done_callback(self._work.discard)

    async def _carry(self, calls: dict[str, bytes]) -> None:
        """Send a batch and follow it."""
        lines = b"\n".join(
            msgspec.json.encode(
                {"custom_id": name, "method": "POST", "url": ENDPOINT, "body": msgspec.Raw(content)}
            )
            for name, content in calls.items()
        )
        try:
            file = await self._client.files.create(file=("calls.jsonl", lines), purpose="batch")
            batch = await self._client.batches.create(
                input_file_id=file.id, endpoint=ENDPOINT, completion_window="24h"
            )
            note = Note(self._where, batch.id, list(calls))
            self._folder.mkdir(parents=True, exist_ok=True)
            self._path(note).write_bytes(msgspec.json.encode(note))
        except OSError as error:
            self._give_up(calls, RunError(f"{self._folder} cannot be written ({error.strerror})"))
        except Exception as error:
            self._give_up(calls, error)
        else:
            _log.info("batch %s of %d calls is out", batch.id, len(calls))
            await self._follow(note)

    async def _follow(self, note: Note) -> None:
        """Wait for a batch to end and hand its answers on."""
        left = set(note.calls)
        try:
            while (
                batch := await self._insist(note, self._client.batches.retrieve, note.batch)
            ).status not in _OVER:
                await asyncio.sleep(POLL)
            _log.info("batch %s is %s", note.batch, batch.status)
            for file in filter(None, (batch.output_file_id, batch.error_file_id)):
                told = await self._insist(note, self._client.files.content, file)
                for said in told.content.splitlines():
                    line = msgspec.json.decode(said, type=_Line)
                    if line.custom_id in left:
                        left.remove(line.custom_id)
                        self._hand_on(line)
        except msgspec.MsgspecError as error:
            self._give_up(
                left,
                TransientError(
                    f"batch {note.batch} has a line that is no answer: {error}", None, "malformed"
                ),
            )
            return
        except Exception as error:
            self._give_up(left, error)
            return
        if batch.status == "completed":
            self._over.append(note)
        else:
            self._path(note).unlink(missing_ok=True)
        if batch.status == "failed":
            why = "; ".join(
                each.message for each in (batch.errors and batch.errors.data) or () if each.message
            )
            words = self._quote(why)
            self._give_up(
                left,
                BackendDown(f"{self._where} refused a batch of {len(note.calls)} calls: {words}"),
            )
        self._give_up(
            left,
            TransientError(
                f"batch {note.batch} {batch.status} without this call's answer", kind="batch"
            ),
        )

    def _hand_on(self, line: _Line) -> None:
        """Give an answer to who waits for it, or will."""
        if line.response is not None:
            self._answer(line.custom_id).set_result(
                self._received(line.response.status_code, content=bytes(line.response.body))
            )
        else:
            words = self._quote(f"{line.error.code}: {line.error.message}" if line.error else "")
            self._give_up(
                [line.custom_id], BackendError(f"{self._where} answered in a batch: {words}")
            )

    def _give_up(self, calls: Iterable[str], error: Exception) -> None:
        for name in calls:
            answer = self._answer(name)
            if not answer.done():
                answer.set_exception(error)
                answer.exception()

    async def _insist(self, note: Note, ask: Callable[[str], Awaitable[Any]], name: str) -> Any:
        """What the API says of a batch that is out, however often it has to be asked.

        Raises:
            BackendDown: it did not say for an hour.
        """
        since = time.monotonic()
        while True:
            try:
                return await ask(name)
            except Exception as error:
                status = getattr(error, "status_code", 500)
                if status not in (408, 409, 429) and status < 500:
                    raise
                if time.monotonic() - since > LOST:
                    raise BackendDown(
                        f"{self._where} does not say how batch {note.batch} is; repeat the command to ask again"
                    ) from error
                _log.warning("batch %s: asking again (%s)", note.batch, type(error).__name__)
            await asyncio.sleep(POLL)

    def _path(self, note: Note) -> Path:
        return self._folder / f"{hashlib.sha256(note.batch.encode()).hexdigest()[:16]}.json"


def _read(path: Path) -> Note:
    try:
        return msgspec.json.decode(path.read_bytes(), type=Note)
    except msgspec.MsgspecError as error:
        raise DataError(
            f"{path} is damaged ({error}); delete it, and its batch is asked for anew"
        ) from error
