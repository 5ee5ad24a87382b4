"""Context windows as servers state them."""

from __future__ import annotations

from typing import Any

import pytest

from personabench.models.backends.windows import listed_window, read_models, refused_window

LISTS: list[tuple[bytes, list[str] | None]] = [
    (b'{"data": [{"id": "a"}, {"id": "b"}]}', ["a", "b"]),
    (b'\xef\xbb\xbf{"data": [{"id": "a", "cost": NaN, "owner": "\xff"}]}', ["a"]),
    (b'{"data": [{"id": null}, {"id": 7}, {}, "a", null]}', []),
    (b'{"data": null}', None),
    (b'{"error": "no"}', None),
    (b'["a"]', None),
]


@pytest.mark.parametrize(("content", "names"), LISTS)
def test_lists_of_models(content: bytes, names: list[str] | None) -> None:
    models = read_models(content)
    assert (models if models is None else [model["id"] for model in models]) == names


@pytest.mark.parametrize("content", [b"", b"<html>", b'{"data": ' + b"[" * 100_000])
def test_what_is_no_list_of_models(content: bytes) -> None:
    with pytest.raises(ValueError, match=r"line 1|deeply"):
        read_models(content)


ENTRIES: list[tuple[dict[str, Any], int | None]] = [
    ({"id": "m"}, None),
    ({"max_model_len": 4096}, 4096),
    ({"context_window": 131072, "max_completion_tokens": 8192}, 131072),
    ({"context_length": 200000, "top_provider": {"context_length": 131072}}, 131072),
    ({"context_length": 200000, "top_provider": {"context_length": None}}, 200000),
    ({"max_context_length": 32768, "loaded_context_length": 4096}, 4096),
    ({"meta": {"n_ctx_train": 8192}}, 8192),
    ({"meta": {"n_ctx_train": 8192, "n_ctx": 600}}, 600),
    ({"context_length": "8192"}, 8192),
    ({"metadata": {"context_length": 8192}}, 8192),
    ({"providers": [{"context_length": 65536}, {"context_length": 8192}, None]}, 8192),
    ({"context_length": 8192.0}, 8192),
    ({"context_length": "unknown", "meta": "none"}, None),
    ({"context_length": 0}, None),
    ({"context_length": -1}, None),
    ({"context_length": True}, None),
    ({"context_length": 1e300}, None),
]


@pytest.mark.parametrize(("entry", "window"), ENTRIES)
def test_windows_in_lists_of_models(entry: dict[str, Any], window: int | None) -> None:
    assert listed_window({"id": "m", **entry}) == window


REFUSALS = [
    ("This model's maximum context length is 4096 tokens. However, you requested 9000", 4096),
    ("The input (9000 tokens) is longer than the model's context length (4096 tokens).", 4096),
    ('{"message": "request (812 tokens) exceeds", "n_prompt_tokens": 812, "n_ctx": 600}', 600),
    ("request (812 tokens) exceeds the available context size (600 tokens)", 600),
    ("Requested tokens (900) exceed context window of 512", 512),
    ("prompt is too long: 210,000 tokens > 200,000 maximum", 200000),
    ("Input length 9000 exceeds the maximum length; max_model_len is 4096", 4096),
    (
        "40000 tokens and 0 draft tokens, too large for model with 32768 maximum context length",
        32768,
    ),
    ("The prompt is too long: 9000, model maximum context length: 8192", 8192),
    ("the model is loaded with context length of only 4096 tokens", 4096),
    ("`inputs` tokens + `max_new_tokens` must be <= 8193. Given: 9000 `inputs` tokens", 8193),
    ("Range of input length should be [1, 30720]", 30720),
    ("Your request exceeded model token limit: 8192", 8192),
    ("This model's maximum prompt length is 131072 but the request contains 200000", 131072),
    ("The input token count (40000) exceeds the maximum number of tokens allowed (32768).", 32768),
    ("prompt too long", None),
    ("no such field", None),
]


@pytest.mark.parametrize(("text", "window"), REFUSALS)
def test_windows_in_refusals(text: str, window: int | None) -> None:
    assert refused_window(text) == window
