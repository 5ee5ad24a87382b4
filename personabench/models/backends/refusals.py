"""Read a server's dialect from its refusal of a harmless request.

The request is always the same short one (`probe.py`), so a field that the message names is what
the server refuses.  Messages are those of OpenAI, Azure, Anthropic, Mistral, Gemini, DeepSeek,
Moonshot, vLLM, SGLang, TGI, llama.cpp, Ollama and LM Studio, and of chat templates.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import msgspec

from personabench.errors import Filtered, Refused
from personabench.models.backends.dialect import LIMIT_FIELDS, SCHEMAS, Dialect
from personabench.models.backends.reasoning import Form
from personabench.models.backends.status import without_echo
from personabench.models.backends.windows import refused_window

NO_FORM = "none"
"""The form of `--reasoning` if the server takes none."""

_NO_TEMPLATE = re.compile(
    r"(?:chat|prompt).?template['\"`]? (?:(?:is|was) )?(?:not|no longer|missing|required)"
    r"|(?:no|provide a|define any?|without a|missing|have a|set a|specify a)"
    r" (?:default )?chat.?template"
    r"|not a chat model|v1/completions|does not support chat|chat_template is not set"
    r"|template not found",
    re.I,
)
_ALTERNATION = re.compile(
    r"alternat|in a row|consecutive|successive|interleave|same role|must (?:start|begin) with"
    r"|(?:first|last) (?:message|role|turn)|roles? must (?:be )?follow"
    r"|\bodd (?:number|length)|\b(?:even|odd) (?:index|position)|\brole \W?\w+\W? after role",
    re.I,
)
_SYSTEM = re.compile(
    r"\bsystem(?:\b|.?instruction)|messages\W{0,4}(?:0|\[0\])|valid role"
    r"|developer (?:instruction|role|message)"
    r"|\broles?\b.{0,40}(?:support|allow|invalid|unknown|unexpected|permitted)"
    r"|(?:support|allow|invalid|unknown|unexpected|permitted).{0,40}\broles?\b",
    re.I,
)
_USE_DEVELOPER = re.compile(r"developer'? (?:role )?instead|use (?:the )?['\"]?developer", re.I)
_SCHEMA = re.compile(
    r"response.?(?:format|schema)|json.?schema|json.?object|json.?mode|json output|structured"
    r"|grammar|guided|additional.?properties|\bformat.schema",
    re.I,
)
_EXCLUSIVE = re.compile(
    r"\bboth\b|mutually exclusive|together|at the same time|only one of|either", re.I
)
# The fields that pydantic, OpenAI and others point at; the rest of the message may quote the input.
_POINTER = re.compile(r"""\\?["']param\\?["']:\s*\\?["']([^"'\\]+)""")
_LOCATION = re.compile(r"""\\?["']loc\\?["']:\s*[\[(]([^\])]*)""")
_ONLY = (
    re.compile(r"only (?:the )?(?:default )?(?:value )?(?:of )?\(?(\d+(?:\.\d+)?)\b", re.I),
    re.compile(r"(?:must be|has to be|fixed (?:at|to)|equal to|set to) (\d+(?:\.\d+)?)\b", re.I),
)
# DashScope's open models, and its models that always think.
_DEMANDED_THINKING = re.compile(
    r"enable_thinking\W+(?:parameter )?(?:must be|is restricted to|should be|has to be"
    r"|only supports?)\W+(?:set (?:to|as) )?(true|false)\b",
    re.I,
)
_STREAMS = re.compile(
    r"only supports? (?:the )?stream|(?:enable|set) (?:the )?['\"`]?stream\b"
    r"|\bstream\b.{0,40}must be (?:set to )?true|non-?stream\w*.{0,40}not (?:be )?support"
    r"|(?:requires?|must use) stream|for non-?stream",
    re.I,
)
_UNSUPPORTED = re.compile(
    r"not support|unsupported|not permitted|forbidden|deprecated|unknown|unrecognized|both", re.I
)


_LIMIT = r"max(?:imum)?_?(?:completion_|output_|new_)?tokens\b"
# "A >= 64", "at most 4096 tokens", "[1, 8192]", "24608 > 8192, the maximum".
_LEAST = re.compile(
    r"(?:>=|at least|minimum (?:value )?(?:of|is)|greater than or equal to)\W{0,3}(\d+)", re.I
)
_MOST = re.compile(
    r"(?:<=|at most|maximum (?:value )?(?:of|is|for \W?\w+\W? is)|(?:less|lower) than or equal to"
    r"|\[\d+, ?|\d > )\W{0,3}(\d+)",
    re.I,
)


class Lesson(NamedTuple):
    """What to do after a refusal.

    Attributes:
        dialect: the dialect to go on with.
        refused: sampling fields that only the user may change, with the one value that the server
            takes, if it names one.
        extra: fields of `--extra` that are refused.
        thinking: the only value of `enable_thinking` that the server takes, if it names one.
        least_tokens: the lowest token limit that it takes, if it names one.
    """

    dialect: Dialect
    refused: Mapping[str, float | None] = {}
    extra: Sequence[str] = ()
    thinking: bool | None = None
    least_tokens: int | None = None


def read_refusal(
    message: str,
    body: Mapping[str, Any],
    dialect: Dialect,
    forms: Sequence[Form] = (),
    extra: Mapping[str, Any] = {},
) -> Lesson | None:
    """Read a refusal; None if it says nothing that helps.

    Args:
        message: the server's words.
        body: the request that was refused.
        dialect: the dialect that it was in.
        forms: the ways to say `--reasoning`.
        extra: the fields of `--extra`.
    """
    # A quoted request names every field.
    message = without_echo(message)
    lesson = _read_list(message, body, dialect, forms, extra)
    if lesson is not None:
        return lesson
    return _read_fault(message, _pointed_fields(message), body, dialect, forms, extra)


def _read_list(
    message: str,
    body: Mapping[str, Any],
    dialect: Dialect,
    forms: Sequence[Form],
    extra: Mapping[str, Any],
) -> Lesson | None:
    """Read a structured error that names several fields; None if it does not."""
    starts = [match.start() for match in _LOCATION.finditer(message)]
    if len(starts) < 2:
        return None
    total = Lesson(dialect)
    count = 0
    for start, end in zip(starts, [*starts[1:], len(message)], strict=True):
        # The words about a field follow its name.
        fault = message[start:end]
        fields = [name for name in _pointed_fields(fault) if name in body and name != "messages"]
        if not fields:
            continue
        lesson = _read_fault(fault, fields[:1], body, total.dialect, forms, extra)
        if lesson is not None:
            count += 1
            total = Lesson(
                lesson.dialect,
                {**total.refused, **lesson.refused},
                [*total.extra, *lesson.extra],
            )
    return total if count > 1 else None


def _read_fault(
    message: str,
    pointed: Sequence[str],
    body: Mapping[str, Any],
    dialect: Dialect,
    forms: Sequence[Form],
    extra: Mapping[str, Any],
) -> Lesson | None:
    """Read one refusal, or one entry of a list."""
    renamed = _rename_limit(message, pointed, body, dialect)
    if renamed is not None:
        return Lesson(renamed)

    bounds = _read_bounds(message, body)
    if bounds is not None:
        least, most = bounds
        return Lesson(
            _replace(dialect, most_tokens=most or dialect.most_tokens), least_tokens=least
        )

    if not dialect.streams and _STREAMS.search(message):
        return Lesson(_replace(dialect, streams=True))

    refused_extra = [name for name in extra if name in body and _names(name, message, pointed)]
    if refused_extra:
        return Lesson(dialect, extra=refused_extra)

    demanded = _DEMANDED_THINKING.search(message)
    if demanded is not None:
        return _demand_thinking(demanded[1].lower() == "true", dialect, forms)

    # A sampling field may be refused because the model thinks; then the message names both.
    reasoning_fields = {name for form in forms for name in form.fields}
    candidates = {name: value for name, value in body.items() if name not in reasoning_fields}
    refused = _refused_sampling(message, pointed, candidates)
    next_form = _next_form(message, pointed, body, dialect, forms)
    if next_form is not None and not refused:
        return Lesson(_replace(dialect, reasoning=next_form))

    if dialect.api == "chat" and _NO_TEMPLATE.search(message):
        return Lesson(_replace(dialect, api="completions"))
    if _is_about_schema(message, pointed, body):
        position = SCHEMAS.index(dialect.schema)
        if position + 1 < len(SCHEMAS):
            return Lesson(_replace(dialect, schema=SCHEMAS[position + 1]))

    if refused:
        return Lesson(dialect, refused=refused)
    adapted = _adapt_turns(message, dialect)
    return None if adapted is None else Lesson(adapted)


def _replace(dialect: Dialect, **changes: Any) -> Dialect:
    return msgspec.structs.replace(dialect, **changes)


def _pointed_fields(message: str) -> list[str]:
    """Return the fields that a structured error points at."""
    fields = _POINTER.findall(message)
    for location in _LOCATION.findall(message):
        fields.extend(re.findall(r"[A-Za-z_]\w*", location))
    return [field for field in fields if field not in ("body", "null")]


def _names(field: str, message: str, pointed: Sequence[str]) -> bool:
    """Whether a message is about a field."""
    if pointed:
        return any(re.split(r"[.\[]", name)[0] == field for name in pointed)

    # APIs of other makers spell it in their own way (topP, top-p).
    spelling = field.replace("_", "[_ -]?")
    return re.search(rf"(?<![A-Za-z_]){spelling}(?![A-Za-z_])", message, re.I) is not None


def _rename_limit(
    message: str, pointed: Sequence[str], body: Mapping[str, Any], dialect: Dialect
) -> Dialect | None:
    old, new = LIMIT_FIELDS
    if dialect.limit_field == old and old in body:
        # The message may name the new field only, or refuse the old one without a word about it.
        if re.search(rf"\b{new}\b", message):
            return _replace(dialect, limit_field=new)
        is_unknown = re.search(r"unsupported|not support|unrecognized|unknown|extra", message, re.I)
        if _names(old, message, pointed) and is_unknown:
            return _replace(dialect, limit_field=new)
    return None


def _read_bounds(message: str, body: Mapping[str, Any]) -> tuple[int | None, int | None] | None:
    """Return the bounds of the token limit that a message states and a request is out of."""
    tokens = next((body[name] for name in LIMIT_FIELDS if name in body), None)
    if tokens is None or not _is_about_limit(message):
        return None
    least = _LEAST.search(message)
    if least is not None and int(least[1]) > tokens:
        return int(least[1]), None
    most = _MOST.search(message)
    if most is not None and 0 < int(most[1]) < tokens:
        return None, int(most[1])
    return None


def _is_about_limit(message: str) -> bool:
    # A window that is too small for prompt and reply is another matter.
    return re.search(_LIMIT, message, re.I) is not None and refused_window(message) is None


def _next_form(
    message: str,
    pointed: Sequence[str],
    body: Mapping[str, Any],
    dialect: Dialect,
    forms: Sequence[Form],
) -> str | None:
    form_names = [form.name for form in forms]
    if not form_names or dialect.reasoning == NO_FORM:
        return None

    position = form_names.index(dialect.reasoning) if dialect.reasoning else 0
    fields = [name for name in forms[position].fields if name in body]
    is_named = any(_names(name, message, pointed) for name in fields)
    if not is_named and not re.search(r"reasoning.?effort|enable_thinking|thinking", message, re.I):
        return None
    return form_names[position + 1] if position + 1 < len(form_names) else NO_FORM


def _demand_thinking(is_on: bool, dialect: Dialect, forms: Sequence[Form]) -> Lesson:
    """Return the form of `--reasoning` that a server demands, or its demand if none says so."""
    for form in forms:
        if form.fields.get("enable_thinking") is is_on and form.name != dialect.reasoning:
            return Lesson(_replace(dialect, reasoning=form.name))
    return Lesson(dialect, thinking=is_on)


def _is_about_schema(message: str, pointed: Sequence[str], body: Mapping[str, Any]) -> bool:
    if "response_format" not in body:
        return False
    if pointed:
        return _names("response_format", message, pointed)
    return _SCHEMA.search(message) is not None


def _refused_sampling(
    message: str, pointed: Sequence[str], body: Mapping[str, Any]
) -> dict[str, float | None]:
    # The sampling fields are the plain numbers of a body.
    candidates = [
        name
        for name, value in body.items()
        if isinstance(value, int | float)
        # A switch is a field of `--reasoning` or `--extra`.
        and not isinstance(value, bool)
        and name not in (*LIMIT_FIELDS, "top_logprobs")
    ]
    named = [name for name in candidates if _names(name, message, pointed)]

    in_words = [name for name in candidates if _names(name, message, ())]
    if {"temperature", "top_p"} <= set(in_words) and _EXCLUSIVE.search(message):
        # One of the two has to go, and the temperature says more.
        return {"top_p": None}
    value = _only_value(message)
    if value is None:
        return dict.fromkeys(named)
    # Of several named fields, those that have the value already are fine.
    differing = [name for name in named if body[name] != value]
    return dict.fromkeys(differing, value)


def _only_value(message: str) -> float | None:
    """Return the one value that a server takes, if its message names one."""
    for pattern in _ONLY:
        match = pattern.search(message)
        if match is not None:
            return float(match[1])
    return None


def _adapt_turns(message: str, dialect: Dialect) -> Dialect | None:
    """Return the dialect for a template that refuses roles or their order."""
    if dialect.api == "completions":
        return None
    if _ALTERNATION.search(message):
        if not dialect.merges_turns:
            return _replace(dialect, merges_turns=True)
        # Templates that count the system message as a turn say the same of it.
        return None if dialect.system == "user" else _replace(dialect, system="user")

    if not _SYSTEM.search(message) or dialect.system == "user":
        return None
    if dialect.system == "system" and _USE_DEVELOPER.search(message):
        return _replace(dialect, system="developer")
    return _replace(dialect, system="user")


def add_remedy(error: Refused, fields: Sequence[str], role: str) -> Refused:
    """Return a refusal whose message says what to do about it; arguments as `suggest_remedy`."""
    if not isinstance(error, Filtered):
        remedy = suggest_remedy(str(error), fields, role)
    elif role:
        remedy = ""
    else:
        remedy = "; --refusals empty counts an empty answer in its place"
    return type(error)(f"{error}{remedy}", error.status, error.text)


def suggest_remedy(message: str, fields: Sequence[str], role: str) -> str:
    """Suggest what to do about a sampling field that a server refuses after the probe.

    Args:
        message: the error that is shown, with the server's words.
        fields: the sampling fields that may be left out.
        role: the role of the model in options, such as "judge"; "" for the model under test.
    """
    prefix = f"--{role}-" if role else "--"
    if _is_about_limit(message) and not role:
        bound = _LEAST.search(message) or _MOST.search(message)
        if bound is not None:
            return f"; --max-tokens {bound[1]} is accepted, which makes a separate run"

    # Only suggested: the sampling is part of a run's identity, so it must not change by itself.
    if not _UNSUPPORTED.search(message):
        return ""
    settable = ("temperature",) if role else ("temperature", "top_p")
    for name in fields:
        if re.search(rf"\b{name}\b", message):
            neutral = ""
            if name in settable:
                neutral = f"{prefix}{name.replace('_', '-')} 1 may be accepted; "
            return f"; {neutral}{prefix}omit-params {name} omits it, which makes a separate run"
    return ""
