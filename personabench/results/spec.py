"""The spec of a run: its resolved configuration and the fingerprint that names it.

A fingerprint covers everything that can change a prediction and nothing else. Limit, concurrency,
URL, cache policy and folders are not in it, so the same command with a larger limit continues the
same run.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from personabench.hashing import digest
from personabench.types import Sampling

SPEC_VERSION = 2
"""2: `data_hash` is of the records.  1: it is of the bytes of the files."""


class RunSpec(msgspec.Struct, frozen=True):
    """One task, one method, one model: the identity of a run.

    Attributes:
        task, task_version, task_params: the benchmark task and the options that change its prompts.
        separation, split: the part of the benchmark.
        sample: the task's example data was used.
        data_hash: SHA-256 of the data's records (in version 1 of the data files).
        method, method_hash, params: the method, the hash of its source, and its parameters,
            defaults included.
        task_hash: the hash of the task's source; empty in runs of earlier versions.
        history: the control applied to users' histories; "own" leaves them as they are.
        model: the backend's identity of the model (name, file hash), free of place and time.
        sampling, seed: decoding and the seed of all randomness.
        window: the context window that prompts were fitted to, in tokens; None for the model's own.
        simulator: identity of the model behind the simulated user, in tasks that have one.
        tokenizer: the task's tokenizer for BM25 unless it is "whitespace", which was the only one
            in earlier versions.
        prompts: the hash of the method's texts, unless they are those of its compact wording.
        profiler: identity of the model that writes profiles, if it is not the model under test,
            with the window and the texts of its prompts.
        selection: "longest" if the users are those with the longest histories, not a seeded draw.
        version: the version of this identity; see `SPEC_VERSION`.
    """

    task: str
    task_version: int
    task_params: Mapping[str, Any]
    separation: str
    split: str
    sample: bool
    data_hash: str
    method: str
    method_hash: str
    params: Mapping[str, Any]
    model: Mapping[str, str]
    sampling: Sampling
    seed: int
    history: str = "own"
    window: int | None = None
    task_hash: str = ""
    simulator: Mapping[str, str] | msgspec.UnsetType = msgspec.UNSET
    tokenizer: str | msgspec.UnsetType = msgspec.UNSET
    prompts: str | msgspec.UnsetType = msgspec.UNSET
    profiler: Mapping[str, str] | msgspec.UnsetType = msgspec.UNSET
    selection: str | msgspec.UnsetType = msgspec.UNSET
    version: int = SPEC_VERSION

    @property
    def version_note(self) -> str:
        """A clause for messages about data that does not fit; empty for runs of this version."""
        if self.version == SPEC_VERSION:
            return ""
        return (
            "; the run is of an earlier version, which identified data by its bytes: repeat the "
            "run's command, which uses the stored replies"
        )

    @property
    def fingerprint(self) -> str:
        """SHA-256, in hex, of the canonical JSON of this spec."""
        return digest(self)
