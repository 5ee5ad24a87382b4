"""The meaning of a server's errors: which calls are repeated, which fail, and which end the run.

`STATUSES` has the rule of each HTTP status, and `_WORDS` the errors whose text means something else
than their status.  Errors inside a reply of status 200 follow the same rules, by the code that they
carry (`inner_status`).  docs/backends.md shows the table.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Mapping
from email.utils import parsedate_to_datetime
from typing import Any, Literal, NamedTuple

from personabench.errors import BackendDown, Filtered, Refused, Throttled, TransientError
from personabench.models.backends.redaction import Secrets

Action = Literal["throttle", "retry", "refuse", "stop"]
"""Repeat more slowly, repeat, fail this call alone, or end the run."""


class Rule(NamedTuple):
    """What follows from an error; `remedy` says what to do about it."""

    action: Action
    remedy: str = ""


_KEY = "{key}"
_ADDRESS = "check --base-url and --model"
_CREDIT = "the account has no credit left"
_RESET = "repeat the command when the limit is reset"

STATUSES: Mapping[int, Rule] = {
    401: Rule("stop", _KEY),
    402: Rule("stop", _CREDIT),
    403: Rule("stop", _KEY),
    404: Rule("stop", _ADDRESS),
    405: Rule("stop", _ADDRESS),
    407: Rule("stop", "the proxy wants a name and a password; put them into HTTPS_PROXY"),
    # Timeout, conflict, misdirected, failed dependency (the model behind a gateway), too early.
    408: Rule("retry"),
    409: Rule("retry"),
    410: Rule("stop", _ADDRESS),
    421: Rule("retry"),
    424: Rule("retry"),
    425: Rule("retry"),
    429: Rule("throttle"),
    # No capacity, and closed by the client, which is a gateway.
    498: Rule("retry"),
    499: Rule("retry"),
    501: Rule("stop", _ADDRESS),
    505: Rule("stop", _ADDRESS),
    511: Rule("stop", "the network wants a login"),
}


class _Words(NamedTuple):
    """Words that give an error of certain statuses another meaning.

    Attributes:
        is_final: a wait that the error states does not help.
    """

    statuses: Iterable[int]
    pattern: re.Pattern[str]
    rule: Rule
    is_final: bool = True


_NO_CREDIT = re.compile(
    r"insufficient[_ ](quota|balance|credit|fund)|credit balance is too low"
    r"|billing_(hard_limit|not_active|error)|billing hard limit|out of credits"
    r"|balance (is )?insufficient|not enough (balance|credit)|arrears|arrearage"
    r"|exceeded_current_quota|budget (has been |was )?exceeded|exceeded (your )?budget"
    r"|reached your (specified )?(API )?usage limit"
    r"|account( \S{1,80})? (is |has been |was )?(not active|deactivated|suspended)",
    re.I,
)
_BAD_KEY = re.compile(
    r"(invalid|incorrect|no) api[_ ]key|api[_ ]key (is )?(not valid|invalid)", re.I
)
# A flag on an account, in contrast, concerns every call.
_FILTER = re.compile(
    r"moderat|(?<!account )(?<!account was )(?<!account has been )flagged"
    r"|content.?(?:filter|management|policy)|\bsafety\b|harmful|guardrail|block_?reason"
    r"|data_?inspection|inappropriate content|prohibited.content|responsible.?ai",
    re.I,
)
_SERVER_ERRORS = range(500, 600)
_WORDS = (
    _Words(
        (400, 402, 403, 412, 429),
        _NO_CREDIT,
        Rule("stop", _CREDIT),
    ),
    _Words(
        (400,),
        _BAD_KEY,
        Rule("stop", _KEY),
    ),
    _Words(
        (429,),
        re.compile(
            r"request too large|too large for|reduce (the length|your (prompt|input))", re.I
        ),
        Rule("refuse"),
        is_final=False,
    ),
    _Words(
        (429,),
        # Gemini states a wait of seconds beside a quota of a day.
        re.compile(r"quota_?(?:id|limit)\W{1,6}\w*Per(?:Day|Month)", re.I),
        Rule("stop", _RESET),
    ),
    _Words(
        (429,),
        re.compile(r"per[- ]day|daily|per month|monthly", re.I),
        Rule("stop", _RESET),
        is_final=False,
    ),
    _Words(
        (403,),
        _FILTER,
        Rule("refuse"),
    ),
    _Words(
        (400, 403),
        re.compile(r"(?:country|region|territory|location)\b.{0,40}not supported", re.I),
        Rule("stop", "the API is not offered where this machine is"),
    ),
    # Servers report these as failures of their own, but a repetition fails alike.
    _Words(
        _SERVER_ERRORS,
        re.compile(
            r"template.?error|jinja|chat.?template|roles must alternate|role not supported"
            r"|raise_exception|UndefinedError",
            re.I,
        ),
        Rule("refuse"),
    ),
    _Words(
        _SERVER_ERRORS,
        re.compile(r"context (size|window|length)|prompt is too long|exceed_context", re.I),
        Rule("refuse"),
    ),
)

# What servers write in place of a status, in lower case.
_CODES = {
    400: "invalid_request_error invalid_request bad_request badrequesterror invalid_argument "
    "failed_precondition context_length_exceeded validation_error validation",
    401: "authentication_error authenticationerror invalid_api_key unauthenticated unauthorized",
    402: "insufficient_quota insufficient_balance insufficient_credits billing_error "
    "billing_hard_limit_reached payment_required",
    403: "permission_error permission_denied permissiondeniederror forbidden",
    404: "not_found not_found_error notfounderror model_not_found",
    408: "timeout timeout_error request_timeout",
    413: "request_too_large",
    422: "unprocessable_entity unprocessable_entity_error",
    429: "rate_limit_exceeded rate_limit_error rate_limit ratelimiterror resource_exhausted "
    "too_many_requests throttling",
    499: "cancelled",
    500: "server_error internal_server_error internalservererror internal internal_error api_error "
    "generation incomplete_generation",
    503: "unavailable service_unavailable service_unavailable_error model_overloaded",
    504: "deadline_exceeded gateway_timeout",
    529: "overloaded_error overloaded engine_overloaded_error",
}
_CODE_WORDS = {word: status for status, words in _CODES.items() for word in words.split()}
_WRONG_PATH = re.compile(
    r"unexpected endpoint|(unknown|invalid|no such) (endpoint|path|route|url)|not.?found"
    r"|no route|invalid url",
    re.I,
)
# Errors inside a reply of status 200 that carry no code.
_INNER_WORDS = (
    (404, _WRONG_PATH),
    (401, _BAD_KEY),
    (402, _NO_CREDIT),
    (429, re.compile(r"rate.?limit|too many requests", re.I)),
    (503, re.compile(r"overloaded|temporarily|(service|server) unavailable|try again later", re.I)),
)
_ECHO = re.compile(r"""\\?["'](?:input|flagged_input|failed_generation)\\?["']:\s*""")
_OPENING_QUOTE = re.compile(r"""\\*["']""")
_END_OF_VALUE = re.compile(r"[,\[\]{}]")
_READ = 20_000
"""Characters of an error in which words are looked for."""

_STATED_WAIT = re.compile(
    r"(?:try again|retry) (?:in|after) (?:(\d+)h)?(?:(\d+)m(?!s))?"
    r"(?:([\d.]+)\s*s(?:ec(?:ond)?s?)?\b)?"
    r"|\"(?:retryDelay|retry_after(?:_seconds)?)\":\s*\"?(?P<delay>\d+(?:\.\d+)?)",
    re.I,
)


def status_error(
    address: str,
    status: int,
    content: bytes,
    headers: Mapping[str, str],
    secrets: Secrets,
    key_remedy: str,
) -> BackendDown | Refused | TransientError:
    """Return the error that a status means, or a code inside a reply of status 200.

    Args:
        address: the server, for messages.
        headers: the reply's headers.
        key_remedy: what to do about a key that is refused.
    """
    if 300 <= status < 400:
        return BackendDown(describe_redirect(address, status, headers, secrets))

    text = content[:_READ].decode(errors="replace")
    wait = retry_after(headers)
    if wait is None:
        wait = _stated_wait(text)
    rule = _find_rule(status, without_echo(text), wait)

    message = f"{address} answered {status}: {secrets.quote(text)}"
    if rule.remedy:
        message += f"; {rule.remedy.replace(_KEY, key_remedy)}"
    match rule.action:
        case "stop":
            return BackendDown(message)
        case "refuse":
            is_filtered = status in (400, 403, 422, 451) and _FILTER.search(without_echo(text))
            kind = Filtered if is_filtered else Refused
            return kind(message, status, secrets.strike(text))
        case "throttle":
            return Throttled(message, wait, str(status))
    return TransientError(message, wait, error_kind(status))


def without_echo(text: str) -> str:
    """Return the words of an error without the parts of a request that it quotes."""
    parts = []
    start = 0
    for mark in _ECHO.finditer(text):
        # Those inside of a part that is left out are skipped as well.
        if mark.start() >= start:
            parts.append(text[start : mark.start()])
            start = _find_value_end(text, mark.end())
    parts.append(text[start:])
    return "".join(parts)


def _find_value_end(text: str, start: int) -> int:
    """Return the end of a value in JSON or Python's notation; the text's end if it is cut."""
    quote = _OPENING_QUOTE.match(text, start)
    if quote is not None:
        end = text.find(quote[0], quote.end())
        while end > 0 and text[end - 1] == "\\":
            end = text.find(quote[0], end + 1)
        return len(text) if end < 0 else end + len(quote[0])

    depth = 0
    for mark in _END_OF_VALUE.finditer(text, start):
        if mark[0] in "[{":
            depth += 1
        elif depth == 0:
            return mark.start()
        elif mark[0] in "]}":
            depth -= 1
            if depth == 0:
                return mark.end()
    return len(text)


def _find_rule(status: int, text: str, wait: float | None) -> Rule:
    for statuses, pattern, rule, is_final in _WORDS:
        # A limit that is lifted in a stated time is no reason to end the run: the client decides
        # whether that is too long.
        is_waiting_useful = status == 429 and wait is not None and not is_final
        if status in statuses and pattern.search(text) and not is_waiting_useful:
            return rule

    if status in STATUSES:
        return STATUSES[status]
    return Rule("retry") if status >= 500 else Rule("refuse")


def inner_status(error: Any) -> int | None:
    """Return the HTTP status that an error inside a reply of status 200 stands for, or None."""
    if isinstance(error, str):
        return _read_words(error)
    if not isinstance(error, dict):
        return None

    for field in ("code", "status", "status_code", "type"):
        status = _read_code(error.get(field))
        if status is not None:
            return status

    # MiniMax puts its errors beside an empty list of choices, Cloudflare in a list.
    base = error.get("base_resp")
    errors = error.get("errors")
    if isinstance(errors, list) and errors:
        base = errors[0]
    words = base if isinstance(base, dict) else error
    for field in ("message", "detail", "msg", "status_msg"):
        text = words.get(field)
        if text and isinstance(text, str):
            return _read_words(text)
    return None


def _read_words(text: str) -> int | None:
    for status, pattern in _INNER_WORDS:
        if pattern.search(text):
            return status
    return None


def _read_code(code: Any) -> int | None:
    if isinstance(code, str):
        word = code.strip().lower()
        code = int(word) if word.isdecimal() and len(word) == 3 else _CODE_WORDS.get(word)
    if isinstance(code, int | float) and 400 <= code < 600:
        return int(code)
    return None


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Read a Retry-After header (seconds or a date); None if it is missing or unreadable."""
    milliseconds = headers.get("retry-after-ms")
    if milliseconds is not None:
        try:
            return max(0.0, float(milliseconds) / 1000)
        except ValueError:
            pass

    value = headers.get("retry-after")
    if value is None:
        return None
    try:
        return max(0.0, float(value))
    except ValueError:
        pass
    try:
        return max(0.0, parsedate_to_datetime(value).timestamp() - time.time())
    except ValueError:
        return None


def _stated_wait(text: str) -> float | None:
    """Read a wait from an error's text, such as "Please try again in 1m20s"."""
    match = _STATED_WAIT.search(text)
    if match is None:
        return None
    hours, minutes, seconds = match.group(1, 2, 3)
    parts = (float(match["delay"] or seconds or 0), float(minutes or 0), float(hours or 0))
    total = parts[0] + 60 * parts[1] + 3600 * parts[2]
    return total or None


def error_kind(status: int) -> str:
    """Return the kind of a transient error, under which its retries are counted."""
    return "5xx" if status >= 500 else "4xx"


def describe_redirect(
    address: str, status: int, headers: Mapping[str, str], secrets: Secrets
) -> str:
    """Describe a redirect, which is not followed: key and prompts would go to another server."""
    target = secrets.quote(headers.get("location", ""))
    return (
        f"{address} answered {status}, a redirect to {target}, which is not followed; "
        "set --base-url to the right address"
    )
