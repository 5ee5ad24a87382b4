"""The `Backend` interface and the options shared by all backends."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from personabench.errors import UsageError
from personabench.hashing import digest
from personabench.models.backends import reasoning
from personabench.models.backends.adapters import DEFAULT, adapter_folder
from personabench.models.backends.dialect import PLAIN, Dialect, RequestWriter
from personabench.models.backends.model_identity import fingerprint
from personabench.models.rate_limit import Limiter
from personabench.models.tokens import Tokens
from personabench.types import Request, Response, to_json

USER = "{user_id}"
"""The placeholder for the user in the name of an adapter."""


@dataclass(frozen=True)
class ConnectionOptions:
    """Options of every backend: the model, and its server if it has one.

    Attributes:
        model: a model's name or path; None for the backend's default.
        base_url: the address of the API.
        window: the context window in tokens, if the backend cannot determine it.
        timeout: seconds that one call may take.
        headers: extra HTTP headers; their values are secrets.
        keys: environment variables that may hold the server's key, of which the first that is set
            is used; None for the backend's own.
        embedder_url: the address of an embedding server; None for `base_url`.
        role: the role that the model plays, for the names of options in messages; "" for the model
            under test.
        omit: sampling fields that are not sent, for models that refuse them.
        extra: further fields of every request.
        reasoning: how much the model thinks, as in `reasoning.ALLOWANCES` or a number of tokens;
            None says nothing.
        temperature: of every request, in place of that of the protocol; for roles.

    The last four are part of the identity.
    """

    model: str | None = None
    base_url: str | None = None
    window: int | None = None
    timeout: float = 600.0
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    keys: tuple[str, ...] | None = None
    embedder_url: str | None = None
    role: str = ""
    omit: tuple[str, ...] = ()
    extra: Mapping[str, Any] = field(default_factory=dict)
    reasoning: str | None = None
    temperature: float | None = None


@dataclass(frozen=True)
class VLLMOptions:
    """Options of the `vllm` backend alone.

    Attributes:
        replicas: addresses of further servers of the same model.
        vllm_args: arguments of a server started for the run.
        start_timeout: seconds that this server may take to start.
        adapter: the served adapter that answers for a user, with "{user_id}" as placeholder for the
            user.
        adapter_map: the adapter of each user, by name or folder; "*" is that of all others, and ""
            the model itself.
    """

    replicas: tuple[str, ...] = ()
    vllm_args: tuple[str, ...] = ()
    start_timeout: float = 1800.0
    adapter: str | None = None
    adapter_map: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class LocalOptions:
    """Options of the `local` backend alone.

    Attributes:
        checkpoint: the folder or hub name of the checkpoint that the model's file was made of, on
            which adapters are trained.
    """

    checkpoint: str | None = None


@dataclass(frozen=True)
class OpenAIOptions:
    """Options of the `openai` backend alone.

    Attributes:
        rpm, tpm: calls and tokens per minute at most.
        api_version: use an Azure resource with this API version.
        batch: collect calls into batch jobs, and note those in progress in this folder.
    """

    rpm: float | None = None
    tpm: float | None = None
    api_version: str | None = None
    batch: Path | None = None


# Dataclasses collect fields from the last base to the first, so those of a connection come first.
@dataclass(frozen=True)
class BackendOptions(LocalOptions, OpenAIOptions, VLLMOptions, ConnectionOptions):
    """Options of a backend, from the command line.

    One flat class, since the backend is known only when the options are; `backends.create` rejects
    the options of another backend.
    """

    @property
    def marks(self) -> dict[str, str]:
        """The parts of a model's identity that come from the options about request fields."""
        marks = {}
        if self.omit:
            marks["omit"] = ",".join(sorted(self.omit))
        if self.extra:
            marks["extra"] = to_json(dict(self.extra))
        if self.reasoning is not None:
            marks["reasoning"] = self.reasoning
        if self.temperature is not None:
            marks["temperature"] = f"{self.temperature:g}"
        return marks


class Backend(ABC):
    """A model that can be called.

    Attributes:
        identity: the model's identity in all keys, independent of location and time, with a
            readable "name"; valid after `identify`.
        window: the context window in tokens, or None if unknown; tokens: the model's token counter;
            both valid after `open`.
        concurrency: default number of calls in flight.
        dialect: how requests are put to the model; writer: the writer of their bodies, None for a
            model that has no dialect to learn.
        address: the server's address, or "" for none.
        is_probing: a probe is being sent, which waits for no batch.
        supports_reply_logprobs: whether it can report the likelihood of a given reply (the last
            message of a request with `max_tokens` 0).
        packaged: whether the model is the small one that comes with the package; valid after
            `identify`.
        serves: the kinds of artifacts of training that it can answer through: "lora" for adapters,
            "steering_vector" for vectors that are added to hidden states.
        misses_checkpoint: whether `--checkpoint` has to name the model that its adapters are
            trained on.
        adapters: the folders of artifacts on this machine, by the names in requests.
        scales: the strength of each that has another than 1.
    """

    identity: Mapping[str, str]
    window: int | None = None
    tokens: Tokens
    concurrency: int = 32
    supports_reply_logprobs: bool = False
    packaged: bool = False
    serves: frozenset[str] = frozenset()
    misses_checkpoint: bool = False
    dialect: Dialect = PLAIN
    writer: RequestWriter | None = None
    address: str = ""
    is_probing: bool = False

    def __init__(self, options: BackendOptions) -> None:
        self.options = options
        self.adapters: dict[str, Path] = {}
        self.scales: dict[str, float] = {}
        self._mapped = {user: self._name_mapped(text) for user, text in options.adapter_map.items()}

    def _name_mapped(self, text: str) -> str:
        """The name of an adapter of the map; a folder's is by content, so that no place counts."""
        if not text or not Path(text).is_dir():
            return text
        folder = adapter_folder(Path(text))
        name = f"adapter-{fingerprint(folder)[:16]}"
        self.add_adapter(name, folder)
        return name

    @property
    def map_marks(self) -> dict[str, str]:
        """The part of the model's identity that comes from the map of adapters."""
        return {"adapters": digest(self._mapped)} if self._mapped else {}

    def add_adapter(self, name: str, folder: Path, scale: float = 1.0) -> None:
        """Make the adapter in a folder on this machine known to requests by a name."""
        self.adapters[name] = folder
        self.scales[name] = scale

    def create_writer(
        self, neutral: Mapping[str, Any], url: str | None, *, is_nearby: bool
    ) -> RequestWriter:
        """Return the writer of the bodies of requests, with the fields that the options set."""
        options = self.options
        self._site = (url, is_nearby)
        return RequestWriter(
            neutral,
            omit=options.omit,
            extra=options.extra,
            temperature=options.temperature,
            forms=self._reasoning_forms(),
        )

    def _reasoning_forms(self) -> tuple[reasoning.Form, ...]:
        learnt = self.writer.dialect.most_tokens if self.writer is not None else None
        limits = [size // 2 for size in (self.window, learnt) if size]
        limit = min(limits, default=None)
        return reasoning.forms(self.options.reasoning, *self._site, limit)

    def fit_thoughts(self) -> None:
        """Limit thoughts to half of the window and of a reply, which are not known at first."""
        if self.writer is not None and self.options.reasoning is not None:
            self.writer.forms = self._reasoning_forms()
            self.writer.adopt(self.writer.dialect)

    def check_omitted(self, fields: Sequence[str]) -> None:
        """Check `--omit-params` against the fields that can be left out.

        Raises:
            UsageError: it names another field.
        """
        unknown = sorted(set(self.options.omit) - set(fields))
        if unknown:
            prefix = f"--{self.options.role}-" if self.options.role else "--"
            raise UsageError(
                f"{prefix}omit-params {', '.join(unknown)}: only {', '.join(fields)} can be omitted"
            )

    def adopt(self, dialect: Dialect) -> None:
        """Put further requests in a dialect, which becomes part of the identity."""
        # The constant, so that a call can tell by identity.
        self.dialect = PLAIN if dialect == PLAIN else dialect
        if self.writer is not None:
            self.writer.adopt(dialect)
            self.fit_thoughts()
        self.identity = self._identity_with(dialect.marks())

    def identity_of(self, request: Request) -> Mapping[str, str]:
        """Return the identity in the key of a request: a dialect counts only if it changes it."""
        if self.dialect is PLAIN:
            return self.identity
        return self._identity_with(self.dialect.marks(request))

    def _identity_with(self, marks: str) -> dict[str, str]:
        identity = {name: value for name, value in self.identity.items() if name != "dialect"}
        if marks:
            identity["dialect"] = marks
        return identity

    def is_greedy(self, request: Request) -> bool:
        """Return whether a reply is decoded without sampling, so that no seed can change it.

        A server's rounding may; seeds do not measure that.
        """
        # Nothing is generated for a likelihood request.
        if not request.max_tokens:
            return True
        # The server's default applies in its place, which samples.
        if "temperature" in self.options.omit:
            return False
        temperature = self.options.temperature
        return (request.temperature if temperature is None else temperature) == 0

    async def read_dialect(self) -> Dialect | None:
        """Return the dialect of an opened model that tells it without a call; else None."""
        return None

    def thought_allowance(self) -> int:
        """Return the tokens for the thought before an answer, at most half of the window."""
        level = self.options.reasoning
        tokens = reasoning.allowance(level) if self.writer is None else self.writer.allowance
        return min(tokens, self.window // 2) if self.window else tokens

    @abstractmethod
    async def identify(self) -> None:
        """Determine which model this is, without loading it.

        Raises:
            UsageError: no such model, no key, an unreadable file.
            BackendDown: the server does not answer.
        """

    async def open(self, log: Path | None = None) -> None:
        """Prepare to answer; `log` is a file for the model's own messages.

        Raises:
            UsageError: the model does not load.
        """

    def move_log(self, log: Path) -> None:
        """Note that the file that `open` was given has moved."""

    @abstractmethod
    async def complete(self, request: Request, group: str) -> Response:
        """Answer one request; requests of one `group` (a user) share a prefix worth caching.

        Raises:
            TransientError: worth another try.
            BackendError: this request failed for good.
            BackendDown: no request will succeed.
        """

    async def prefix_counts(self) -> tuple[int, int] | None:
        """Return prompt tokens found and looked up in the prefix cache so far; None if unknown."""
        return None

    def adapter(self, user: str) -> str | msgspec.UnsetType:
        """Return the adapter that answers for a user; unset for the model itself."""
        if self._mapped:
            # Calls that belong to no user are the model's own.
            name = self._mapped.get(user, self._mapped.get(DEFAULT, "")) if user else ""
            return name or msgspec.UNSET

        template = self.options.adapter
        if template is None:
            return msgspec.UNSET

        # Calls that belong to no user have no adapter of their own.
        if USER in template and not user:
            return msgspec.UNSET
        return template.replace(USER, user)

    def limiter(self, most: int) -> Limiter:
        """Return the limiter of a client's calls, `most` of them in flight."""
        return Limiter(most)

    async def aclose(self) -> None:
        """Release all resources."""
