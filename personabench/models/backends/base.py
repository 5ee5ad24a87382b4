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


@dataclass(frozen=True)
class BackendOptions:
    """What the command line says about a backend.

    Attributes:
        model: a model's name or path; None for the backend's default.
        base_url: where an API lives.
        window: the context window in tokens, where the backend cannot know it.
        timeout: seconds one call may take.
        headers: extra HTTP headers; their values are secrets.
        keys: environment variables that may hold the server's key, the first that is set does; None for the backend's.
        rpm, tpm: calls and tokens per minute at most; for `openai`.
        api_version: makes `openai` speak to an Azure resource.
        batch: gather calls into batch jobs, those that are out being noted in this folder; for `openai`.
        omit: sampling fields that `openai` does not send, for models that refuse them; part of the identity.
        replicas: where further servers of the same model live; for `vllm`.
        vllm_args: arguments of the server that `vllm` starts; start_timeout: seconds it may take to come up.
        adapter: the served adapter that answers for a user, "{user_id}" standing for the user; for `vllm`.
        embedder_url: where an embedding server lives; None for `base_url`.
    """

    model: str | None = None
    base_url: str | None = None
    window: int | None = None
    timeout: float = 600.0
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    replicas: tuple[str, ...] = ()
    vllm_args: tuple[str, ...] = ()
    start_timeout: float = 1800.0
    adapter: str | None = None
    embedder_url: str | None = None
    rpm: float | None = None
    tpm: float | None = None
    api_version: str | None = None
    omit: tuple[str, ...] = ()
    batch: Path | None = None
    keys: tuple[str, ...] | None = None


class Backend(ABC):
    """A model, reachable.

    Attributes:
        identity: what names the model in every key, free of place and time, with "name" for people; valid after
            `identify`.
        window: the context window in tokens, or None when unknown; tokens: the model's token counter; both valid
            after `open`.
        concurrency: how many calls it takes at once unless the user says otherwise.
        weighs_replies: whether it says how likely a given reply is: the last message of a request with `max_tokens` 0.
    """

    identity: Mapping[str, str]
    window: int | None = None
    tokens: Tokens
    concurrency: int = 32
    supports_reply_logprobs: bool = False

    def __init__(self, options: BackendOptions) -> None:
        self.options = options

    @abstractmethod
    async def identify(self) -> None:
        """Find out which model this is, without loading it.

        Raises:
            UsageError: no such model, no key, an unreadable file.
            BackendDown: nobody answers.
        """

    async def open(self, log: Path | None = None) -> None:
        """Get ready to answer; `log` is a file for the model's own messages.

        Raises:
            UsageError: the model does not load.
        """

    @abstractmethod
    async def complete(self, request: Request, group: str) -> Response:
        """Answer one request; requests of one `group` (a user) share a prefix worth keeping warm.

        Raises:
            TransientError: worth another try.
            BackendError: this request failed for good.
            BackendDown: no request will succeed.
        """

    async def prefix_counts(self) -> tuple[int, int] | None:
        """Prompt tokens found in and looked up in the model's prefix cache so far; None when nobody says."""
        return None

    def adapter(self, user: str) -> str | msgspec.UnsetType:
        """The adapter that answers for a user; unset for the model itself, as for work of no user ("")."""
        template = self.options.adapter
        if template is None or (USER in template and not user):
            return msgspec.UNSET
        return template.replace(USER, user)

    def limiter(self, most: int) -> Limiter:
        """The gate through which a client's calls go, `most` in flight."""
        return Limiter(most)

    async def aclose(self) -> None:
        """Let go of everything."""
