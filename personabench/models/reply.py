"""Reply parsing: separate thought from answer, and map providers' finish reasons.

Replies are split once, as they arrive (`client.py`), so that methods, parsers, scorers, judges
and simulated users see answers only, whichever backend produced them; `cache.py` splits those that
were stored before the split existed.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import msgspec

from personabench.types import Response

# The tags of reasoning models in use: DeepSeek, Qwen, Seed, LongCat, Mistral, Kimi, OpenThinker,
# Command, Gemma, MedGemma and Pangu.
_NAMES = "think|thinking|thoughts?|reasoning|seed:think|longcat_think"
_START = (
    rf"<(?:{_NAMES})>|\[THINK\]|◁think▷|<\|begin_of_thought\|>|<\|START_THINKING\|>"
    r"|<\|channel>thought\b|<unused94>thought\b|\[unused16\]"
)
_STOP = (
    rf"</(?:{_NAMES})>|\[/THINK\]|◁/think▷|<\|end_of_thought\|>|<\|END_THINKING\|>|<channel\|>"
    r"|<unused95>|\[unused17\]"
)
_BEGINS = re.compile(rf"\s*(?:{_START})", re.IGNORECASE)
_ENDS = re.compile(_STOP, re.IGNORECASE)
_TAG = re.compile(rf"(?P<start>{_START})|{_STOP}", re.IGNORECASE)
_FRAME = re.compile(
    r"\s*(?:<answer>\s*)?<\|(?:begin_of_solution|START_RESPONSE|begin_of_box)\|>\s*(.*?)\s*"
    r"(?:<\|(?:end_of_solution|END_RESPONSE|end_of_box)\|>\s*)?(?:</answer>\s*)?"
    r"|\s*<answer>\s*(.*?)\s*</answer>\s*",
    re.DOTALL,
)
# The harmony format of gpt-oss, of which servers often strip some of the special tokens.
_CHANNEL = re.compile(
    r"(?:<\|start\|>assistant)?<\|channel\|>\s*(?P<name>analysis|commentary|final)(?![a-z])"
    r"(?:[^<]*(?:<\|constrain\|>[^<]*)?<\|message\|>)?"
)
_CHANNEL_END = re.compile(r"<\|(?:end|return|call|start)\|>.*", re.DOTALL)
_BARE_CHANNELS = re.compile(r"\s*analysis(.*)assistantfinal(.*)", re.DOTALL)
_QUOTES = "`'\"“‘«"
# No mark is possible without one of these, so most replies skip the regular expressions.
_SIGNS = ("<", "[", "◁", "assistantfinal")

_WORDS = {
    "stop": "stop eos eos_token eot end_turn end stop_sequence stop_token stop_str stop_word "
    "complete completed done finished normal tool_calls tool_call tool_use function_call",
    "length": "length limit max_tokens max_length max_output_tokens max_new_tokens "
    "max_completion_tokens max_output max_len max_context_length model_length token_limit "
    "context_length_exceeded context_window_exceeded model_context_window_exceeded",
    "refused": "content_filter content_filtered content_filter_error filter filtered safety "
    "image_safety refusal refused recitation blocklist blocked prohibited_content spii language "
    "sensitive moderation guardrail guardrails guardrail_intervened error_toxic",
}
_FINISHES = {word: finish for finish, words in _WORDS.items() for word in words.split()}
_ENUM = re.compile(r"^(?:finish_?|stop_?)?reason_")
_CAMEL = re.compile(r"(?<=[a-z])(?=[A-Z])")


class Reply(NamedTuple):
    """The two parts of a reply."""

    thought: str
    answer: str


def split_reply(text: str) -> Reply:
    """Split a reply into thought and answer.

    A thought is at the start of a reply, between marks.  If only its end mark is present, it began
    in the prompt; if only its start mark is present, it was not finished, and the answer is empty.
    Marks that an answer merely mentions stay in it: those after its beginning, in pairs, in quotes,
    or in JSON.
    """
    if not any(sign in text for sign in _SIGNS):
        return Reply("", text)
    channels = _split_channels(text)
    if channels is not None:
        return channels

    thoughts: list[str] = []
    start = 0
    while True:
        start_mark = _BEGINS.match(text, start)
        if start_mark is not None:
            end_mark = _ENDS.search(text, start_mark.end())
            thought_start = start_mark.end()
        else:
            end_mark = _find_unopened_end(text, start)
            thought_start = start

        if start_mark is None and end_mark is None:
            break
        if end_mark is None:
            thoughts.append(text[thought_start:].strip())
            start = len(text)
        else:
            thoughts.append(text[thought_start : end_mark.start()].strip())
            start = end_mark.end()
    if not thoughts:
        return Reply("", text)

    answer = text[start:].lstrip()
    frame = _FRAME.fullmatch(answer)
    if frame is not None:
        answer = frame[1] if frame[1] is not None else frame[2]
    return Reply(_join_parts(thoughts), answer)


def _join_parts(parts: Iterable[str]) -> str:
    return "\n\n".join(filter(None, parts))


def _find_unopened_end(text: str, start: int) -> re.Match[str] | None:
    """Find the last end mark without a start mark: the thought before it began in the prompt."""
    depth = 0
    unopened = None
    for tag in _TAG.finditer(text, start):
        character_before = text[max(0, tag.start() - 1) : tag.start()]
        if character_before in tuple(_QUOTES):
            continue

        if tag["start"]:
            depth += 1
        elif depth:
            depth -= 1
        else:
            unopened = tag

    # A JSON answer may hold a mark in one of its strings.
    if unopened is None or _is_json(text[start:]):
        return None
    return unopened


def _is_json(text: str) -> bool:
    if text.lstrip()[:1] not in ("{", "["):
        return False
    try:
        msgspec.json.decode(text)
    except msgspec.DecodeError:
        return False
    return True


def _split_channels(text: str) -> Reply | None:
    """Split a reply in named channels, of which the final one is the answer; else None."""
    marks = list(_CHANNEL.finditer(text))
    if marks:
        first = marks[0]
        preamble = text[: first.start()]
        # A channel mark in the middle of a text is a mention, unless the whole start token is
        # there.
        if first[0].startswith("<|start|>") or not preamble.strip():
            return _join_channels(text, preamble, marks)

    bare = _BARE_CHANNELS.fullmatch(text)
    if bare is None:
        return None
    return Reply(bare[1].strip(), bare[2].strip())


def _join_channels(text: str, preamble: str, marks: Sequence[re.Match[str]]) -> Reply:
    thoughts = [_strip_channel(preamble)]
    answers = []
    ends = [mark.start() for mark in marks[1:]]
    ends.append(len(text))

    for mark, end in zip(marks, ends, strict=True):
        content = _strip_channel(text[mark.end() : end])
        if mark["name"] == "final":
            answers.append(content)
        else:
            thoughts.append(content)
    return Reply(_join_parts(thoughts), _join_parts(answers))


def _strip_channel(content: str) -> str:
    return _CHANNEL_END.sub("", content).strip()


# Cached because it is called for every reply, with the same few words.
@lru_cache(maxsize=256)
def parse_finish(word: str | None) -> str:
    """Map a provider's finish reason to a `Response`'s `finish`; "unsaid" if there is none."""
    if not word:
        return "unsaid"

    # Gateways send the name of an SDK's enum (FinishReason.STOP, FINISH_REASON_STOP) or maxTokens.
    # Gemini's API adds a detail after a colon.
    word = word.partition(":")[0]
    name = _CAMEL.sub("_", word.rpartition(".")[2].strip()).lower()
    key = _ENUM.sub("", re.sub(r"[\s-]+", "_", name))

    # An unknown word does not show that the answer is complete, so it counts like an error.
    return _FINISHES.get(key, "interrupted")


def separate_thought(response: Response) -> Response:
    """Move a thought in a response's text to its `thought`; without one, return the same object."""
    thought, answer = split_reply(response.text)
    if answer == response.text:
        return response

    thoughts = _join_parts((response.thought, thought))
    return msgspec.structs.replace(response, text=answer, thought=thoughts, raw=response.text)


def as_it_came(response: Response) -> str:
    """Return a reply with its thought; one from a field of its own is put between marks."""
    if response.raw or not response.thought:
        return response.raw or response.text
    # The same text, whether or not a server separates thoughts itself.
    end = "\n</think>\n\n" if response.text else ""
    return f"<think>\n{response.thought}{end}{response.text}"


def answer_logprobs(
    logprobs: tuple[Mapping[str, Any], ...], answer: str
) -> tuple[Mapping[str, Any], ...]:
    """Select the tokens of a reply that make up its answer; all of them if they do not spell it."""
    tokens = [str(token.get("token", "")) for token in logprobs]
    answer_start = "".join(tokens).rfind(answer)
    if answer_start < 0:
        return logprobs

    end = 0
    for index, token in enumerate(tokens):
        end += len(token)
        if end > answer_start:
            return logprobs[index:]
    return ()
