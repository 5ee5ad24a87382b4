"""How much a model thinks (`--reasoning`): the fields that say it, and the tokens it may take.

Servers have different names for it.  Those of this one are tried in order until one is taken.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from personabench.errors import UsageError

ALLOWANCES = {"off": 0, "low": 2048, "medium": 8192, "high": 24576}
"""Tokens for the thought, added to the tokens of every answer."""

_BY_HOST = {
    "openrouter.ai": ("reasoning",),
    "aliyuncs.com": ("enable_thinking",),
    "anthropic.com": ("thinking",),
    "deepseek.com": ("thinking",),
    "moonshot.ai": ("thinking",),
    "z.ai": ("thinking",),
    "bigmodel.cn": ("thinking",),
}
_REMOTE = ("reasoning_effort", "chat_template_kwargs", "thinking")
# Servers of one's own are of many kinds, and ignore the fields of the others.
_NEARBY = ("reasoning_effort and chat_template_kwargs", "chat_template_kwargs", "reasoning_effort")


class Form(NamedTuple):
    """One way to say how much a model thinks."""

    name: str
    fields: Mapping[str, Any]


def check_level(value: str, option: str = "--reasoning") -> str:
    """Return a level in its canonical spelling.

    Raises:
        UsageError: it is none.
    """
    level = value.strip().lower()
    if level in ALLOWANCES:
        return level
    if level.isdecimal() and int(level) > 0:
        return str(int(level))
    raise UsageError(f"{option} {value}: write off, low, medium, high or a number of tokens")


def allowance(level: str | None) -> int:
    """Return the tokens that a thought may take."""
    if level is None:
        return 0
    return ALLOWANCES[level] if level in ALLOWANCES else int(level)


def forms(level: str | None, url: str | None, is_nearby: bool) -> tuple[Form, ...]:
    """Return the ways to say a level to a server, the likeliest first."""
    if level is None:
        return ()

    candidates: Sequence[str] = _NEARBY if is_nearby else _REMOTE
    host = urlsplit(url or "").hostname or ""
    for domain, form_names in _BY_HOST.items():
        if host == domain or host.endswith(f".{domain}"):
            candidates = form_names

    ways = []
    for name in candidates:
        for suffix, fields in _variants(name, level):
            ways.append(Form(f"{name}{suffix}", fields))
    return tuple(ways)


def fields_of(ways: Sequence[Form], name: str) -> Mapping[str, Any]:
    """Return the fields of a form by name, of the first one if the name is empty."""
    for form in ways:
        if name in ("", form.name):
            return form.fields
    return {}


def _variants(name: str, level: str) -> list[tuple[str, dict[str, Any]]]:
    """Return the suffix and the fields of each variant of a form."""
    tokens = allowance(level)
    is_on = tokens > 0
    if name == "reasoning_effort" and not is_on:
        # The first models had no lower effort than this.
        return [("=none", {name: "none"}), ("=minimal", {name: "minimal"})]
    if name == "reasoning_effort":
        return [("", {name: _effort(level)})]
    if name == "reasoning_effort and chat_template_kwargs":
        effort = _effort(level) if is_on else "none"
        return [("", {"reasoning_effort": effort, **_template_options(is_on)})]
    if name == "chat_template_kwargs":
        return [("", _template_options(is_on))]
    if name == "enable_thinking":
        budget = {"thinking_budget": tokens} if is_on else {}
        return [("", {"enable_thinking": is_on, **budget})]
    if name == "thinking":
        if not is_on:
            return [("", {"thinking": {"type": "disabled"}})]
        with_budget = {"type": "enabled", "budget_tokens": tokens}
        return [("", {"thinking": with_budget}), ("=enabled", {"thinking": {"type": "enabled"}})]

    # OpenRouter's `reasoning`.
    if not is_on:
        return [("", {"reasoning": {"enabled": False}})]
    if level in ALLOWANCES:
        return [("", {"reasoning": {"effort": level}})]
    return [("", {"reasoning": {"max_tokens": tokens}})]


def _template_options(is_on: bool) -> dict[str, Any]:
    # Qwen's and most templates have the first name, DeepSeek's the second.
    return {"chat_template_kwargs": {"enable_thinking": is_on, "thinking": is_on}}


def _effort(level: str) -> str:
    """Return the word for a level, the nearest one for a number of tokens."""
    if level in ALLOWANCES:
        return level
    tokens = int(level)
    for word in ("low", "medium"):
        if tokens <= ALLOWANCES[word]:
            return word
    return "high"
