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
_REMOTE = ("reasoning_effort", "chat_template_kwargs", "thinking", "enable_thinking")
# Servers of one's own are of many kinds, and ignore the fields of the others.
_NEARBY = (
    "thinking_token_budget",
    "reasoning_effort and chat_template_kwargs",
    "chat_template_kwargs",
    "reasoning_effort",
)


class Form(NamedTuple):
    """One way to say how much a model thinks.

    Attributes:
        allowance: tokens that a thought may take if it is said in this way.
    """

    name: str
    fields: Mapping[str, Any]
    allowance: int


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


def forms(
    level: str | None, url: str | None, is_nearby: bool, limit: int | None = None
) -> tuple[Form, ...]:
    """Return the ways to say a level to a server, the likeliest first.

    Args:
        limit: tokens that a thought may take at most, whatever the level.
    """
    if level is None:
        return ()

    candidates: Sequence[str] = _NEARBY if is_nearby else _REMOTE
    host = urlsplit(url or "").hostname or ""
    for domain, form_names in _BY_HOST.items():
        if host == domain or host.endswith(f".{domain}"):
            candidates = form_names

    tokens = allowance(level)
    # A word may stand for more tokens than a number that it is the nearest to.
    room = max(tokens, allowance(_effort(level)))
    if limit is not None:
        tokens = min(tokens, limit)
        room = min(room, limit)

    ways = []
    for name in candidates:
        if tokens:
            ways += [
                Form(name + suffix, fields, tokens)
                for suffix, fields in _with_budget(name, level, tokens)
            ]
            ways += [
                Form(name + suffix, fields, room) for suffix, fields in _with_word(name, level)
            ]
        else:
            ways += [Form(name + suffix, fields, 0) for suffix, fields in _off(name)]
    return tuple(ways)


def find_form(ways: Sequence[Form], name: str) -> Form | None:
    """Return a form by name, the first one if the name is empty; None if there is none."""
    for form in ways:
        if name in ("", form.name):
            return form
    return None


Variants = list[tuple[str, dict[str, Any]]]
"""Suffix and fields of the variants of a form."""


def _off(name: str) -> Variants:
    """Return the variants that switch thoughts off."""
    match name:
        case "reasoning_effort":
            # The first models had no lower effort than this.
            return [("=none", {name: "none"}), ("=minimal", {name: "minimal"})]
        case "reasoning_effort and chat_template_kwargs":
            return [("", {"reasoning_effort": "none", **_template_options(False)})]
        case "chat_template_kwargs":
            return [("", _template_options(False))]
        case "enable_thinking":
            return [("", {name: False})]
        case "thinking":
            return [("", {name: {"type": "disabled"}})]
        case "reasoning":
            return [("", {name: {"enabled": False}})]
    return []


def _with_budget(name: str, level: str, tokens: int) -> Variants:
    """Return the variants that end a thought after a number of tokens."""
    match name:
        case "thinking_token_budget":
            # vLLM's, if it knows the marks of the model's thoughts, and llama.cpp's.
            budgets = {name: tokens, "thinking_budget_tokens": tokens}
            word = {"reasoning_effort": _effort(level)}
            return [("", {**word, **_template_options(True), **budgets})]
        case "enable_thinking":
            return [("", {name: True, "thinking_budget": tokens})]
        case "thinking":
            return [("", {name: {"type": "enabled", "budget_tokens": tokens}})]
        case "reasoning" if level not in ALLOWANCES:
            return [("", {name: {"max_tokens": tokens}})]
    return []


def _with_word(name: str, level: str) -> Variants:
    """Return the variants that leave the length of a thought to the model."""
    effort = _effort(level)
    match name:
        case "reasoning_effort":
            return [("", {name: effort})]
        case "reasoning_effort and chat_template_kwargs":
            return [("", {"reasoning_effort": effort, **_template_options(True)})]
        case "chat_template_kwargs":
            return [("", _template_options(True))]
        case "enable_thinking":
            return [("=true", {name: True})]
        case "thinking":
            return [("=enabled", {name: {"type": "enabled"}})]
        case "reasoning":
            return [("=effort", {name: {"effort": effort}})]
    return []


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
