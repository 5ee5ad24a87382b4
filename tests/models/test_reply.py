"""Replies taken apart: thoughts in all their marks, answers that only mention one, and the words
for an end."""

from __future__ import annotations

import time

import pytest

from personabench.models.reply import (
    answer_logprobs,
    as_it_came,
    parse_finish,
    separate_thought,
    split_reply,
)
from personabench.types import Response, Usage

THOUGHT = "Let me weigh a few options.\n\nThe second is better."

FINAL = "<|start|>assistant<|channel|>final"


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        (f"<think>\n{THOUGHT}\n</think>\n\nAn answer", "An answer"),
        (f"\n <THINKING>{THOUGHT}</THINKING>An answer", "An answer"),
        (f"<think>{THOUGHT}</think>\n<answer> An answer\n</answer>", "An answer"),
        (f"<think>{THOUGHT}</think><|begin_of_box|>An answer<|end_of_box|>", "An answer"),
        (
            f"<think>{THOUGHT}</think><answer><|begin_of_box|>An answer<|end_of_box|></answer>",
            "An answer",
        ),
        (f"<reasoning>{THOUGHT}</reasoning>An answer", "An answer"),
        (f"<thought>{THOUGHT}</thought>An answer", "An answer"),
        (f"<seed:think>{THOUGHT}</seed:think>An answer", "An answer"),
        (f"[THINK]{THOUGHT}[/THINK]An answer", "An answer"),
        (f"<unused94>thought\n{THOUGHT}<unused95>An answer", "An answer"),
        (f"[unused16]{THOUGHT}[unused17]An answer", "An answer"),
        (f"<longcat_think>{THOUGHT}</longcat_think>An answer", "An answer"),
        (f"◁think▷{THOUGHT}◁/think▷An answer", "An answer"),
        (
            f"<|START_THINKING|>{THOUGHT}<|END_THINKING|>"
            "<|START_RESPONSE|>An answer<|END_RESPONSE|>",
            "An answer",
        ),
        (
            f"<|begin_of_thought|>{THOUGHT}<|end_of_thought|>\n<|begin_of_solution|>An answer",
            "An answer",
        ),
        (f"{THOUGHT}\n</think>\n\nAn answer", "An answer"),
        (f"{THOUGHT}[/THINK]An answer", "An answer"),
        (f"<think>{THOUGHT}", ""),
        (f"[THINK]{THOUGHT}", ""),
        (f'<think>{THOUGHT}</think>{{"answer": "</think>"}}', '{"answer": "</think>"}'),
        (f"<|channel|>analysis<|message|>{THOUGHT}<|end|>{FINAL}<|message|>An answer", "An answer"),
        (f"<|channel|>analysis{THOUGHT}<|channel|>final An answer<|return|>", "An answer"),
        (f"{THOUGHT}<|end|>{FINAL} <|constrain|>JSON<|message|>{{}}<|return|>", "{}"),
        (f"<|channel|>analysis<|message|>{THOUGHT}<|end|>", ""),
        (f"<|channel|>analysis<|message|>{THOUGHT}", ""),
        (f"analysis{THOUGHT}assistantfinalAn answer", "An answer"),
    ],
)
def test_thought_and_answer_are_told_apart(text: str, answer: str) -> None:
    assert split_reply(text) == (THOUGHT, answer)


@pytest.mark.parametrize(
    ("text", "thought", "answer"),
    [
        ("<think>a</think><think>b</think>c", "a\n\nb", "c"),
        ("<think>a</think>b</think>c", "a\n\nb", "c"),
        ("<think>a <think>b</think> c</think>d", "a <think>b\n\nc", "d"),
        ("<think>\n\n</think>\n\nc", "", "c"),
        ("</think>c", "", "c"),
        ("<think>", "", ""),
    ],
)
def test_doubled_nested_and_empty_thoughts(text: str, thought: str, answer: str) -> None:
    assert split_reply(text) == (thought, answer)


@pytest.mark.parametrize(
    "text",
    [
        "",
        " A plain answer. ",
        "Write <think> before and </think> after it.",
        "Of its tags `</think>` is the last.",
        "I <think> so",
        '{"tag": "it ends with </think>, they say"}',
        '["</think>", "a"]',
        "analysis of the analysts",
        "The mark <|channel|>final is gpt-oss's.",
        "[1] a < b",
    ],
)
def test_an_answer_that_mentions_a_mark_stays_whole(text: str) -> None:
    assert split_reply(text) == ("", text)


def test_long_and_hostile_replies_take_no_time() -> None:
    began = time.perf_counter()
    for text in (
        "<think>" * 9000,
        "</think>a" * 9000,
        "<" * 90000,
        "<|channel|>final" + "<|end|>" * 9000,
    ):
        split_reply(text)
    assert time.perf_counter() - began < 5


@pytest.mark.parametrize(
    ("finish", "words"),
    [
        (
            "stop",
            "stop STOP eos eos_token end_turn stop_sequence COMPLETE tool_calls FinishReason.STOP "
            "FINISH_REASON_STOP REASON_STOP endTurn",
        ),
        (
            "length",
            "length max_tokens MAX_TOKENS model_length max_output_tokens max-tokens maxTokens "
            "FINISH_REASON_MAX_TOKENS REASON_MAX_LEN max_output context_length_exceeded",
        ),
        (
            "refused",
            "content_filter content_filter:_PROHIBITED SAFETY refusal RECITATION "
            "PROHIBITED_CONTENT guardrail_intervened sensitive",
        ),
        (
            "interrupted",
            "error abort cancelled insufficient_system_resource network_error OTHER a_word_to_come",
        ),
    ],
)
def test_providers_words_for_an_end(finish: str, words: str) -> None:
    assert {word: parse_finish(word) for word in words.split()} == dict.fromkeys(
        words.split(), finish
    )


def test_no_word_is_no_end() -> None:
    assert parse_finish(None) == parse_finish("") == "unsaid"


def test_a_response_keeps_both_thoughts_and_is_the_same_where_there_is_none() -> None:
    plain = Response("An answer", usage=Usage(3, 2))
    assert separate_thought(plain) is plain
    inline = Response("<think>b</think>An answer", thought="a", finish="length")
    expected = Response("An answer", thought="a\n\nb", raw=inline.text, finish="length")
    assert separate_thought(inline) == expected


@pytest.mark.parametrize(
    ("reply", "raw"),
    [
        (Response("An answer"), "An answer"),
        (Response("b</think>\n An answer"), "b</think>\n An answer"),
        (Response("An answer", thought="b"), "<think>\nb\n</think>\n\nAn answer"),
        (Response("", thought="b", finish="length"), "<think>\nb"),
    ],
)
def test_a_reply_as_it_came(reply: Response, raw: str) -> None:
    assert as_it_came(separate_thought(reply)) == raw


def test_log_probabilities_are_those_of_the_answer() -> None:
    tokens = tuple(
        {"token": text, "logprob": -1.0}
        for text in ("<think>", "(a)", "</think>", "\n\n", "(", "b", ")", "")
    )
    assert [token["token"] for token in answer_logprobs(tokens, "(b)")] == ["(", "b", ")", ""]
    assert answer_logprobs(tokens, "elsewhere") == tokens


@pytest.mark.parametrize("mark", ["<|channel|>analysis<|message|>", "<|channel|>final<|message|>"])
@pytest.mark.parametrize("filling", [" ", " \n", "x", "*", "<think>", "</think>", "<|"])
def test_a_long_reply_is_split_at_once(mark: str, filling: str) -> None:
    started = time.monotonic()
    split_reply(mark + filling * 20_000 + "x")
    split_reply(filling * 20_000 + "x")
    assert time.monotonic() - started < 1
