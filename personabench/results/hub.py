"""Push a run's samples to the Hugging Face hub, or to a server of its protocol (`HF_ENDPOINT`).

A repository may hold many runs: each is a configuration of the dataset, named by task, method and
run, so that a push replaces the same run and leaves the others alone.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

from personabench.errors import RunError, UsageError
from personabench.models.environment import is_loopback, is_offline
from personabench.results.export import Source, building_dataset

_REPOSITORY = re.compile(r"[\w.-]+/[\w.-]+", re.ASCII)
_LONGEST_REASON = 300


def push_dataset(source: Source, repository: str, *, public: bool = False) -> str:
    """Push a run's rows as a dataset; return where they are.

    Args:
        repository: OWNER/NAME; it is made if it does not exist.
        public: whether a repository that is made can be read by everybody.

    Raises:
        UsageError: the name is none, or the command is offline.
        RunError: the hub refuses the push, or cannot be reached.
    """
    if not _REPOSITORY.fullmatch(repository):
        raise UsageError(f"--push {repository}: write OWNER/NAME")
    from huggingface_hub import constants

    if is_offline() and not is_loopback(urlsplit(constants.ENDPOINT).hostname):
        raise UsageError(
            f"offline: --push {repository} needs {constants.ENDPOINT}; repeat without --offline, "
            "or write a folder with --output"
        )
    name = name_configuration(source)
    try:
        with _quiet(), building_dataset(source) as dataset:
            dataset.push_to_hub(
                repository,
                config_name=name,
                private=not public,
                commit_message=f"{name}, exported by personabench",
            )
    # The hub client raises errors of many libraries.
    except Exception as error:
        reason = " ".join(str(error).split())[:_LONGEST_REASON] or type(error).__name__
        raise RunError(
            f"{repository} was not pushed to {constants.ENDPOINT}: {reason}; log in with "
            "`hf auth login` or set HF_TOKEN to a token that may write, and check HF_ENDPOINT"
        ) from error
    return f"{constants.ENDPOINT}/datasets/{repository} (configuration {name})"


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep bars and remarks of the libraries out of the output of the command."""
    import datasets
    import huggingface_hub.utils

    # Without a type, since the client exports its functions when they are first used.
    client: Any = huggingface_hub.utils
    verbosity = datasets.logging.get_verbosity()
    were_disabled = client.are_progress_bars_disabled()
    datasets.logging.set_verbosity_error()
    client.disable_progress_bars()
    try:
        yield
    finally:
        datasets.logging.set_verbosity(verbosity)
        if not were_disabled:
            client.enable_progress_bars()


def name_configuration(source: Source) -> str:
    """The name of a run among the configurations of a dataset."""
    spec = source.spec
    name = f"{spec.task}-{spec.method}-{spec.fingerprint[:8]}"
    return re.sub(r"[^\w.-]", "_", name, flags=re.ASCII)
