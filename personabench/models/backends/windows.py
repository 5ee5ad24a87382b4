"""Models and their context windows, in tokens, as servers state them: in lists and in refusals."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

# By server: vLLM and SGLang; OpenRouter, Together, Fireworks; Groq and LiteLLM; Mistral and LM
# Studio, whose loaded window may be smaller; Novita; llama.cpp.
_FIELDS = (
    "max_model_len",
    "context_length",
    "context_window",
    "max_context_length",
    "loaded_context_length",
    "context_size",
    "max_context_tokens",
    "max_input_tokens",
    "max_sequence_length",
    "max_seq_len",
    "context_len",
    "n_ctx",
)
_NESTED = ("meta", "metadata", "top_provider", "model_info", "limits", "capabilities")
# The window that a model was trained for, if the server states no other.
_TRAINED = "n_ctx_train"
_MOST = 1 << 31

# OpenAI and vLLM; llama.cpp (with its field); llama-cpp-python; Anthropic ("N tokens > M maximum");
# Gemini, Mistral and Together.
# Bounded, so that a text of nothing but digits is searched in linear time.
_COUNT = r"(\d[\d,]{0,14})"
_STATED = re.compile(
    rf"maximum (?:context|model|sequence|prompt) length(?: is| of| for this model is|:) {_COUNT}"
    rf"|{_COUNT} maximum context length"
    rf"|\"n_ctx\":\s*{_COUNT}"
    rf"|context (?:size|window|length) (?:of (?:only )?|is |\(|limit of ){_COUNT}"
    # TGI, DashScope, Moonshot.
    rf"|max_new_tokens\W{{1,3}}must be <= {_COUNT}"
    rf"|input length should be \[\d+, {_COUNT}"
    rf"|model token limit: {_COUNT}"
    rf"|max_model_len\D{{1,20}}{_COUNT}"
    rf"|tokens? > {_COUNT} maximum"
    rf"|(?:maximum|max) (?:number of )?(?:input |prompt )?tokens (?:allowed |permitted )?"
    rf"(?:is |of |\(|allowed: |: ){_COUNT}",
    re.I,
)


def read_models(content: bytes) -> list[dict[str, Any]] | None:
    """Return the entries of `/models` that have an id; None if the reply has no list of them.

    Raises:
        ValueError: it is not JSON.
    """
    try:
        listed = json.loads(content.decode("utf-8-sig", errors="replace"))
    except RecursionError as error:
        raise ValueError("nested too deeply") from error

    entries = listed.get("data") if isinstance(listed, dict) else None
    if not isinstance(entries, list):
        return None
    models = [entry for entry in entries if isinstance(entry, dict)]
    return [entry for entry in models if entry.get("id") and isinstance(entry["id"], str)]


def listed_window(entry: Mapping[str, Any]) -> int | None:
    """Return the smallest window that a model's entry in `/models` states; None without any."""
    parts = [entry]
    for name in _NESTED:
        part = entry.get(name)
        if isinstance(part, Mapping):
            parts.append(part)
    # Of Hugging Face's router, which may choose any of them.
    providers = entry.get("providers")
    if isinstance(providers, list):
        parts += [provider for provider in providers if isinstance(provider, Mapping)]

    windows = [_read_count(part.get(name)) for part in parts for name in _FIELDS]
    stated = [window for window in windows if window is not None]
    if stated:
        return min(stated)
    trained = [_read_count(part.get(_TRAINED)) for part in parts]
    return min((window for window in trained if window is not None), default=None)


def refused_window(text: str) -> int | None:
    """Return the window that a refusal of too long a prompt states; None without any."""
    match = _STATED.search(text)
    if match is None:
        return None
    count = next(group for group in match.groups() if group is not None)
    return _read_count(count.replace(",", ""))


def _read_count(value: Any) -> int | None:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        count = int(float(value))
    except (ValueError, OverflowError):
        return None
    return count if 0 < count < _MOST else None
