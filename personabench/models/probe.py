"""One small call that learns a server's dialect before the first paid one.

The call uses the fields that a run will use, a system message, neighbouring turns and a schema.  A
refusal teaches one thing, and the call is repeated with it, a few times at most.  What only the
user may change (sampling, `--extra`, `--reasoning`) is collected meanwhile, so that the message at
the end names all of it.  The dialect of a server is stored beside the results, so that the next
command sends no probe.
"""

from __future__ import annotations

import asyncio
import logging
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
from filelock import FileLock, Timeout

from personabench.errors import BackendDown, BackendError, Refused, RunError
from personabench.hashing import digest
from personabench.models.backends.base import Backend, BackendOptions
from personabench.models.backends.dialect import PLAIN, Dialect, RequestWriter
from personabench.models.backends.refusals import NO_FORM, read_refusal
from personabench.models.client import Client
from personabench.types import Message, Request, Response, from_json, to_json

CALLS = 12
"""Calls of one probe at most."""
ANSWER_TOKENS = 16
FOLDER = "dialects"
VERSION = 2

_SCHEMA: Mapping[str, Any] = {
    "type": "object",
    "properties": {"word": {"type": "string"}},
    "required": ["word"],
    "additionalProperties": False,
}
_MESSAGES = (
    Message("system", "Answer in JSON, with one word."),
    Message("user", "This message tests the connection."),
    Message("user", 'Reply with {"word": "yes"}.'),
)
_EXCERPT = 160
_READ = 4_000
_LOCK_PAUSE = 0.1
# The entries of a list are inside a message.
_WORDS = [
    re.compile(rf"""["'](?:{names})["']:\s*["'](.+?)["'](?:\}}|,\s*["'])""")
    for names in ("msg", "message|error|detail")
]

_log = logging.getLogger("personabench")


class Learnt(msgspec.Struct, frozen=True, omit_defaults=True):
    """The dialect of a server, and whether its model thinks before it answers."""

    dialect: Dialect
    thinks: bool = False

    def describe(self, options: BackendOptions) -> str:
        """Describe both on one line."""
        text = self.dialect.describe()
        if not self.thinks:
            return text
        prefix = option_prefix(options)
        if options.reasoning is None:
            return f"{text}; thinks before it answers, so give it room with --{prefix}reasoning low"
        if options.reasoning == "off":
            return f"{text}; still thinks, in spite of --{prefix}reasoning off"
        return f"{text}; thinks before it answers"


def option_prefix(options: BackendOptions) -> str:
    """Return the prefix of the names of a model's options, such as "judge-"."""
    return f"{options.role}-" if options.role else ""


def probe_request(temperature: float, top_p: float, seed: int) -> Request:
    """Return the request of a probe, with the sampling of a run."""
    return Request(_MESSAGES, ANSWER_TOKENS, temperature, top_p, seed, _SCHEMA)


class _Probe:
    """The state of one probe."""

    def __init__(self, client: Client, writer: RequestWriter) -> None:
        self.client = client
        self.options = client.backend.options
        self.writer = writer
        self.dialect = PLAIN
        self.refused: dict[str, float | None] = {}
        self.refused_extra: list[str] = []
        self.thinking: bool | None = None
        self.reasons: list[str] = []
        self.is_retry_reported = False

    async def run(self, request: Request) -> Learnt | None:
        """Learn the dialect; None if the server refuses the request for a reason of its own.

        Raises:
            BackendDown: the server refuses what only the user may change, or every call.
        """
        backend = self.client.backend
        backend.is_probing = True
        try:
            response = await self._negotiate(request)
        finally:
            backend.is_probing = False
            self.writer.trial = {}
            self.writer.adopt(backend.dialect)
        if self.reasons:
            raise BackendDown(self._remedy())
        if response is None:
            return None
        return Learnt(self.dialect, bool(response.thought) or _is_all_thought(response))

    async def _negotiate(self, request: Request) -> Response | None:
        for _ in range(CALLS):
            self.writer.adopt(self.dialect)
            self.client.backend.fit_thoughts()
            try:
                response, _ = await self.client.complete(
                    request, "prepare", "", flag=self._report_retry
                )
                return response
            except (BackendError, BackendDown) as error:
                if not self._learn(error, request):
                    return None
        return None

    def _report_retry(self, flag: str) -> None:
        """Say once why a command waits, since no progress is shown before the first run."""
        if flag.startswith("retried_") and not self.is_retry_reported:
            self.is_retry_reported = True
            _log.warning("the probe is repeated: %s", self.client.traffic.trouble)

    def _learn(self, error: BackendError | RunError, request: Request) -> bool:
        """Learn from a failure; False if it teaches nothing.

        Raises:
            BackendDown: the server cannot be used at all.
        """
        message = str(error)
        if self.dialect.api == "completions" and isinstance(error, BackendDown):
            raise BackendDown(self._base_model(message)) from error

        body = self.writer.write("", self.client.with_allowance(request))
        words = error.text if isinstance(error, Refused) else message
        lesson = read_refusal(words, body, self.dialect, self.writer.forms, self.options.extra)
        # Of the errors that end a command, one can be learnt from: 404 to a chat with a base model.
        is_base_model = lesson is not None and lesson.dialect.api != self.dialect.api
        if isinstance(error, BackendDown) and not is_base_model:
            raise error
        if lesson is None:
            return False

        refused = dict(lesson.refused)
        for name in refused:
            # The value that it named does not help either.
            if name in self.writer.trial:
                refused[name] = None
        is_decision = bool(refused or lesson.extra or lesson.thinking is not None)
        if is_decision or lesson.dialect.reasoning == NO_FORM:
            self.reasons.append(_excerpt(message))
        self.refused |= refused
        self.refused_extra.extend(lesson.extra)
        self.writer.trial |= refused
        self.writer.trial |= dict.fromkeys(lesson.extra)
        if lesson.thinking is not None:
            # A demand for both in turn cannot be met.
            is_decision &= self.thinking is None
            self.thinking = lesson.thinking
            self.writer.trial["enable_thinking"] = lesson.thinking

        if lesson.least_tokens is not None:
            # The probe's own limit alone: the run's may be high enough.
            self.writer.trial[lesson.dialect.limit_field] = lesson.least_tokens

        is_new = is_decision or lesson.least_tokens or lesson.dialect != self.dialect
        self.dialect = lesson.dialect
        return bool(is_new)

    def _remedy(self) -> str:
        """Describe all that the user has to change, on one line."""
        prefix = option_prefix(self.options)
        settable = ["temperature"] if self.options.role else ["temperature", "top_p"]
        options = []
        omitted = []
        for name, value in self.refused.items():
            if value is not None and name in settable:
                options.append(f"--{prefix}{name.replace('_', '-')} {value:g}")
            else:
                omitted.append(name)
        if omitted:
            # Repeating the option replaces it, so it has to name the earlier fields as well.
            fields = dict.fromkeys([*self.options.omit, *omitted])
            options.append(f"--{prefix}omit-params {','.join(fields)}")

        if self.thinking is not None:
            options.append(f"--{prefix}reasoning {'low' if self.thinking else 'off'}")

        advice = []
        if options:
            advice.append(
                f"repeat the command with {' '.join(options)}, which makes a separate run"
            )
        if self.refused_extra:
            keys = dict.fromkeys(self.refused_extra)
            advice.append(f"leave out --{prefix}extra {', '.join(keys)}")
        if self.dialect.reasoning == NO_FORM:
            advice.append(
                f"it takes none of the fields for --{prefix}reasoning {self.options.reasoning}: "
                f"leave that out, and name the server's own field with --{prefix}extra KEY=JSON"
            )
        reasons = "; ".join(dict.fromkeys(self.reasons))
        name = self.client.backend.identity["name"]
        return f"{name} refuses fields of this run; {'; '.join(advice)}. Its words: {reasons}"

    def _base_model(self, message: str) -> str:
        prefix = option_prefix(self.options)
        name = self.client.backend.identity["name"]
        return (
            f"{name} has no chat template (a base model), and its /v1/completions fails as "
            f"well: {_excerpt(message)}; serve the model with a template (for a vLLM started here: "
            f"--vllm-args '--chat-template FILE') or name a chat model with --{prefix}model"
        )


def _excerpt(message: str) -> str:
    """Return the server's own words in the message of a refusal."""
    # Cut first: a server may send much more than anybody reads.
    matches = (words.search(message[:_READ]) for words in _WORDS)
    text = next((match[1] for match in matches if match), message)
    return text[:_EXCERPT]


def _is_all_thought(response: Response) -> bool:
    """Whether a short reply was used up without an answer, as a thought does."""
    return response.finish == "length" and not response.text.strip()


class Dialects:
    """The dialects learnt so far: a file for each server, model and set of fields."""

    def __init__(self, results: Path) -> None:
        self._folder = results / FOLDER

    def recall(self, backend: Backend, request: Request) -> Learnt | None:
        """Return the stored dialect of a server; None if it is new."""
        path = self._path(backend, request)
        try:
            return from_json(path.read_bytes(), Learnt)
        except (OSError, msgspec.MsgspecError):
            return None

    def adopt_stored(self, backend: Backend, request: Request) -> None:
        """Put the requests of a model in its dialect if that was learnt earlier."""
        learnt = self.recall(backend, request)
        if learnt is not None:
            backend.adopt(learnt.dialect)

    async def settle(self, backend: Backend, concurrency: int, request: Request) -> None:
        """Put the requests of an opened model in its dialect, which is learnt if it is new.

        Raises:
            BackendDown: the server refuses what only the user may change, or every call.
        """
        learnt = self.recall(backend, request)
        if learnt is None:
            # The first client of a server sets the limit of calls in flight for all of them.
            learnt = await self.learn(Client(backend, None, "off", concurrency), request)
        backend.adopt(learnt.dialect)

    def forget(self, backend: Backend, request: Request) -> None:
        """Delete the stored dialect of a server."""
        self._path(backend, request).unlink(missing_ok=True)

    async def learn(self, client: Client, request: Request) -> Learnt:
        """Return the dialect of an opened model, from the store, from itself, or by a probe.

        Commands that start together send one probe.

        Raises:
            BackendDown: the server refuses what only the user may change, or every call.
        """
        backend = client.backend
        if backend.writer is None:
            return Learnt(PLAIN)
        path = self._path(backend, request)
        stated = await backend.read_dialect()
        if stated is not None:
            # A plain one is the default, so that it needs no file.
            if stated != PLAIN:
                _write(path, Learnt(stated))
            return Learnt(stated)

        # One process probes, and the ones that start with it read its result.
        lock = FileLock(path.with_suffix(".lock"))
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            await _acquire(lock)
        except OSError as error:
            raise RunError(
                f"{path.parent} cannot be written ({error.strerror}); check its permissions or "
                "choose another --results folder"
            ) from error
        try:
            stored = self.recall(backend, request)
            if stored is not None:
                return stored
            learnt = await probe(client, request)
            if learnt is None:
                return Learnt(PLAIN)
            _write(path, learnt)
            return learnt
        finally:
            lock.release()

    def _path(self, backend: Backend, request: Request) -> Path:
        identity = {name: part for name, part in backend.identity.items() if name != "dialect"}
        sampling = [request.temperature, request.top_p]
        key = digest([VERSION, identity, backend.address, sampling])
        return self._folder / f"{key[:16]}.json"


async def _acquire(lock: FileLock) -> None:
    while True:
        try:
            lock.acquire(blocking=False)
            return
        except Timeout:
            await asyncio.sleep(_LOCK_PAUSE)


def _write(path: Path, learnt: Learnt) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(f".{os.getpid()}.tmp")
    temporary.write_text(to_json(learnt), encoding="utf-8")
    temporary.replace(path)


async def probe(client: Client, request: Request) -> Learnt | None:
    """Learn a dialect by calls; None if the server refuses the request for a reason of its own.

    Raises:
        BackendDown: the server refuses what only the user may change, or every call.
    """
    backend = client.backend
    assert backend.writer is not None
    learnt = await _Probe(client, backend.writer).run(request)
    if learnt is None:
        _log.warning("%s refused the probe of its dialect", backend.identity["name"])
    return learnt
