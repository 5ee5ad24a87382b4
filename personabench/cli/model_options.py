"""Options of models: the one under test, and those that play a role.

A command takes the options of a model as one parameter (see `option_groups`); one function turns
them into the options of its backend.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from personabench.cli.completion import complete_backends, complete_models
from personabench.cli.execution_options import (
    Batch,
    RequestsPerMinute,
    StartTimeout,
    Timeout,
    TokensPerMinute,
)
from personabench.cli.help import ROLES_PANEL
from personabench.cli.option_groups import NamedGroup
from personabench.cli.options import (
    Adapter,
    AdapterMap,
    ApiVersion,
    Backend,
    BaseUrl,
    Checkpoint,
    ContextLength,
    EmbedderUrl,
    Extra,
    Headers,
    Model,
    OmitParams,
    Reasoning,
    VllmArgs,
)
from personabench.cli.parsing import read_extra, read_reasoning, split_names, split_vllm_args

if TYPE_CHECKING:
    from personabench.models.backends.base import BackendOptions
    from personabench.models.roles import RoleName


@dataclass(frozen=True, kw_only=True)
class Connection:
    """The options that every model has, as given on the command line."""

    backend: str | None = None
    model: Model = None
    base_url: BaseUrl = None
    window: ContextLength = None
    header: Headers = None
    omit: OmitParams = None
    extra: Extra = None
    reasoning: Reasoning = None

    def read(self, prefix: str = "", **further: Any) -> BackendOptions:
        """Return the options of the backend.

        Args:
            prefix: of the options' names in messages, such as "judge-".
            further: options that only some models have.

        Raises:
            UsageError: a malformed option.
        """
        from personabench.models.backends import read_headers
        from personabench.models.backends.base import BackendOptions

        urls = split_names(self.base_url or "")
        return BackendOptions(
            model=self.model,
            base_url=urls[0] if urls else None,
            replicas=tuple(urls[1:]),
            window=self.window,
            headers=read_headers(self.header or (), f"--{prefix}header"),
            omit=tuple(split_names(self.omit or "")),
            extra=read_extra(self.extra or (), f"--{prefix}extra"),
            reasoning=read_reasoning(self.reasoning, f"--{prefix}reasoning"),
            **further,
        )


@dataclass(frozen=True, kw_only=True)
class ModelArguments(Connection):
    """The options of the model under test that determine its answers and its server."""

    backend: Backend = "local"
    api_version: ApiVersion = None
    vllm_args: VllmArgs = None
    start_timeout: StartTimeout = 1800.0
    timeout: Timeout = None

    def read(self, prefix: str = "", **further: Any) -> BackendOptions:
        """As in `Connection`."""
        if self.timeout is not None:
            further["timeout"] = self.timeout
        return super().read(
            prefix,
            api_version=self.api_version,
            vllm_args=split_vllm_args(self.vllm_args),
            start_timeout=self.start_timeout,
            **further,
        )


@dataclass(frozen=True, kw_only=True)
class RunModelArguments(ModelArguments):
    """All options of the model under test."""

    adapter: Adapter = None
    adapter_map: AdapterMap = None
    checkpoint: Checkpoint = None
    embedder_url: EmbedderUrl = None
    rpm: RequestsPerMinute = None
    tpm: TokensPerMinute = None
    batch: Batch = False

    def read_for_run(self, results: Path) -> BackendOptions:
        """Return the options of the backend; batch jobs in progress are noted in `results`."""
        return self.read(
            adapter=self.adapter,
            adapter_map=read_map(self.adapter_map),
            checkpoint=self.checkpoint,
            embedder_url=self.embedder_url,
            rpm=self.rpm,
            tpm=self.tpm,
            batch=results / "batches" if self.batch else None,
        )


def read_map(path: Path | None) -> dict[str, str]:
    """Return the adapters of users from the file of `--adapter-map`; none without one."""
    from personabench.models.backends.adapters import read_adapter_map

    return read_adapter_map(path) if path else {}


@dataclass(frozen=True, kw_only=True)
class RoleArguments(Connection):
    """The options of a model that plays a role."""

    temperature: float | None = None

    def read_for_role(self, role: RoleName, timeout: float) -> BackendOptions:
        """Return the options of the role's backend.

        Raises:
            UsageError: a malformed option.
        """
        from personabench.models.roles import OPTION_PREFIXES

        prefix = OPTION_PREFIXES[role]
        return self.read(f"{prefix}-", role=prefix, temperature=self.temperature, timeout=timeout)


def declare_role(
    prefix: str,
    player: str,
    temperature: str,
    default: str = "the model under test",
    header_alias: Sequence[str] = (),
) -> NamedGroup:
    """Declare the options of a role.

    Args:
        player: who plays the role, in words.
        temperature: its temperature without the option, in words.
        default: the backend without the option, in words.
        header_alias: a further name of the option of headers.
    """

    def option(name: str, metavar: str, text: str, *names: str, **limits: Any) -> Any:
        return typer.Option(
            *names,
            f"--{prefix}-{name}",
            metavar=metavar,
            help=text,
            rich_help_panel=ROLES_PANEL,
            **limits,
        )

    text, texts = str | None, list[str] | None
    # The rest of a model's options belongs to an experiment, not to a machine.
    variable = f"PERSONABENCH_{prefix.upper()}"
    backend = option(
        "backend",
        "BACKEND",
        f"Backend of {player} (default: {default}).",
        envvar=f"{variable}_BACKEND",
        autocompletion=complete_backends,
    )
    model = option(
        "model",
        "MODEL",
        f"Model of {player}.",
        envvar=f"{variable}_MODEL",
        autocompletion=complete_models,
    )
    url = option("base-url", "URL", f"Server of {player}.", envvar=f"{variable}_BASE_URL")
    header = option(
        "header", "HEADER", f"HTTP header for the server of {player}. Repeatable.", *header_alias
    )
    degree = option(
        "temperature", "T", f"Temperature of {player} (default: {temperature}).", min=0.0
    )
    window = option(
        "context-length", "TOKENS", f"Context window of {player}, as in --context-length.", min=1
    )
    extra = option("extra", "KEY=JSON", f"Further field of requests to {player}. Repeatable.")
    reasoning = option("reasoning", "LEVEL", f"How much {player} thinks, as in --reasoning.")
    return NamedGroup(
        prefix,
        {
            "backend": Annotated[text, backend],
            "model": Annotated[text, model],
            "base_url": Annotated[text, url],
            "window": Annotated[int | None, window],
            "header": Annotated[texts, header],
            "temperature": Annotated[float | None, degree],
            "omit": Annotated[
                text, option("omit-params", "NAME,..", f"Fields not to send to {player}.")
            ],
            "extra": Annotated[texts, extra],
            "reasoning": Annotated[text, reasoning],
        },
    )


Simulator = Annotated[
    RoleArguments, declare_role("simulator", "the simulated user", "set by the task")
]
Judge = Annotated[RoleArguments, declare_role("judge", "the judge", "set by the task")]
Profiler = Annotated[RoleArguments, declare_role("profile", "the profiler", "as --temperature")]

JudgeRubric = Annotated[
    Path | None,
    typer.Option(
        "--judge-rubric",
        metavar="FILE",
        help="Criteria (YAML) by which the judge scores the answers of text tasks, or bespoke, "
        "boolean or expert.",
        dir_okay=False,
        rich_help_panel=ROLES_PANEL,
    ),
]


def role_backends(
    backend: str, under: BackendOptions, roles: Mapping[RoleName, RoleArguments]
) -> dict[RoleName, tuple[str, BackendOptions]]:
    """Backend and options of each role that has its own backend, model or server.

    Args:
        backend: backend of the model under test.
        under: its options, which are the defaults of a role's backend and server.
        roles: the arguments of each role.

    Raises:
        UsageError: a malformed option, or options of a role that the model under test plays.
    """
    backends: dict[RoleName, tuple[str, BackendOptions]] = {}
    for role, arguments in roles.items():
        options = arguments.read_for_role(role, under.timeout)
        if not (arguments.backend or arguments.model or arguments.base_url):
            _require_no_options(role, arguments)
            continue

        # Secrets of the model's server go to a role only if the role calls the same server.
        if arguments.base_url is None and arguments.backend in (None, backend):
            options = replace(
                options,
                base_url=under.base_url,
                headers={**under.headers, **options.headers},
                api_version=under.api_version,
            )
        backends[role] = (arguments.backend or backend, options)
    return backends


def _require_no_options(role: RoleName, arguments: RoleArguments) -> None:
    """Refuse options of a role that the model under test plays.

    Raises:
        UsageError: there are some.
    """
    from personabench.errors import UsageError
    from personabench.models.roles import OPTION_PREFIXES

    prefix = OPTION_PREFIXES[role]
    values = {
        "header": arguments.header,
        "temperature": arguments.temperature is not None,
        "context-length": arguments.window is not None,
        "omit-params": arguments.omit,
        "extra": arguments.extra,
        "reasoning": arguments.reasoning,
    }
    for option, is_used in values.items():
        if is_used:
            raise UsageError(
                f"--{prefix}-{option}: the {role} is the model under test; "
                f"name another with --{prefix}-model"
            )
