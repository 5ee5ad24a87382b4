"""DPL's prompts, in the task's vocabulary, and their shortening until a request fits the window.

No user is identified: the user is "this" author or customer, and peers are numbered.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import msgspec

from personabench import Context, Message, Record
from personabench.methods.dpl.selectors import Peer

# The name of a cut, "" for the whole request, and the messages.
Draft = tuple[str, tuple[Message, ...]]
# Token limits to which stimuli are shortened, one after the other, until the request fits.
_SHORTER = (256, 128, 64, 32)
# "Summary of the reviewer: ..." begins a sentence; it is no tag.
_TAG = re.compile(
    r"^[\s*_#<\[]*summary\b(?![-']|\s+(?:of|for|about|on)\b)[\s*_>\]]*:?[\s*_]*",
    re.IGNORECASE,
)


class Case(NamedTuple):
    """A record of the user's, the peers it is compared with, and the user's difference from them.

    `similarity` is the mean of the peers' stimuli to the record's.  `agreeing` is the number of
    peers if all of them gave the user's own label, and `peers` is empty then.
    """

    record: Record
    tier: str
    peers: tuple[Peer, ...]
    similarity: float = 1.0
    agreeing: int = 0
    difference: str = ""


def draft_differences(case: Case, ctx: Context) -> Iterator[Draft]:
    """Stage 1: one record against its peers; then with shorter stimuli, then with fewer peers."""
    for limit in (None, *_SHORTER):
        cut = "stimuli_shortened" if limit else ""
        yield cut, _difference_prompt(case, case.peers, limit, ctx)
    for count in range(len(case.peers) - 1, 0, -1):
        yield "peers_dropped", _difference_prompt(case, case.peers[:count], _SHORTER[-1], ctx)


def draft_profiles(
    cases: Sequence[Case],
    records: Sequence[Record],
    ctx: Context,
) -> Iterator[Draft]:
    """Stage 2: all cases and records; then fewer records, shorter stimuli, finally fewer cases."""
    yield "", _profile_prompt(cases, records, None, ctx)
    # Records go first: they are shown again with the question, the differences are not.
    for count in range(len(records) - 1, -1, -1):
        yield "profile_records_dropped", _profile_prompt(cases, records[:count], None, ctx)
    for limit in _SHORTER:
        yield "stimuli_shortened", _profile_prompt(cases, (), limit, ctx)
    for count in range(len(cases) - 1, 0, -1):
        yield "cases_dropped", _profile_prompt(cases[:count], (), _SHORTER[-1], ctx)


def fit_draft(
    drafts: Iterable[Draft],
    max_tokens: int,
    ctx: Context,
) -> tuple[Message, ...] | None:
    """The first draft that fits the window beside its reply, its cuts flagged; None without one."""
    cuts: Counter[str] = Counter()
    for cut, messages in drafts:
        if cut:
            cuts[cut] += 1
        if ctx.count_excess_tokens(messages, max_tokens) > 0:
            continue
        for name, count in cuts.items():
            ctx.flag(name, count)
            ctx.log(f"{name}: {count}, to fit the window")
        return messages
    return None


def describe_agreement(case: Case, ctx: Context) -> str:
    """The fixed line in place of a difference if all peers agree with the user."""
    words = ctx.task.words
    count = case.agreeing
    return f"{count} of {count} other people gave the same {words.response} as this {words.person}."


def strip_tag(text: str) -> tuple[str, bool]:
    """A profile without its leading tag, in any spelling, and whether there was one."""
    stripped = _TAG.sub("", text, count=1)
    return stripped.strip(), stripped != text


def _difference_prompt(
    case: Case,
    peers: Sequence[Peer],
    limit: int | None,
    ctx: Context,
) -> tuple[Message, ...]:
    words = ctx.task.words
    has_stimulus = case.record.stimulus is not None
    same_stimulus = has_stimulus and case.tier in ("T1", "T2")

    axes = "\n".join(f"- {name}: {definition}" for name, definition in words.axes)
    system = (
        f"You find out what is particular about one {words.person}. "
        f"{_describe_material(case, len(peers), ctx)}. "
        f"State how this {words.person} differs from the others on "
        f"{_count_points(len(words.axes))}:\n{axes}\n"
        "Write one line for each, beginning with its name; where there is no difference, say so. "
        "Say only what the texts show."
    )

    parts = []
    own_record = case.record
    if has_stimulus:
        parts.append(_format_stimulus(case.record, limit, ctx))
        own_record = msgspec.structs.replace(case.record, stimulus=None)
    parts.append(f"This {words.person}:\n{ctx.task.describe(own_record)}")
    for number, peer in enumerate(peers, 1):
        peer_record = _shorten(peer.record, limit, ctx)
        if same_stimulus:
            peer_record = msgspec.structs.replace(peer_record, stimulus=None)
        parts.append(f"Other person {number}:\n{ctx.task.describe(peer_record)}")
    parts.append(f"How this {words.person} differs:")
    return Message("system", system), Message("user", "\n\n".join(parts))


def _describe_material(case: Case, peer_count: int, ctx: Context) -> str:
    """The sentence that introduces the texts of a comparison."""
    words = ctx.task.words
    peers = "one other person" if peer_count == 1 else f"{peer_count} other people"
    if case.record.stimulus is None:
        return (
            f"You are given one {words.response} by this {words.person}, and one by each of {peers}"
        )
    relation = "the same" if case.tier in ("T1", "T2") else "a comparable"
    return (
        f"You are given one {words.stimulus}, "
        f"the {words.response} that this {words.person} gave it, "
        f"and the {words.response} that {peers} gave to {relation} {words.stimulus}"
    )


def _profile_prompt(
    cases: Sequence[Case],
    records: Sequence[Record],
    limit: int | None,
    ctx: Context,
) -> tuple[Message, ...]:
    words = ctx.task.words
    addition = f", then earlier records of this {words.person}" if records else ""
    system = (
        f"You write the profile of one {words.person}. "
        f"You are given cases in which what this {words.person} did was "
        f"compared with what other people did{addition}. {words.profile_question} "
        f"Say in one short paragraph what sets this {words.person} apart "
        "and holds across the cases. "
        "Do not number or quote cases or records. Begin with the tag Summary:"
    )

    parts = []
    for number, case in enumerate(cases, 1):
        about = _format_stimulus(case.record, limit, ctx)
        parts.append(f"Case {number}\n{about}\nHow this {words.person} differs:\n{case.difference}")
    if records:
        shortened = (_shorten(record, limit, ctx) for record in records)
        described = "\n\n".join(ctx.task.describe(record) for record in shortened)
        parts.append(f"Earlier records of this {words.person}:\n\n{described}")
    return Message("system", system), Message("user", "\n\n".join(parts))


def _format_stimulus(record: Record, limit: int | None, ctx: Context) -> str:
    if record.stimulus is None:
        return ctx.task.describe(record)
    stimulus = _shorten(record, limit, ctx).stimulus
    return f"{ctx.task.words.stimulus.capitalize()}: {stimulus}"


def _shorten(record: Record, limit: int | None, ctx: Context) -> Record:
    if limit is None or record.stimulus is None:
        return record
    return msgspec.structs.replace(record, stimulus=ctx.tokens.truncate(record.stimulus, limit))


def _count_points(count: int) -> str:
    return "one point" if count == 1 else f"{count} points"
