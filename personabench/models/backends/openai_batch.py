"""Batch jobs: APIs answer the calls in them within a day, at a lower price.

Methods make one call after the other, so a batch consists of the calls that wait at the same time:
it is sent when no call has joined it for a while, and the answers of one batch trigger the calls of
the next.  Calls that exceed the size of a file become several batches.  A batch in progress is
noted in a file of its own until its answers have been returned, so that a command that was stopped
finds its calls again instead of paying twice.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec

from personabench.errors import BackendDown, BackendError, DataError, RunError, TransientError
from personabench.models.backends.http import Reply

MAX_CALLS = 10_000
"""Calls in a batch at most; OpenAI accepts 50,000."""
MAX_BYTES = 100_000_000
"""Bytes in a batch's file at most; OpenAI accepts 200 MB, Azure and others 100."""
WINDOW = 2.0
"""Seconds without another call after which a batch is sent."""
POLL = 20.0
LOST = 3600.0
"""Seconds after which an API that does not report on a batch is given up."""
_NAME_LENGTH = 32
# Errors of calls whose turn did not come.
_UNTRIED = ("batch_expired", "batch_cancelled")
_FINAL = ("completed", "failed", "expired", "cancelled")
_log = logging.getLogger("personabench.openai")


class Note(msgspec.Struct):
    """A batch in progress: its API, its id, and the names of its calls without an answer."""

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
        server: the API's address.
        key: its key; may be empty.
        headers: sent with each request.
        quote: shortens the API's text for messages and removes secrets.
        folder: the folder for notes about batches in progress.

    Raises:
        DataError: a note is damaged.
    """

    def __init__(
        self,
        server: str,
        key: str,
        headers: Mapping[str, str],
        quote: Callable[[str], str],
        folder: Path,
    ) -> None:
        self._client = _create_client(server, key, headers)
        self._server = server
        self._quote = quote
        self._folder = folder
        self._waiting: dict[str, bytes] = {}
        self._endpoint = ""
        self._answers: dict[str, asyncio.Future[Reply]] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._completed: list[Note] = []

        self._in_progress: dict[str, Note] = {}
        for path in sorted(folder.glob("*.json")):
            note = _read_note(path)
            # The folder is shared by all APIs of a results folder.
            if note.api == server:
                self._in_progress.update(dict.fromkeys(note.calls, note))

    async def send(self, content: bytes, path: str) -> Reply:
        """Return the reply to a body as soon as its batch has one, or the refusal of the batch.

        Args:
            path: the path of the call, the same for all calls that wait.

        Raises:
            TransientError: the batch could not be sent, or ended before the call's turn.
            BackendDown: the API refuses the batch, or cannot be reached for long.
        """
        import openai

        # Named by content, so that the same call is recognized in a batch of an earlier command.
        name = hashlib.sha256(content).hexdigest()[:_NAME_LENGTH]
        note = self._in_progress.get(name)
        if note is not None:
            for call in note.calls:
                self._in_progress.pop(call, None)
            self._start_task(self._follow(note))
        elif name not in self._answers:
            self._waiting[name] = content
            self._endpoint = f"/v1{path}"
            self._restart_timer()

        answer = self._answer(name)
        try:
            return await asyncio.shield(answer)
        except openai.APIStatusError as error:
            response = error.response
            return Reply(response.status_code, response.headers, response.content)
        except openai.OpenAIError as error:
            reason = self._quote(str(error.__cause__ or error))
            message = f"{self._server} takes no batch ({reason})"
            raise TransientError(message, kind="connection") from error
        finally:
            if answer.done():
                self._answers.pop(name, None)

    async def aclose(self) -> None:
        """Stop watching batches; notes of answers that were not returned are kept."""
        if self._timer is not None:
            self._timer.cancel()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

        for note in self._completed:
            note.calls = [name for name in note.calls if name in self._answers]
            if note.calls:
                self._write_note(note)
            else:
                self._note_path(note).unlink(missing_ok=True)
        for answer in self._answers.values():
            answer.cancel()
        await self._client.close()

    def _answer(self, name: str) -> asyncio.Future[Reply]:
        if name not in self._answers:
            self._answers[name] = asyncio.get_running_loop().create_future()
        return self._answers[name]

    def _restart_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        delay = 0.0 if len(self._waiting) >= MAX_CALLS else WINDOW
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(delay, self._flush)

    def _flush(self) -> None:
        waiting = self._waiting
        self._waiting = {}
        for calls in _split_calls(waiting):
            self._start_task(self._submit(calls))

    def _start_task(self, work: Coroutine[Any, Any, None]) -> None:
        # asyncio keeps weak references only; a task without another may be collected before it
        # ends.
        task = asyncio.create_task(work, name="batch")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _submit(self, calls: dict[str, bytes]) -> None:
        """Send a batch and follow it."""
        try:
            file = await self._client.files.create(
                file=("calls.jsonl", _encode_calls(calls, self._endpoint)),
                purpose="batch",
            )
            batch = await self._client.batches.create(
                input_file_id=file.id,
                endpoint=self._endpoint,
                completion_window="24h",
            )
            note = Note(self._server, batch.id, list(calls))
            self._folder.mkdir(parents=True, exist_ok=True)
            self._write_note(note)
        except OSError as error:
            reason = error.strerror
            self._fail_calls(calls, RunError(f"{self._folder} cannot be written ({reason})"))
        # Errors of a background task reach the callers through their futures.
        except Exception as error:
            self._fail_calls(calls, error)
        else:
            _log.info("batch %s of %d calls is submitted", batch.id, len(calls))
            await self._follow(note)

    async def _follow(self, note: Note) -> None:
        """Wait for the end of a batch and return its answers."""
        unanswered = set(note.calls)
        try:
            batch = await self._wait_for_end(note)
            await self._return_answers(note, batch, unanswered)
        except msgspec.MsgspecError as error:
            self._fail_calls(
                unanswered,
                TransientError(
                    f"batch {note.batch} has a line that is not an answer: {error}",
                    None,
                    "malformed",
                ),
            )
            return
        except Exception as error:
            self._fail_calls(unanswered, error)
            return

        # A completed batch is noted until its answers are used: they can be fetched again without
        # payment.
        if batch.status == "completed":
            self._completed.append(note)
        else:
            self._note_path(note).unlink(missing_ok=True)

        if batch.status == "failed":
            self._fail_calls(unanswered, self._refusal(note, batch))
        else:
            message = f"batch {note.batch} {batch.status} without this call's answer"
            self._fail_calls(unanswered, TransientError(message, kind="batch"))

    async def _wait_for_end(self, note: Note) -> Any:
        while True:
            batch = await self._fetch(
                note,
                self._client.batches.retrieve,
                note.batch,
            )
            if batch.status in _FINAL:
                _log.info("batch %s is %s", note.batch, batch.status)
                return batch
            await asyncio.sleep(POLL)

    async def _return_answers(self, note: Note, batch: Any, unanswered: set[str]) -> None:
        for file in (batch.output_file_id, batch.error_file_id):
            if not file:
                continue
            reply = await self._fetch(note, self._client.files.content, file)
            for text in reply.content.splitlines():
                line = msgspec.json.decode(text, type=_Line)
                if line.custom_id in unanswered:
                    unanswered.remove(line.custom_id)
                    self._return_answer(line)

    def _refusal(self, note: Note, batch: Any) -> BackendDown:
        errors = batch.errors.data if batch.errors else None
        messages = [error.message for error in errors or () if error.message]
        reason = self._quote("; ".join(messages))
        return BackendDown(f"{self._server} refused a batch of {len(note.calls)} calls: {reason}")

    def _return_answer(self, line: _Line) -> None:
        """Give an answer to its caller, who may not have called yet."""
        if line.response is not None:
            reply = Reply(line.response.status_code, {}, bytes(line.response.body))
            self._answer(line.custom_id).set_result(reply)
            return

        reason = f"{line.error.code}: {line.error.message}" if line.error else ""
        message = f"{self._server} answered in a batch: {self._quote(reason)}"
        error = BackendError(message)
        if line.error is not None and line.error.code in _UNTRIED:
            error = TransientError(message, kind="batch")
        self._fail_calls([line.custom_id], error)

    def _fail_calls(self, calls: Iterable[str], error: Exception) -> None:
        for name in calls:
            answer = self._answer(name)
            if not answer.done():
                answer.set_exception(error)
                # Retrieved once, so that asyncio does not warn about a call that is never repeated.
                answer.exception()

    async def _fetch(self, note: Note, request: Callable[[str], Awaitable[Any]], name: str) -> Any:
        """Make a request about a batch in progress, and repeat it through failures.

        Raises:
            BackendDown: it failed for an hour.
        """
        # The batch is paid for, so giving up early would cost more than waiting.
        start = time.monotonic()
        while True:
            try:
                return await request(name)
            except Exception as error:
                status = getattr(error, "status_code", 500)
                if status not in (408, 409, 429) and status < 500:
                    raise
                if time.monotonic() - start > LOST:
                    raise BackendDown(
                        f"{self._server} does not report on batch {note.batch}; "
                        "repeat the command to ask again"
                    ) from error
                _log.warning("batch %s: asking again (%s)", note.batch, type(error).__name__)
            await asyncio.sleep(POLL)

    def _write_note(self, note: Note) -> None:
        self._note_path(note).write_bytes(msgspec.json.encode(note))

    def _note_path(self, note: Note) -> Path:
        # Ids of other servers may hold characters that file names cannot.
        name = hashlib.sha256(note.batch.encode()).hexdigest()[:16]
        return self._folder / f"{name}.json"


def _create_client(server: str, key: str, headers: Mapping[str, str]) -> Any:
    import openai

    return openai.AsyncOpenAI(
        # The SDK refuses an empty key, although servers without keys accept any.
        api_key=key or "none",
        base_url=server,
        organization=headers.get("OpenAI-Organization"),
        project=headers.get("OpenAI-Project"),
        default_headers=headers,
        # Retries are the client's, which counts them.
        max_retries=0,
        # Following a redirect would send key and prompts to another server.
        http_client=openai.DefaultAioHttpClient(follow_redirects=False),
    )


def _split_calls(calls: Mapping[str, bytes]) -> Iterator[dict[str, bytes]]:
    """Yield the calls in parts that a batch accepts, by their number and by their bytes."""
    part: dict[str, bytes] = {}
    size = 0
    for name, content in calls.items():
        call_size = len(content) + _FRAME
        if part and (len(part) == MAX_CALLS or size + call_size > MAX_BYTES):
            yield part
            part = {}
            size = 0
        part[name] = content
        size += call_size
    if part:
        yield part


def _encode_calls(calls: Mapping[str, bytes], endpoint: str) -> bytes:
    return b"\n".join(_encode_call(name, content, endpoint) for name, content in calls.items())


def _encode_call(name: str, content: bytes, endpoint: str) -> bytes:
    line = {
        "custom_id": name,
        "method": "POST",
        "url": endpoint,
        "body": msgspec.Raw(content),
    }
    return msgspec.json.encode(line)


_FRAME = len(_encode_call("0" * _NAME_LENGTH, b"{}\n", "/v1/chat/completions"))
"""Bytes of a line beside its body."""


def _read_note(path: Path) -> Note:
    try:
        return msgspec.json.decode(path.read_bytes(), type=Note)
    except msgspec.MsgspecError as error:
        raise DataError(
            f"{path} is damaged ({error}); delete it, and its calls are sent again"
        ) from error
