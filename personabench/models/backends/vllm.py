"""The vllm backend: vLLM servers, started for the run or running already, called over HTTP.

`--model M` alone starts a server on loopback and stops it at the end; `--base-url URL[,URL...]`
uses running servers and distributes the calls over them (`replicas.py`).  This is the hot path of a
run on one's own GPUs, so there is no SDK: the body is encoded and the reply decoded here.  Sampling
parameters that a request does not set are neutral, whatever the model's generation_config contains,
so the same request means the same on every server.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import msgspec

from personabench.errors import (
    BackendDown,
    BackendError,
    Refused,
    TransientError,
    UsageError,
)
from personabench.models.backends import check_url, credentials, likelihood
from personabench.models.backends.base import Backend, BackendOptions
from personabench.models.backends.chat_completion import (
    build_response,
    describe_server,
    other_model,
    parse_completion,
)
from personabench.models.backends.dialect import SAMPLING
from personabench.models.backends.http import (
    HTTPClient,
    Reply,
    ReplyTooLong,
    Unreachable,
    Untrusted,
    max_connections,
)
from personabench.models.backends.model_identity import (
    adapted_identity,
    adapters_of,
    model_identity,
    served_identity,
)
from personabench.models.backends.redaction import Secrets
from personabench.models.backends.refusals import add_remedy
from personabench.models.backends.replicas import Replica, Replicas
from personabench.models.backends.status import describe_redirect, status_error
from personabench.models.backends.vllm_server import (
    Server,
    check_arguments,
    command,
    free_port,
    named_arguments,
    print_status,
)
from personabench.models.backends.vllm_tokenizer import ServedTokens
from personabench.models.backends.windows import listed_window, read_models
from personabench.models.tokens import EstimatedTokens
from personabench.types import Request, Response

ASKING = 30.0
"""Seconds for listing the models of a server."""
BRIEF = 5.0
"""Seconds for a server's health and counters."""
PER_SERVER = 256
"""Calls in flight per server; vLLM queues those that do not fit its batch."""

# These override the model's generation_config.
_NEUTRAL_SAMPLING = {"top_k": -1, "min_p": 0.0, "repetition_penalty": 1.0}
_URL_HELP = "is the server running, and is --base-url right (it usually ends in /v1)?"
_COUNTERS = re.compile(
    rb"^vllm:prefix_cache_(queries|hits)(?:_total)?(?:\{[^}]*\})? ([\d.e+]+)", re.M
)
_log = logging.getLogger("personabench.vllm")
_encode = msgspec.json.Encoder().encode

ModelEntry = dict[str, Any]
"""An entry of `/v1/models`."""


class _ServedModel(NamedTuple):
    """The model that a server offers."""

    identity: Mapping[str, str]
    name: str
    window: int | None


class VLLM(Backend):
    """A vLLM server: `--model` starts one, `--base-url` attaches to running ones (with commas).

    Attached without `--model`, the servers' only model is used.  The key of an attached server that
    requires one comes from VLLM_API_KEY, or from a role's own variable (`credentials.py`).

    Attributes:
        prefix_hits: prompt tokens found in the servers' prefix caches and prompt tokens looked up,
            between `open` and `aclose`; None while unknown.  Other clients of an attached server
            count too.
    """

    concurrency = PER_SERVER
    supports_reply_logprobs = True
    serves = frozenset({"lora"})

    def __init__(self, options: BackendOptions) -> None:
        super().__init__(options)
        self.tokens = EstimatedTokens()
        self.window = options.window
        self.check_omitted((*SAMPLING, *_NEUTRAL_SAMPLING))
        self.prefix_hits: tuple[int, int] | None = None
        self._urls = credentials.servers("vllm", options)
        self._http: HTTPClient | None = None
        self._server: Server | None = None
        self._replicas: Replicas | None = None
        self._down: BackendDown | None = None
        self._log: Path | None = None
        self._counts_at_open: tuple[int, int] | None = None
        self._name = ""
        self._tokenizer: ServedTokens | None = None
        # By the server and the adapter's name.
        self._loading: dict[tuple[str, str], asyncio.Task[None]] = {}

    @property
    def prefix_cache_hit_rate(self) -> float | None:
        """The share of prompt tokens found in the servers' prefix caches; None if unknown."""
        if not self.prefix_hits or not self.prefix_hits[1]:
            return None
        hits, queries = self.prefix_hits
        return hits / queries

    async def identify(self) -> None:
        self._read_secrets()
        if not self._urls:
            self._identify_own_model()
            return

        if self.options.vllm_args:
            raise UsageError(
                "--vllm-args apply to a server that is started for the run; omit them or --base-url"
            )
        for url in self._urls:
            check_url(url, self._key_variable)
        self._connect(self._urls)
        try:
            await self._attach()
        except BackendDown as error:
            if self.options.model is None:
                raise
            # All answers may be in the cache, so the server may not be needed.
            self._name = self.options.model
            self._down = error
            self._set_identity(model_identity(self.options.model), {})

    def _read_secrets(self) -> None:
        variables = credentials.variables("vllm", self.options)
        self._key_variable, key = credentials.read_key(variables)
        self._secrets = Secrets([key, *self.options.headers.values()])

        self._headers = {}
        if key:
            self._headers["Authorization"] = f"Bearer {key}"
        self._headers |= self.options.headers

        credentials.check_headers(self._headers, self._key_variable)

    def _identify_own_model(self) -> None:
        if self.options.model is None:
            raise UsageError(
                "--backend vllm needs --model (a model to serve) or --base-url (a running server)"
            )
        check_arguments(self.options.vllm_args)
        arguments = [*named_arguments(), *self.options.vllm_args]
        identity = model_identity(self.options.model, arguments)
        self._set_identity(identity, adapters_of(arguments))

    def _set_identity(self, identity: Mapping[str, str], adapters: Mapping[str, str]) -> None:
        template = self.options.adapter
        if template is not None:
            identity = adapted_identity(identity, template, adapters)
        self.identity = {**identity, **self.options.marks, **self.map_marks}
        self.address = ",".join(sorted(self._urls))
        url = self._urls[0] if self._urls else None
        self._writer = self.writer = self.create_writer(_NEUTRAL_SAMPLING, url, is_nearby=True)

    async def open(self, log: Path | None = None) -> None:
        """See `Backend`.

        Raises:
            UsageError: the server did not start; the message has the relevant lines of its log.
            BackendDown: no attached server answers.
        """
        self._log = log
        if self._down is not None:
            raise self._down
        if not self._urls:
            await self._start_server(log)

        roots = [member.root for member in self._members()]
        self._tokenizer = ServedTokens(roots, self._name, self._headers)
        if await asyncio.to_thread(self._tokenizer.available):
            self.tokens = self._tokenizer
        self._counts_at_open = await self.prefix_counts()

    def move_log(self, log: Path) -> None:
        self._log = log
        if self._server is not None:
            self._server.log = log

    async def _start_server(self, log: Path | None) -> None:
        assert self.options.model is not None
        port = free_port()
        words = command(self.options.model, self.options.vllm_args, self.options.window, port)
        self._connect([f"http://127.0.0.1:{port}/v1"])
        (replica,) = self._members()

        self._server = Server(words, log)
        await self._server.wait(lambda: self._is_healthy(replica), self.options.start_timeout)

        entry = self._choose_entry(replica, await self._list_models(replica))
        self._name = str(entry["id"])
        self._set_window([listed_window(entry)])

    def _set_window(self, windows: Iterable[int | None]) -> None:
        """Use the smallest of the servers' windows and the user's."""
        limits = [window for window in (self.options.window, *windows) if window]
        self.window = min(limits, default=None)

    def _members(self) -> Sequence[Replica]:
        assert self._replicas is not None
        return self._replicas.members

    async def complete(self, request: Request, group: str) -> Response:
        model = request.adapter or self._name
        body = self._writer.write(model, request)
        if not likelihood.is_likelihood_request(request):
            return await self._send(body, group)

        with_reply_body, without_reply_body = likelihood.likelihood_bodies(body)
        # One after the other: the second finds its prompt in the prefix cache.
        with_reply = await self._send(with_reply_body, group)
        without_reply = await self._send(without_reply_body, group)
        return likelihood.likelihood_response(request, with_reply, without_reply)

    async def _send(self, body: Mapping[str, Any], group: str) -> Response:
        """Send a body to the server of a group, and to others if connections fail."""
        assert self._replicas is not None
        content = _encode(body)
        tried: list[Replica] = []
        failure: TransientError | None = None
        while True:
            replica = self._replicas.choose(group, tried)
            if replica is None:
                break
            try:
                await self._load_adapter(replica, body["model"])
                return await self._post(replica, content, body["model"])
            except _BrokenConnection as error:
                tried.append(replica)
                failure = TransientError(str(error), kind="connection")
                self._replicas.take_out(replica, error.reason)

        if self._server is not None:
            # Its connections break a moment before the process is gone.
            await asyncio.sleep(0.3)
            if self._server.ended:
                log_excerpt = self._server.describe_failure()
                raise BackendDown(f"the vllm server ended{log_excerpt}") from failure
        assert failure is not None
        raise failure

    async def _load_adapter(self, replica: Replica, name: str) -> None:
        """Load an adapter of this machine into a server, once."""
        folder = self.adapters.get(name)
        if folder is None:
            return
        key = replica.url, name
        if key not in self._loading:
            self._loading[key] = asyncio.create_task(self._request_adapter(replica, name, folder))
        try:
            await asyncio.shield(self._loading[key])
        except (BackendError, BackendDown):
            self._loading.pop(key, None)
            raise

    async def _request_adapter(self, replica: Replica, name: str, folder: Path) -> None:
        assert self._http is not None
        body = {"lora_name": name, "lora_path": str(folder.resolve())}
        try:
            reply = await self._http.post(f"{replica.url}/load_lora_adapter", _encode(body))
        except OSError as error:
            reason = self._secrets.quote(str(error) or type(error).__name__)
            raise _BrokenConnection(
                f"{replica.url} broke the connection ({reason})", reason
            ) from error
        if 200 <= reply.status < 300:
            return
        words = self._quote(reply.content)
        # Another command may have loaded it: its name is by content.
        if "already been loaded" in words:
            return
        if reply.status == 404:
            raise BackendDown(
                f"{replica.url} loads no adapters: start the server with --enable-lora and with "
                "VLLM_ALLOW_RUNTIME_LORA_UPDATING=1"
            )
        raise BackendDown(f"{replica.url} did not load the adapter {folder}: {words}")

    async def aclose(self) -> None:
        # Nested, so that the server is stopped and connections are closed whatever fails before.
        try:
            if self._counts_at_open is not None:
                before = self._counts_at_open
                self._counts_at_open = None
                await self._report_prefix_hits(before)
        finally:
            try:
                if self._server is not None:
                    await self._server.stop()
            finally:
                await self._close_connections()

    async def _close_connections(self) -> None:
        if self._replicas is not None:
            await self._replicas.aclose()
        if self._tokenizer is not None:
            self._tokenizer.close()
        if self._http is not None:
            await self._http.aclose()

    def _connect(self, urls: list[str]) -> None:
        # An address given twice must not get twice the calls.
        members = [Replica(url) for url in dict.fromkeys(urls)]
        self._replicas = Replicas(members, self._serves_model)
        self.concurrency = min(PER_SERVER * len(members), max_connections())
        self._http = HTTPClient(self._headers, self.options.timeout)

    async def _get(self, url: str, timeout: float) -> Reply:
        assert self._http is not None
        return await self._http.get(url, timeout)

    async def _attach(self) -> None:
        """Determine the model of all servers; those that cannot be reached are left for later."""
        assert self._replicas is not None
        models: dict[str, _ServedModel] = {}
        adapters: dict[str, str] = {}
        down: BackendDown | None = None
        for member in self._members():
            try:
                entries = await self._list_models(member)
            except BackendDown as error:
                down = error
                self._replicas.take_out(member, "not reachable at the start")
                continue

            entry = self._choose_entry(member, entries)
            models[member.url] = _ServedModel(
                served_identity(entry, entries),
                str(entry["id"]),
                listed_window(entry),
            )
            for listed in entries:
                if listed.get("parent"):
                    adapters[listed["id"]] = str(listed.get("root") or "")

        if not models:
            assert down is not None
            raise down
        model = _require_one_model(models)
        self._name = model.name
        self._set_identity(model.identity, adapters)
        self._set_window(served.window for served in models.values())

    def _choose_entry(self, member: Replica, entries: list[ModelEntry]) -> ModelEntry:
        """Choose the entry of the model under test among those of a server."""
        model = self.options.model
        candidates = entries
        # With adapters in use, those listed are no alternatives to the model.
        if model is None and (self.options.adapter is not None or self.options.adapter_map):
            candidates = [entry for entry in entries if not entry.get("parent")]

        if model is None and len(candidates) == 1:
            return candidates[0]
        for entry in candidates:
            if model is not None and model in (entry["id"], entry.get("root")):
                return entry

        offered = ", ".join(sorted(entry["id"] for entry in entries)[:8]) or "none that it lists"
        if model is None:
            raise UsageError(
                f"{member.url} serves {len(entries)} models ({offered}); choose one with --model"
            )
        raise UsageError(f"{member.url} does not serve {model}; it serves {offered}")

    async def _list_models(self, member: Replica) -> list[ModelEntry]:
        """Return the entries of `/v1/models`.

        Raises:
            BackendDown: the server cannot be reached, requires a key, or lists no models.
        """
        try:
            reply = await self._get(f"{member.url}/models", ASKING)
        except OSError as error:
            reason = self._secrets.strike(error) or type(error).__name__
            raise BackendDown(f"{member.url} cannot be reached ({reason}); {_URL_HELP}") from error

        if 300 <= reply.status < 400:
            raise BackendDown(
                describe_redirect(member.url, reply.status, reply.headers, self._secrets)
            )
        if reply.status in (401, 403):
            raise BackendDown(
                f"{member.url} answered {reply.status}: {self._quote(reply.content)}; "
                f"set {self._key_variable}"
            )
        try:
            entries = read_models(reply.content)
        except ValueError:
            entries = None
        if entries is None:
            raise BackendDown(
                f"{member.url} lists no models ({reply.status}: {self._quote(reply.content)}); "
                f"{_URL_HELP}"
            )
        return entries

    async def _post(self, replica: Replica, content: bytes, model: str) -> Response:
        """Send a body to one server and read its reply."""
        assert self._http is not None
        replica.in_flight += 1
        try:
            reply = await self._http.post(f"{replica.url}{self._writer.path}", content)
        except Untrusted as error:
            raise BackendDown(f"{replica.url} cannot be used ({error})") from error
        except Unreachable as error:
            raise _BrokenConnection(
                f"{replica.url} accepts no connection ({error})", "no connection"
            ) from error
        except TimeoutError as error:
            await self._check_after_timeout(replica)
            message = f"{replica.url} did not answer within {self.options.timeout:g} s"
            raise TransientError(message, kind="timeout") from error
        except ReplyTooLong as error:
            raise BackendError(f"{replica.url} sent {error}") from error
        except OSError as error:
            reason = self._secrets.quote(str(error) or type(error).__name__)
            raise _BrokenConnection(
                f"{replica.url} broke the connection ({reason})", reason
            ) from error
        finally:
            replica.in_flight -= 1

        if reply.status == 404 and model != self._name:
            await self._raise_missing_adapter(replica, model)
        if not 200 <= reply.status < 300:
            self._raise_for_status(replica, reply, reply.status)

        completion = parse_completion(
            reply.content,
            replica.url,
            self._secrets.quote,
            partial(self._raise_for_status, replica, reply),
        )
        replica.calls += 1
        response = build_response(
            completion,
            other_model(model, completion.model),
            describe_server(model, completion),
        )
        return self._secrets.clean(response)

    async def _check_after_timeout(self, replica: Replica) -> None:
        # A busy server is only slow; one that fails its health check too is left out.
        if not await self._is_healthy(replica):
            assert self._replicas is not None
            self._replicas.take_out(replica, "no answer")

    async def _raise_missing_adapter(self, replica: Replica, adapter: str) -> NoReturn:
        entries = await self._list_models(replica)
        adapters = sorted(entry["id"] for entry in entries if entry.get("parent"))

        message = f"{replica.url} serves no adapter '{adapter}' of {self._name}"
        if not adapters:
            raise BackendDown(
                f"{message}, nor any other; start it with --enable-lora --lora-modules NAME=PATH"
            )
        rest = f" and {len(adapters) - 8} more" if len(adapters) > 8 else ""
        raise BackendError(f"{message}; its adapters are {', '.join(adapters[:8])}{rest}")

    def _raise_for_status(self, replica: Replica, reply: Reply, status: int) -> NoReturn:
        """Raise the error that a status means, the reply's or that of an error inside it."""
        error = status_error(
            replica.url,
            status,
            reply.content,
            reply.headers,
            self._secrets,
            f"set {self._key_variable}",
        )
        if isinstance(error, TransientError) and status in (500, 502, 503, 504):
            assert self._replicas is not None
            self._replicas.take_out(replica, f"answered {status}")
        if isinstance(error, Refused):
            error = add_remedy(error, (*SAMPLING, *_NEUTRAL_SAMPLING), self.options.role)
        raise error

    async def _is_healthy(self, replica: Replica) -> bool:
        """Whether a server answers its health check; one without `/health` counts as healthy."""
        try:
            reply = await self._get(f"{replica.root}/health", BRIEF)
        except OSError:
            return False
        return reply.status < 500

    async def _serves_model(self, replica: Replica) -> bool:
        """Whether a server answers and has the model of this run."""
        if not await self._is_healthy(replica):
            return False
        # A server may come back with another model.
        try:
            entries = await self._list_models(replica)
        except BackendDown:
            return False
        return any(entry["id"] == self._name for entry in entries)

    async def prefix_counts(self) -> tuple[int, int] | None:
        if self._replicas is None:
            return None
        totals = {b"hits": 0, b"queries": 0}
        has_counters = False
        for member in self._members():
            try:
                reply = await self._get(f"{member.root}/metrics", BRIEF)
            except OSError:
                continue
            for name, value in _COUNTERS.findall(reply.content):
                has_counters = True
                totals[name] += int(float(value))
        return (totals[b"hits"], totals[b"queries"]) if has_counters else None

    async def _report_prefix_hits(self, before: tuple[int, int]) -> None:
        after = await self.prefix_counts()
        # The counters of a server that restarted begin at 0.
        if after is None or after[1] <= before[1]:
            return

        hits = after[0] - before[0]
        queries = after[1] - before[1]
        self.prefix_hits = (hits, queries)
        message = (
            f"prefix cache: {hits} of {queries} prompt tokens were cached ({hits / queries:.1%})"
        )
        print_status(message)
        if self._log is not None and self._log.parent.is_dir():
            with self._log.open("a", encoding="utf-8") as log:
                log.write(f"{message}\n")

    def _quote(self, content: bytes) -> str:
        return self._secrets.quote(content.decode(errors="replace"))


def _require_one_model(models: Mapping[str, _ServedModel]) -> _ServedModel:
    """Return the model that all servers offer."""
    (first_url, first), *rest = models.items()
    for url, model in rest:
        if (model.identity, model.name) != (first.identity, first.name):
            raise UsageError(
                f"--base-url: {first_url} serves {first.name} and {url} serves {model.name}; "
                "all servers must serve one model"
            )
    return first


class _BrokenConnection(Exception):
    """A connection that could not be made or broke; `reason` is the cause alone."""

    def __init__(self, message: str, reason: str) -> None:
        super().__init__(message)
        self.reason = reason
