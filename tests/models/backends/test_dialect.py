"""Dialects: what they do to a request, what they call it, and what refusals teach."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import msgspec
import pytest

from personabench.errors import UsageError
from personabench.models.backends import reasoning
from personabench.models.backends.dialect import (
    PLAIN,
    Dialect,
    RequestWriter,
    adapt_turns,
    plain_prompt,
    unfenced,
)
from personabench.models.backends.refusals import Lesson, read_refusal, suggest_remedy
from personabench.models.probe import probe_request
from personabench.types import Message, Request

SCHEMA = {"type": "object", "properties": {"a": {"type": "string"}}}


def request(*roles: str, **fields: Any) -> Request:
    messages = tuple(Message(role, f"{role} {at}") for at, role in enumerate(roles))  # type: ignore[arg-type]
    return Request(messages, 8, **fields)


def written(dialect: Dialect, plain_request: Request, **options: Any) -> dict[str, Any]:
    writer = RequestWriter({}, **options)
    writer.adopt(dialect)
    body: dict[str, Any] = msgspec.to_builtins(writer.write("m", plain_request))
    return body


def test_a_plain_dialect_changes_nothing_and_marks_nothing() -> None:
    plain_request = request("system", "user", schema=SCHEMA)
    body = written(PLAIN, plain_request)
    assert [message["role"] for message in body["messages"]] == ["system", "user"]
    assert PLAIN.marks() == PLAIN.marks(plain_request) == ""
    assert PLAIN.describe() == "plain chat completions"


def test_a_mark_stands_only_on_requests_that_are_changed() -> None:
    dialect = Dialect(system="user", merges_turns=True, schema="prompt")
    assert dialect.marks(request("user")) == ""
    assert dialect.marks(request("system", "user")) == "system message in the user turn"
    assert dialect.marks(request("user", "user")) == "merged turns"
    assert dialect.marks(request("user", schema=SCHEMA)) == "schema by prompt"
    assert dialect.marks() == "system message in the user turn, merged turns, schema by prompt"


@pytest.mark.parametrize(
    ("turns", "folded"),
    [
        ("s:A u:B", "u:A|B"),
        ("s:A s:B u:C a:D u:E", "u:A|B|C a:D u:E"),
        ("s:A a:B u:C", "u:A a:B u:C"),
        ("u:A a:B s:C u:D", "u:A a:B u:C|D"),
        ("s:A", "u:A"),
        ("u:A u:B a:C a:D u:E", "u:A|B a:C|D u:E"),
        ("a:A u:B", "u:* a:A u:B"),
    ],
)
def test_folding_and_merging(turns: str, folded: str) -> None:
    roles = {"s": "system", "u": "user", "a": "assistant"}
    conversation = [(roles[turn[0]], turn[2:]) for turn in turns.split()]
    adapted = adapt_turns(conversation, Dialect(system="user", merges_turns=True))
    words = [
        f"{role[0]}:{'*' if content.startswith('(') else content}".replace("\n\n", "|")
        for role, content in adapted
    ]
    assert " ".join(words) == folded


def test_merging_keeps_the_first_system_message() -> None:
    turns = [("system", "A"), ("user", "B"), ("system", "C"), ("user", "D")]
    assert adapt_turns(turns, Dialect(merges_turns=True)) == [
        ("system", "A"),
        ("user", "B\n\nC\n\nD"),
    ]


def test_a_developer_role() -> None:
    body = written(Dialect(system="developer"), request("system", "user"))
    assert body["messages"][0] == {"role": "developer", "content": "system 0"}


def test_a_base_model_gets_the_text_alone_and_labels_only_in_a_conversation() -> None:
    body = written(Dialect(api="completions"), request("system", "user", logprobs=3))
    assert body["prompt"] == "system 0\n\nuser 1"
    assert "messages" not in body and "stop" not in body
    assert body["logprobs"] == 3 and "top_logprobs" not in body

    fields = plain_prompt(request("user", "assistant", "user").messages)
    assert (
        fields["prompt"] == "User: user 0\n\nAssistant: assistant 1\n\nUser: user 2\n\nAssistant:"
    )
    assert fields["stop"] == ["\nUser:"]


@pytest.mark.parametrize("way", ["json_object", "prompt"])
def test_a_schema_that_is_not_taken_goes_into_the_prompt(way: str) -> None:
    body = written(Dialect(schema=way), request("system", "user", schema=SCHEMA))
    assert body.get("response_format") == ({"type": way} if way == "json_object" else None)
    last = body["messages"][-1]["content"]
    assert last.startswith("user 1\n\n") and '"properties"' in last and "JSON" in last
    assert "JSON" not in str(written(Dialect(schema=way), request("user"))["messages"])


@pytest.mark.parametrize(
    ("reply", "json"),
    [
        ('```json\n{"a": 1}\n```', '{"a": 1}'),
        ('Sure: {"a": {"b": 1}} Anything else?', '{"a": {"b": 1}}'),
        ("{broken", "{broken"),
        ("no {braces} of json", "no {braces} of json"),
        ("none", "none"),
    ],
)
def test_json_is_taken_out_of_a_reply_in_prose(reply: str, json: str) -> None:
    assert unfenced(reply) == json


def test_options_add_and_omit_fields() -> None:
    forms = (reasoning.Form("t", {"chat_template_kwargs": {"enable_thinking": False}}, 0),)
    body = written(
        PLAIN,
        request("user", temperature=0.5),
        omit=("top_p", "seed"),
        extra={"chat_template_kwargs": {"mode": "x"}, "service_tier": "flex"},
        temperature=1.0,
        forms=forms,
    )
    assert not {"top_p", "seed"} & body.keys() and body["temperature"] == 1.0
    assert body["chat_template_kwargs"] == {"enable_thinking": False, "mode": "x"}
    assert body["service_tier"] == "flex"


# Refusals ---------------------------------------------------------------------------------------


def learnt(
    message: str,
    dialect: Dialect = PLAIN,
    level: str | None = None,
    url: str | None = None,
    **extra: Any,
) -> Lesson | None:
    forms = reasoning.forms(level, url, is_nearby=False)
    writer = RequestWriter({"top_k": -1}, extra=extra, forms=forms)
    writer.adopt(dialect)
    body = writer.write("m", probe_request(0.0, 1.0, 0))
    address = "http://127.0.0.1:8000/v1 answered 400: "
    return read_refusal(address + message, body, dialect, forms, extra)


@pytest.mark.parametrize(
    ("message", "change"),
    [
        ("System role not supported System role not supported", {"system": "user"}),
        (
            "Unsupported value: 'messages[0].role' does not support 'system' with this model.",
            {"system": "user"},
        ),
        ("Developer instruction is not enabled for models/gemma-3-27b-it", {"system": "user"}),
        ("Only user and assistant roles are supported!", {"system": "user"}),
        ("Please use a valid role: user, model.", {"system": "user"}),
        (
            "deepseek-reasoner does not support successive user or assistant messages (messages[1] "
            "and messages[2] in your input). You should interleave the user/assistant messages.",
            {"merges_turns": True},
        ),
        ("Template error: template not found", {"api": "completions"}),
        (
            "{'type': 'value_error', 'loc': ('body',), 'msg': 'the system role is not allowed', "
            "'input': {'temperature': 0.0, 'top_p': 1.0, 'response_format': {}}}",
            {"system": "user"},
        ),
        (
            "response_format value as json_schema is enabled only for api versions "
            "2024-08-01-preview and later",
            {"schema": "json_object"},
        ),
        (
            '{"loc": ["body", "messages", 0, "role"], "msg": "Input should be user or assistant"}',
            {"system": "user"},
        ),
        ("'system' is not supported; use the 'developer' role instead", {"system": "developer"}),
        (
            "After the optional system message, conversation roles must alternate "
            "user/assistant/user/assistant/...",
            {"merges_turns": True},
        ),
        (
            'messages: roles must alternate between "user" and "assistant", but found multiple '
            '"user" roles in a row',
            {"merges_turns": True},
        ),
        (
            "As of transformers v4.44, default chat template is no longer allowed, so you must "
            "provide a chat template if the tokenizer does not define one.",
            {"api": "completions"},
        ),
        (
            "Cannot use chat template functions because tokenizer.chat_template is not set",
            {"api": "completions"},
        ),
        (
            "This is not a chat model and thus not supported in the v1/chat/completions endpoint. "
            "Did you mean to use v1/completions?",
            {"api": "completions"},
        ),
        ('\\"llama2:text\\" does not support chat', {"api": "completions"}),
        ("This response_format type is unavailable now", {"schema": "json_object"}),
        ("'response_format.type' must be 'json_schema' or 'text'", {"schema": "json_object"}),
        ("json mode is not supported by this model", {"schema": "json_object"}),
        (
            "Unknown name \"additionalProperties\" at 'generation_config.response_schema': "
            "Cannot find field.",
            {"schema": "json_object"},
        ),
        (
            "output_config.format.schema: For 'object' type, a field is missing",
            {"schema": "json_object"},
        ),
        ("the length of messages must be an odd number", {"merges_turns": True}),
        ("Unexpected role 'user' after role 'user'", {"merges_turns": True}),
        ("'chat_template' not set on tokenizer", {"api": "completions"}),
        (
            "Chat completions are disabled because a prompt template is not set.",
            {"api": "completions"},
        ),
        (
            "Unsupported parameter: 'max_tokens' is not supported with this model. Use "
            "'max_completion_tokens' instead.",
            {"limit_field": "max_completion_tokens"},
        ),
        (
            '{"error": {"message": "Unrecognized request argument", "param": "max_tokens"}}',
            {"limit_field": "max_completion_tokens"},
        ),
    ],
)
def test_refusals_that_change_the_dialect(message: str, change: Mapping[str, Any]) -> None:
    lesson = learnt(message)
    assert lesson is not None
    assert lesson.dialect == msgspec.structs.replace(PLAIN, **change)
    assert not lesson.refused


@pytest.mark.parametrize(
    ("message", "refused"),
    [
        (
            "Unsupported value: 'temperature' does not support 0 with this model. Only the default "
            "(1) value is supported.",
            {"temperature": 1.0},
        ),
        ("invalid temperature: only 1 is allowed for this model", {"temperature": 1.0}),
        ("invalid top_p: only 0.95 is allowed for this model", {"top_p": 0.95}),
        ("Input validation error: `top_p` must be > 0.0 and < 1.0", {"top_p": None}),
        (
            "this model has beta-limitations: temperature, top_p and n are fixed at 1",
            {"temperature": 1.0},
        ),
        (
            "`temperature` and `top_p` cannot both be specified for this model. Use only one.",
            {"top_p": None},
        ),
        (
            '{"detail": [{"type": "extra_forbidden", "loc": ["body", "seed"], "msg": "Extra inputs '
            'are not permitted", "input": {"temperature": 0, "top_p": 1}}]}',
            {"seed": None},
        ),
        ("Unknown name topK / unsupported: top_k", {"top_k": None}),
        (
            '{"message": "Unsupported parameter", "param": "top_p", "hint": "temperature is fine"}',
            {"top_p": None},
        ),
    ],
)
def test_refusals_that_only_the_user_can_answer(
    message: str, refused: Mapping[str, float | None]
) -> None:
    lesson = learnt(message)
    assert lesson is not None
    assert (lesson.refused, lesson.dialect) == (refused, PLAIN)


def test_a_template_that_counts_the_system_message_as_a_turn_is_folded_second() -> None:
    message = "Conversation roles must alternate user/assistant/user/assistant/..."
    first = learnt(message)
    assert first is not None and first.dialect == Dialect(merges_turns=True)
    second = learnt(message, first.dialect)
    assert second is not None and second.dialect == Dialect(merges_turns=True, system="user")
    assert learnt(message, second.dialect) is None


def test_a_schema_falls_back_twice() -> None:
    message = "response_format is not supported"
    second = learnt(message, Dialect(schema="json_object"))
    assert second is not None and second.dialect == Dialect(schema="prompt")
    # Nothing of it is sent any more.
    assert learnt(message, Dialect(schema="prompt")) is None


def test_a_field_that_is_refused_because_the_model_thinks() -> None:
    lesson = learnt(
        "`temperature` may only be set to 1 when thinking is enabled.",
        level="low",
        url="https://api.anthropic.com/v1",
    )
    assert lesson is not None and lesson.refused == {"temperature": 1.0}


def test_a_further_field_that_is_refused_is_named() -> None:
    lesson = learnt("Unknown parameter: 'service_tier'", service_tier="flex")
    assert lesson is not None and lesson.extra == ["service_tier"]


def test_all_fields_of_a_list_are_learnt_at_once() -> None:
    faults = [
        {"type": "extra_forbidden", "loc": ["body", name], "msg": "Not permitted", "input": value}
        for name, value in [
            ("top_k", -1),
            ("seed", {"top_p": ["a, b]", 1]}),
            ("service_tier", 'flex, "seed"'),
            ("max_tokens", 16),
            ("response_format", {"type": "json_schema"}),
        ]
    ]
    for message in (json.dumps({"detail": faults}), str(faults), json.dumps(str(faults))):
        lesson = learnt(message, service_tier="flex")
        assert lesson is not None
        assert lesson.refused == {"top_k": None, "seed": None}
        assert lesson.extra == ["service_tier"]
        assert lesson.dialect == Dialect(limit_field="max_completion_tokens", schema="json_object")


def test_entries_of_a_list_have_values_of_their_own() -> None:
    message = json.dumps(
        [
            {"loc": ["body", "temperature"], "msg": "Input should be equal to 1", "input": 0.0},
            {"loc": ["body", "top_p"], "msg": "Input should be equal to 0.95", "input": 1.0},
        ]
    )
    lesson = learnt(message)
    assert lesson is not None and lesson.refused == {"temperature": 1.0, "top_p": 0.95}


@pytest.mark.parametrize(
    ("message", "least", "most"),
    [
        ("Invalid 'max_tokens': below minimum. Expected a value >= 64, but got 16", 64, None),
        ("max_tokens must be at least 32", 32, None),
        ("max_tokens is too large: 24592. This model supports at most 4096", None, 4096),
        ("max_tokens: 24592 > 8192, which is the maximum allowed number", None, 8192),
        ("Range of max_tokens should be [1, 8192]", None, 8192),
        ("`max_tokens` must be less than or equal to `8192`", None, 8192),
    ],
)
def test_bounds_of_the_token_limit(message: str, least: int | None, most: int | None) -> None:
    body = {"messages": [], "max_tokens": 24592 if most else 16}
    lesson = read_refusal(message, body, PLAIN)
    assert lesson == Lesson(Dialect(most_tokens=most), least_tokens=least)
    bound = least or most
    assert f"--max-tokens {bound} is accepted" in suggest_remedy(message, ("top_p",), "")


def test_a_window_is_no_bound_of_the_token_limit() -> None:
    message = (
        "'max_tokens' is too large: 5000. This model's maximum context length is 4096 tokens and "
        "your request has 100 input tokens (5000 > 4096 - 100)"
    )
    assert read_refusal(message, {"max_tokens": 5000}, PLAIN) is None
    assert not suggest_remedy(message, ("top_p",), "")


def test_a_switch_of_reasoning_is_no_sampling_field() -> None:
    url = "https://dashscope.aliyuncs.com/compatible-mode/v1"
    message = "The value of the enable_thinking parameter is restricted to True."
    lesson = learnt(message, level="off", url=url)
    assert lesson is not None and not lesson.refused and lesson.thinking is True


@pytest.mark.parametrize(
    "message",
    [
        "parameter.enable_thinking must be set to false for non-streaming calls",
        "This model only support stream mode, please enable the stream parameter to access it.",
        "Non-streaming requests are not supported for this model",
    ],
)
def test_a_model_that_only_streams(message: str) -> None:
    lesson = learnt(message)
    assert lesson is not None and lesson.dialect == Dialect(streams=True)
    assert not lesson.dialect.marks() and "streamed" in lesson.dialect.describe()


def test_reasoning_tries_its_forms_in_turn() -> None:
    lesson = learnt("Unsupported value: 'reasoning_effort' does not support 'none'", level="off")
    assert lesson is not None and lesson.dialect.reasoning == "reasoning_effort=minimal"
    last = Dialect(reasoning="enable_thinking")
    lesson = learnt("enable_thinking: Extra inputs are not permitted", last, level="off")
    assert lesson is not None and lesson.dialect.reasoning == "none"


@pytest.mark.parametrize(
    ("role", "remedy"),
    [
        ("", "; --top-p 1 may be accepted; --omit-params top_p omits it"),
        # A judge has no option for it.
        ("judge", "; --judge-omit-params top_p omits it"),
    ],
)
def test_a_remedy_names_options_that_exist(role: str, remedy: str) -> None:
    text = suggest_remedy("Unsupported parameter: 'top_p'", ("temperature", "top_p"), role)
    assert text.startswith(remedy)


@pytest.mark.parametrize("message", ["Bad Request", "", "your account is under review"])
def test_a_refusal_without_a_reason_teaches_nothing(message: str) -> None:
    assert learnt(message) is None


# Reasoning --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "level", "fields"),
    [
        ("https://api.openai.com/v1", "low", {"reasoning_effort": "low"}),
        ("https://api.openai.com/v1", "off", {"reasoning_effort": "none"}),
        ("https://api.openai.com/v1", "5000", {"reasoning_effort": "medium"}),
        ("https://openrouter.ai/api/v1", "off", {"reasoning": {"enabled": False}}),
        ("https://openrouter.ai/api/v1", "3000", {"reasoning": {"max_tokens": 3000}}),
        (
            "https://dashscope.aliyuncs.com/compatible-mode/v1",
            "low",
            {"enable_thinking": True, "thinking_budget": 2048},
        ),
        ("https://api.deepseek.com", "off", {"thinking": {"type": "disabled"}}),
    ],
)
def test_the_fields_of_a_level(url: str, level: str, fields: Mapping[str, Any]) -> None:
    forms = reasoning.forms(level, url, is_nearby=False)
    assert forms[0].fields == fields


@pytest.mark.parametrize(
    ("url", "level", "limit", "allowances"),
    [
        ("https://api.openai.com/v1", "low", None, {2048}),
        # A word allows what it stands for, a budget what it says.
        ("https://api.openai.com/v1", "300", None, {300, 2048}),
        ("https://openrouter.ai/api/v1", "300", None, {300, 2048}),
        ("https://api.anthropic.com/v1", "high", 5000, {5000}),
        ("https://api.openai.com/v1", "off", None, {0}),
    ],
)
def test_each_form_has_its_allowance(
    url: str, level: str, limit: int | None, allowances: set[int]
) -> None:
    forms = reasoning.forms(level, url, is_nearby=False, limit=limit)
    assert {form.allowance for form in forms} == allowances
    for form in forms:
        budget = form.fields.get("thinking", {}).get("budget_tokens")
        assert budget in (None, form.allowance)


def test_a_server_of_ones_own_gets_the_options_of_its_template() -> None:
    (first, *_) = reasoning.forms("off", "http://127.0.0.1:8000/v1", is_nearby=True)
    assert first.fields["chat_template_kwargs"]["enable_thinking"] is False


def test_levels() -> None:
    assert [reasoning.allowance(level) for level in (None, "off", "low", "700")] == [
        0,
        0,
        2048,
        700,
    ]
    assert reasoning.check_level(" HIGH ") == "high"
    for wrong in ("0", "-5", "much", ""):
        with pytest.raises(UsageError, match="off, low, medium, high or a number"):
            reasoning.check_level(wrong)
