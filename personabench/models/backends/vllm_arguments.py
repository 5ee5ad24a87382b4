"""Arguments of `vllm serve`: one spelling for each, and the list of those that change no answer.

An argument is part of the model's identity unless it is known to change no answer, so that an
option missing here makes a separate model instead of sharing another's answers.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

# Placement: results are equal up to rounding, which varies with the composition of a batch anyway.
_PLACEMENT = (
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
# Speed and memory: the composition of batches, and caching.
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
# Locations of files, logging, and the name under which a model is served.
_REPORTING = (
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
# Adapters are part of the identity when one answers (`adapted_identity`), not of the model beside
# them.
_ADAPTERS = (
    "--enable-lora",
    "--fully-sharded-loras",
    "--lora-modules",
    "--max-cpu-loras",
    "--max-lora-rank",
    "--max-loras",
)
UNCHANGING = frozenset((*_PLACEMENT, *_SPEED, *_REPORTING, *_ADAPTERS))

_SHORT = {
    "-dp": "--data-parallel-size",
    "-ep": "--enable-expert-parallel",
    "-pp": "--pipeline-parallel-size",
    "-q": "--quantization",
    "-tp": "--tensor-parallel-size",
}
# Options that vLLM collects over several uses; of all others the last use wins.
_ACCUMULATING = ("--middleware",)
_OPTION = re.compile(r"-[^\d\s]")


def option_name(word: str) -> str:
    """Return the option of a word in vLLM's spelling: its long name, with dashes up to a dot."""
    name = word.partition("=")[0]
    if not name.startswith("--"):
        return _SHORT.get(name, name)
    head, dot, key = name.partition(".")
    return head.replace("_", "-") + dot + key


def options_that_count(arguments: Sequence[str]) -> dict[str, list[str]]:
    """Return the options that may change answers, sorted; of a repeated option its last use."""
    options: dict[str, tuple[str, list[str]]] = {}
    name = ""
    for word in arguments:
        if not _OPTION.match(word):
            _, values = options.setdefault(name, (name, []))
            values.append(word)
            continue

        spelling = option_name(word)
        name = spelling
        # `--x` and `--no-x` set the same option, so the last of the two wins.
        if spelling.startswith("--no-"):
            name = spelling.replace("--no-", "--", 1)

        values = []
        # A name that ends in "+" appends to a list inside a JSON option.
        if name in options and (name in _ACCUMULATING or name.endswith("+")):
            values = list(options[name][1])
        _, equals, value = word.partition("=")
        if equals:
            values.append(value)
        options[name] = (spelling, values)

    counting = {}
    for name, (spelling, values) in sorted(options.items()):
        if name not in UNCHANGING:
            counting[spelling] = values
    return counting
