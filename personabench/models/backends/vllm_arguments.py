"""The arguments of `vllm serve`, in one spelling, and those that change no answer.

An argument counts as part of the model unless it is known to change none, so that an option nobody thought of here
makes a model of its own instead of sharing another's answers.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

# Where the work is done: the same sums up to rounding, which differs with what is computed together anyhow.
_WHERE = (
    "--data-parallel-address",
    "--data-parallel-backend",
    "--data-parallel-rpc-port",
    "--data-parallel-size",
    "--data-parallel-size-local",
    "--distributed-executor-backend",
    "--enable-expert-parallel",
    "--master-addr",
    "--master-port",
    "--nnodes",
    "--node-rank",
    "--pipeline-parallel-size",
    "--tensor-parallel-size",
)
# How fast and in how much memory: what is computed together, and what is kept for reuse.
_SPEED = (
    "--api-server-count",
    "--async-scheduling",
    "--cpu-offload-gb",
    "--enable-chunked-prefill",
    "--enable-prefix-caching",
    "--enforce-eager",
    "--gpu-memory-utilization",
    "--kv-cache-memory-bytes",
    "--max-num-batched-tokens",
    "--max-num-seqs",
    "--max-parallel-loading-workers",
    "--num-gpu-blocks-override",
    "--swap-space",
)
# Where files lie, what is written down, and what the model is called.
_TALK = (
    "--collect-detailed-traces",
    "--disable-log-requests",
    "--disable-log-stats",
    "--disable-uvicorn-access-log",
    "--download-dir",
    "--enable-log-requests",
    "--max-log-len",
    "--otlp-traces-endpoint",
    "--served-model-name",
    "--uvicorn-log-level",
)
# Adapters count where one answers (`checkpoints.adapted`), not for the model beside them.
_ADAPTERS = (
    "--enable-lora",
    "--fully-sharded-loras",
    "--lora-modules",
    "--max-cpu-loras",
    "--max-lora-rank",
    "--max-loras",
)
UNCHANGING = frozenset((*_WHERE, *_SPEED, *_TALK, *_ADAPTERS))

_SHORT = {
    "-dp": "--data-parallel-size",
    "-ep": "--enable-expert-parallel",
    "-pp": "--pipeline-parallel-size",
    "-q": "--quantization",
    "-tp": "--tensor-parallel-size",
}
_GATHERED = ("--middleware",)
_OPTION = re.compile(r"-[^\d\s]")


def option_name(word: str) -> str:
    """The option of a word as vLLM spells it: its long name, with dashes for underscores up to the first dot."""
    name = word.partition("=")[0]
    if not name.startswith("--"):
        return _SHORT.get(name, name)
    head, dot, key = name.partition(".")
    return head.replace("_", "-") + dot + key


def counting(arguments: Sequence[str]) -> dict[str, list[str]]:
    """The options that may change answers with their values, sorted; the last of an option that is repeated."""
    read: dict[str, tuple[str, list[str]]] = {}
    name = ""
    for word in arguments:
        if _OPTION.match(word):
            spelled = option_name(word)
            name = spelled.replace("--no-", "--", 1) if spelled.startswith("--no-") else spelled
            earlier = (
                read[name][1] if name in read and (name in _GATHERED or name.endswith("+")) else []
            )
            _, equals, value = word.partition("=")
            read[name] = spelled, [*earlier, value] if equals else earlier
        else:
            read.setdefault(name, (name, []))[1].append(word)
    return {
        spelled: values
        for name, (spelled, values) in sorted(read.items())
        if name not in UNCHANGING
    }
