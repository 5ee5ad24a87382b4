"""The `Backend` interface and the options shared by all backends."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from personabench.models.rate_limit import Limiter
from personabench.models.tokens import Tokens
from personabench.types import Request, Response

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
    """

    model: str | None = None
    base_url: str | None = None
    window: int | None = None
    timeout: float = 600.0
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    keys: tuple[str, ...] | None = None
    embedder_url: str | None = None


@dataclass(frozen=True)
class VLLMOptions:
    """Options of the `vllm` backend alone.

    Attributes:
        replicas: addresses of further servers of the same model.
        vllm_args: arguments of a server started for the run.
        start_timeout: seconds that this server may take to start.
        adapter: the served adapter that answers for a user, with "{user_id}" as placeholder for the
            user.
    """

    replicas: tuple[str, ...] = ()
    vllm_args: tuple[str, ...] = ()
    start_timeout: float = 1800.0
    adapter: str | None = None


@dataclass(frozen=True)
class OpenAIOptions:
    """Options of the `openai` backend alone.

    Attributes:
        rpm, tpm: calls and tokens per minute at most.
        api_version: use an Azure resource with this API version.
        omit: sampling fields that are not sent, for models that reject them; part of the identity.
        batch: collect calls into batch jobs, and note those in progress in this folder.
    """

    rpm: float | None = None
    tpm: float | None = None
    api_version: str | None = None
    omit: tuple[str, ...] = ()
    batch: Path | None = None


# Dataclasses collect fields from the last base to the first, so those of a connection come first.
@dataclass(frozen=True)
class BackendOptions(OpenAIOptions, VLLMOptions, ConnectionOptions):
    """Options of a backend, from the command line.

    One flat class, since the backend is known only when the options are; `backends.create` rejects
    the options of another backend.
    """


class Backend(ABC):
    """A model that can be called.

    Attributes:
        identity: the model's identity in all keys, independent of location and time, with a
            readable "name"; valid after `identify`.
        window: the context window in tokens, or None if unknown; tokens: the model's token counter;
            both valid after `open`.
        concurrency: default number of calls in flight.
        supports_reply_logprobs: whether it can report the likelihood of a given reply (the last
            message of a request with `max_tokens` 0).
        packaged: whether the model is the small one that comes with the package; valid after
            `identify`.
    """

    identity: Mapping[str, str]
    window: int | None = None
    tokens: Tokens
    concurrency: int = 32
    supports_reply_logprobs: bool = False
    packaged: bool = False

    def __init__(self, options: BackendOptions) -> None:
        self.options = options

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
