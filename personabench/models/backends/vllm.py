"""vLLM, started here or attached to, spoken to directly over HTTP.

`--model M` alone starts a server on loopback and stops it at the end; `--base-url URL[,URL...]` uses servers that run
already and spreads the calls over them (`replicas.py`).  This is the hot path of a run on one's own GPUs, so there is
no SDK: the body is encoded and the reply decoded here.  Sampling that a request does not state is neutral, whatever the
model's generation_config says, so the same request means the same on every server.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

import msgspec

from personabench.errors import (
    BackendDown,
    BackendError,
    Refused,
    Throttled,
    TransientError,
    UsageError,
)
from personabench.models.backends import check_url, credentials, likelihood
from personabench.models.backends.base import Backend, BackendOptions
from personabench.models.backends.chat_completion import (
    Secrets,
    other_model,
    read,
    redirect,
    response,
    retry_after,
)
from personabench.models.backends.http import Unreachable, Wire
from personabench.models.backends.model_identity import (
    adapted,
    adapters_of,
    model_identity,
    served_identity,
)
from personabench.models.backends.replicas import Replica, Replicas
from personabench.models.backends.vllm_server import (
    Server,
    check_arguments,
    command,
    free_port,
    named_arguments,
    tell,
)
from personabench.models.backends.vllm_tokenizer import ServedTokens
from personabench.models.tokens import EstimatedTokens
from personabench.types import Request, Response

CONNECT = 15.0
ASKING = 30.0
PER_SERVER = 256
_COUNTERS = re.compile(
    rb"^vllm:prefix_cache_(queries|hits)(?:_total)?(?:\{[^}]*\})? ([\d.e+]+)", re.M
)
_log = logging.getLogger("personabench.vllm")
_encode = msgspec.json.Encoder().encode


class VLLM(Backend):
    """A vLLM server: `--model` starts one, `--base-url` attaches to one or several (with commas) that run.

    Attached without `--model`, the servers' only model is used.  The key of an attached server that wants one comes
    from VLLM_API_KEY, or from a role's own variable (`keys.py`).

    Attributes:
        prefix_hits: prompt tokens found in the servers' prefix caches and prompt tokens looked up, between `open` and
            `aclose`; None while unknown.  Other clients of an attached server count too.
    """

    concurrency = PER_SERVER
    supports_reply_logprobs = True

    def __init__(self, options: BackendOptions) -> None:
        super().__init__(options)
        self.tokens = EstimatedTokens()
        self.window = options.window
        self.prefix_hits: tuple[int, int] | None = None
        self._urls = credentials.servers("vllm", options)
        self._session: Any = None
        self._server: Server | None = None
        self._replicas: Replicas | None = None
        self._wires: dict[str, Wire] = {}
        self._down: BackendDown | None = None
        self._log: Path | None = None
        self._counted: tuple[int, int] | None = None
        self._name = ""
        self._counter: ServedTokens | None = None

    @property
    def prefix_cache_hit_rate(self) -> float | None:
        """The share of prompt tokens that the servers had at hand; None when they do not say."""
        return (
            self.prefix_hits[0] / self.prefix_hits[1]
            if self.prefix_hits and self.prefix_hits[1]
            else None
        )

    async def identify(self) -> None:
        self._key_name, key = credentials.read_key(credentials.variables("vllm", self.options))
        self._secrets = Secrets([key, *self.options.headers.values()])
        self._headers = {"Content-Type": "application/json", "Accept-Encoding": "identity"}
        self._headers |= ({"Authorization": f"Bearer {key}"} if key else {}) | dict(
            self.options.headers
        )
        if not all(
            words.isascii() and words.isprintable()
            for field in self._headers.items()
            for words in field
        ):
            raise UsageError(
                f"{self._key_name} or a header holds a character that none can have; copy it again"
            )
        if not self._urls:
            if self.options.model is None:
                raise UsageError(
                    "--backend vllm needs --model (what to serve) or --base-url (a server that runs)"
                )
            check_arguments(self.options.vllm_args)
            arguments = [*named_arguments(), *self.options.vllm_args]
            self._identify(model_identity(self.options.model, arguments), adapters_of(arguments))
            return
        if self.options.vllm_args:
            raise UsageError(
                "--vllm-args are for a server that is started here; leave out --base-url or them"
            )
        for url in self._urls:
            check_url(url, self._key_name)
        self._connect(self._urls)
        try:
            await self._attach()
        except BackendDown as error:
            if self.options.model is None:
                raise
            self._name, self._down = self.options.model, error
            self._identify(model_identity(self.options.model), {})

    def _identify(self, identity: Mapping[str, str], adapters: Mapping[str, str]) -> None:
        template = self.options.adapter
        self.identity = identity if template is None else adapted(identity, template, adapters)

    async def open(self, log: Path | None = None) -> None:
        """See `Backend`.

        Raises:
            UsageError: the server that was started did not come up; the message has the telling lines of its log.
            BackendDown: no attached server answers.
        """
        self._log = log
        if self._down is not None:
            raise self._down
        if not self._urls:
            assert self.options.model is not None
            port = free_port()
            words = command(self.options.model, self.options.vllm_args, self.options.window, port)
            self._connect([f"http://127.0.0.1:{port}/v1"])
            assert self._replicas is not None
            (replica,) = self._replicas.members
            self._server = Server(words, log)
            await self._server.wait(lambda: self._answers(replica), self.options.start_timeout)
            entry = self._pick(replica, await self._models_of(replica))
            self._name, limit = str(entry["id"]), entry.get("max_model_len")
            self.window = min(filter(None, (self.options.window, limit)), default=None)
        assert self._replicas is not None
        self._counter = ServedTokens(
            [member.root for member in self._replicas.members], self._name, self._headers
        )
        if await asyncio.to_thread(self._counter.available):
            self.tokens = self._counter
        self._counted = await self.prefix_counts()

    async def complete(self, request: Request, group: str) -> Response:
        body: dict[str, Any] = {
            "model": request.adapter or self._name,
            "messages": request.messages,
            "max_tokens": request.max_tokens,
            "temperature": request.temperature,
            "top_p": request.top_p,
            "top_k": -1,
            "min_p": 0.0,
            "repetition_penalty": 1.0,
            "seed": request.seed + request.repeat,
        }
        if request.schema is not None:
            schema = {"name": "reply", "schema": request.schema, "strict": True}
            body["response_format"] = {"type": "json_schema", "json_schema": schema}
        if request.logprobs:
            body |= {"logprobs": True, "top_logprobs": request.logprobs}
        if likelihood.is_likelihood_request(request):
            whole, start = [await self._send(part, group) for part in likelihood.bodies(body)]
            return likelihood.reply(request, whole, start)
        return await self._send(body, group)

    async def _send(self, body: Mapping[str, Any], group: str) -> Response:
        assert self._replicas is not None
        content = _encode(body)
        tried: list[Replica] = []
        broken: TransientError | None = None
        while (replica := self._replicas.choose(group, tried)) is not None:
            try:
                return await self._ask(replica, content, body["model"])
            except _Broken as error:
                tried.append(replica)
                broken = TransientError(str(error), kind="connection")
                self._replicas.take_out(replica, error.why)
        if self._server is not None:
            await asyncio.sleep(0.3)
            if self._server.ended:
                raise BackendDown(f"the vllm server ended{self._server.why()}") from broken
        assert broken is not None
        raise broken

    async def aclose(self) -> None:
        try:
            if self._counted is not None:
                before, self._counted = self._counted, None
                await self._report_prefix_hits(before)
        finally:
            try:
                if self._server is not None:
                    await self._server.stop()
            finally:
                if self._replicas is not None:
                    await self._replicas.aclose()
                if self._counter is not None:
                    self._counter.close()
                if self._session is not None:
                    await self._session.close()
                for wire in self._wires.values():
                    wire.close()

    def _connect(self, urls: list[str]) -> None:
        import aiohttp

        self._failures = (aiohttp.ClientError, OSError)
        self._replicas = Replicas([Replica(url) for url in dict.fromkeys(urls)], self._well)
        self.concurrency = PER_SERVER * len(self._replicas.members)
        self._session = aiohttp.ClientSession(
            cookie_jar=aiohttp.DummyCookieJar(),
            headers=self._headers,
            connector=aiohttp.TCPConnector(force_close=True),
        )
        self._wires = {
            member.url: Wire(
                f"{member.url}/chat/completions",
                self._headers,
                self.options.timeout,
                min(CONNECT, self.options.timeout),
            )
            for member in self._replicas.members
        }

    def _get(self, url: str) -> Any:
        """A request; a redirect would take headers to an address that nobody named."""
        return self._session.get(url, allow_redirects=False)

    async def _attach(self) -> None:
        """Ask every server for its models; those out of reach are left for later."""
        assert self._replicas is not None
        found: dict[str, tuple[Mapping[str, str], str, int | None]] = {}
        adapters: dict[str, str] = {}
        down: BackendDown | None = None
        for member in self._replicas.members:
            try:
                listed = await self._models_of(member)
            except BackendDown as error:
                down = error
                self._replicas.take_out(member, "not reachable at the start")
                continue
            entry = self._pick(member, listed)
            found[member.url] = (
                served_identity(entry, listed),
                str(entry["id"]),
                entry.get("max_model_len"),
            )
            adapters |= {
                each["id"]: str(each.get("root") or "") for each in listed if each.get("parent")
            }
        if not found:
            assert down is not None
            raise down
        (first, (identity, name, _)), *others = found.items()
        for url, (other, its_name, _) in others:
            if (other, its_name) != (identity, name):
                raise UsageError(
                    f"--base-url: {first} serves {name} and {url} serves {its_name}; one model at a time"
                )
        self._name = name
        self._identify(identity, adapters)
        windows = [self.options.window, *(window for _, _, window in found.values())]
        self.window = min(filter(None, windows), default=None)

    def _pick(self, member: Replica, listed: list[dict[str, Any]]) -> dict[str, Any]:
        wanted, choice = self.options.model, listed
        if wanted is None and self.options.adapter is not None:
            choice = [entry for entry in listed if not entry.get("parent")]
        for entry in choice:
            if wanted in (entry["id"], entry.get("root")) or (wanted is None and len(choice) == 1):
                return entry
        offered = ", ".join(sorted(entry["id"] for entry in listed)[:8]) or "none that it lists"
        if wanted is None:
            raise UsageError(
                f"{member.url} serves {len(listed)} models ({offered}); choose one with --model"
            )
        raise UsageError(f"{member.url} does not serve {wanted}; it serves {offered}")

    async def _models_of(self, member: Replica) -> list[dict[str, Any]]:
        """The entries of `/v1/models`.

        Raises:
            BackendDown: the server is out of reach, wants a key, or is no such server.
        """
        hint = "is the server running, and is --base-url right (it usually ends in /v1)?"
        try:
            async with asyncio.timeout(ASKING), self._get(f"{member.url}/models") as reply:
                content = await reply.read()
        except (*self._failures, TimeoutError) as error:
            why = self._secrets.strike(error) or type(error).__name__
            raise BackendDown(f"{member.url} cannot be reached ({why}); {hint}") from error
        if 300 <= reply.status < 400:
            raise BackendDown(redirect(member.url, reply.status, reply.headers, self._secrets))
        if reply.status in (401, 403):
            raise BackendDown(
                f"{member.url} answered {reply.status}: {self._said(content)}; set {self._key_name}"
            )
        try:
            listed: list[dict[str, Any]] = [
                entry for entry in msgspec.json.decode(content)["data"] if entry["id"]
            ]
        except (msgspec.DecodeError, KeyError, TypeError):
            raise BackendDown(
                f"{member.url} lists no models ({reply.status}: {self._said(content)}); {hint}"
            ) from None
        return listed

    async def _ask(self, replica: Replica, content: bytes, model: str) -> Response:
        replica.flying += 1
        try:
            status, headers, said = await self._wires[replica.url].post(content)
        except Unreachable as error:
            raise _Broken(
                f"{replica.url} accepts no connection ({error})", "no connection"
            ) from error
        except TimeoutError as error:
            assert self._replicas is not None
            if not await self._answers(replica):
                self._replicas.take_out(replica, "no answer")
            message = f"{replica.url} did not answer within {self.options.timeout:g} s"
            raise TransientError(message, kind="timeout") from error
        except OSError as error:
            why = str(error) or type(error).__name__
            raise _Broken(f"{replica.url} broke the connection ({why})", why) from error
        finally:
            replica.flying -= 1
        if status == 404 and model != self._name:
            await self._no_adapter(replica, model)
        if status != 200:
            self._refused(replica, status, said, headers)
        reply = read(
            said,
            replica.url,
            self._secrets.quote,
            lambda inside: self._refused(replica, inside, said, headers),
        )
        replica.calls += 1
        return self._secrets.clean(response(reply, other_model(model, reply.model)))

    async def _no_adapter(self, replica: Replica, adapter: str) -> NoReturn:
        adapters = sorted(
            entry["id"] for entry in await self._models_of(replica) if entry.get("parent")
        )
        message = f"{replica.url} serves no adapter '{adapter}' of {self._name}"
        if not adapters:
            raise BackendDown(f"{message}; it serves none (--enable-lora --lora-modules NAME=PATH)")
        more = f" and {len(adapters) - 8} more" if len(adapters) > 8 else ""
        raise BackendError(f"{message}; its adapters are {', '.join(adapters[:8])}{more}")

    def _refused(
        self, replica: Replica, status: int, content: bytes, headers: Mapping[str, str]
    ) -> NoReturn:
        message = f"{replica.url} answered {status}: {self._said(content)}"
        if 300 <= status < 400:
            raise BackendDown(redirect(replica.url, status, headers, self._secrets))
        if status in (500, 502, 503, 504):
            assert self._replicas is not None
            self._replicas.take_out(replica, f"answered {status}")
        if status == 429:
            raise Throttled(message, retry_after(headers), "429")
        if status in (408, 409) or status >= 500:
            raise TransientError(message, retry_after(headers), "5xx" if status >= 500 else "4xx")
        if status in (401, 403):
            raise BackendDown(f"{message}; set {self._key_name}")
        if status == 404:
            raise BackendDown(f"{message}; check --base-url and --model")
        raise Refused(message, status)

    async def _answers(self, replica: Replica) -> bool:
        """Whether a server says of itself that it is well; one without `/health` is believed to be."""
        try:
            async with asyncio.timeout(5), self._get(f"{replica.root}/health") as reply:
                return bool(reply.status < 500)
        except (*self._failures, TimeoutError):
            return False

    async def _well(self, replica: Replica) -> bool:
        """Whether a server answers and has the model of this run."""
        if not await self._answers(replica):
            return False
        try:
            names = {entry["id"] for entry in await self._models_of(replica)}
        except BackendDown:
            return False
        return self._name in names

    async def prefix_counts(self) -> tuple[int, int] | None:
        if self._replicas is None:
            return None
        totals = {b"hits": 0, b"queries": 0}
        heard = False
        for member in self._replicas.members:
            try:
                async with asyncio.timeout(5), self._get(f"{member.root}/metrics") as reply:
                    content = await reply.read()
            except (*self._failures, TimeoutError):
                continue
            for name, value in _COUNTERS.findall(content):
                heard = True
                totals[name] += int(float(value))
        return (totals[b"hits"], totals[b"queries"]) if heard else None

    async def _report_prefix_hits(self, before: tuple[int, int]) -> None:
        after = await self.prefix_counts()
        if after is None or after[1] <= before[1]:
            return
        hits, asked = self.prefix_hits = after[0] - before[0], after[1] - before[1]
        words = f"prefix cache: {hits} of {asked} prompt tokens were at hand ({hits / asked:.1%})"
        tell(words)
        if self._log is not None and self._log.parent.is_dir():
            with self._log.open("a", encoding="utf-8") as log:
                log.write(f"{words}\n")

    def _said(self, content: bytes) -> str:
        return self._secrets.quote(content.decode(errors="replace"))


class _Broken(Exception):
    """A connection that could not be made or broke; `why` is the reason alone."""

    def __init__(self, message: str, why: str) -> None:
        super().__init__(message)
        self.why = why
