"""What DPL asks the model, in the task's vocabulary, and how the drafts of a request are made to fit the window.

Nothing here names a person: the user is "this" author or customer, the peers are numbered.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import msgspec

from personabench import Context, Message, Record
from personabench.methods.dpl.selectors import Peer

Draft = tuple[str, tuple[Message, ...]]
_SHORTER = (256, 128, 64, 32)
_TAG = re.compile(r"^[\s*_#<\[]*summary\b(?![-'])[\s*_>\]]*:?[\s*_]*", re.IGNORECASE)


class Case(NamedTuple):
    """A record of the user's, the peers it is compared with, and how the user differs from them.

    `similarity` is the mean of the peers' stimuli to the record's.  `agreeing` is the number of peers when all of
    them gave the user's own label, and `peers` is empty then.
    """

    doc: Record
    tier: str
    peers: tuple[Peer, ...]
    similarity: float = 1.0
    agreeing: int = 0
    difference: str = ""


def difference_drafts(case: Case, ctx: Context) -> Iterator[Draft]:
    """Stage 1: one record against its peers; then with shorter stimuli, then with fewer peers."""
    for limit in (None, *_SHORTER):
        yield "stimuli_shortened" if limit else "", _difference(case, case.peers, limit, ctx)
    for count in range(len(case.peers) - 1, 0, -1):
        yield "peers_dropped", _difference(case, case.peers[:count], _SHORTER[-1], ctx)


def profile_drafts(
    cases: Sequence[Case], records: Sequence[Record], ctx: Context
) -> Iterator[Draft]:
    """Stage 2: all cases and records; then fewer records, then shorter stimuli, then fewer cases."""
    yield "", _profile(cases, records, None, ctx)
    for count in range(len(records) - 1, -1, -1):
        yield "profile_records_dropped", _profile(cases, records[:count], None, ctx)
    for limit in _SHORTER:
        yield "stimuli_shortened", _profile(cases, (), limit, ctx)
    for count in range(len(cases) - 1, 0, -1):
        yield "cases_dropped", _profile(cases[:count], (), _SHORTER[-1], ctx)


def fitting(drafts: Iterable[Draft], max_tokens: int, ctx: Context) -> tuple[Message, ...] | None:
    """The first draft that fits the window beside its reply, its cuts flagged and logged; None when none fits."""
    cuts: Counter[str] = Counter()
    for cut, messages in drafts:
        cuts[cut] += 1
        if ctx.excess(messages, max_tokens) <= 0:
            for name, times in cuts.items():
                if name:
                    ctx.flag(name, times)
                    ctx.log(f"{name}: {times}, to fit the window")
            return messages
    return None


def agreement(case: Case, ctx: Context) -> str:
    """The fixed line that stands for a difference where there is none."""
    words, m = ctx.task.words, case.agreeing
    return f"{m} of {m} other people gave the same {words.response} as this {words.person}."


def untagged(text: str) -> tuple[str, bool]:
    """A profile without its leading tag, however that is spelled, and whether there was one."""
    stripped = _TAG.sub("", text, count=1)
    return stripped.strip(), stripped != text


def _difference(
    case: Case, peers: Sequence[Peer], limit: int | None, ctx: Context
) -> tuple[Message, ...]:
    words = ctx.task.words
    others = "one other person" if len(peers) == 1 else f"{len(peers)} other people"
    same = case.tier in ("T1", "T2") and case.doc.stimulus is not None
    if case.doc.stimulus is None:
        given = f"You are given one {words.response} by this {words.person}, and one by each of {others}"
    else:
        to = f"the same {words.stimulus}" if same else f"a comparable {words.stimulus}"
        given = (
            f"You are given one {words.stimulus}, the {words.response} that this {words.person} gave it, "
            f"and the {words.response} that {others} gave to {to}"
        )
    axes = "\n".join(f"- {name}: {definition}" for name, definition in words.axes)
    system = (
        f"You find out what is particular about one {words.person}. {given}. "
        f"State how this {words.person} differs from the others on {_number(len(words.axes))}:\n{axes}\n"
        "Write one line for each, beginning with its name; where there is no difference, say so. "
        "Say only what the texts show."
    )
    own = (
        case.doc if case.doc.stimulus is None else msgspec.structs.replace(case.doc, stimulus=None)
    )
    parts = [] if case.doc.stimulus is None else [_stimulus(case.doc, limit, ctx)]
    parts.append(f"This {words.person}:\n{ctx.task.describe(own)}")
    for number, peer in enumerate(peers, 1):
        shown = _shortened(peer.record, limit, ctx)
        if same:
            shown = msgspec.structs.replace(shown, stimulus=None)
        parts.append(f"Other person {number}:\n{ctx.task.describe(shown)}")
    parts.append(f"How this {words.person} differs:")
    return Message("system", system), Message("user", "\n\n".join(parts))


def _profile(
    cases: Sequence[Case], records: Sequence[Record], limit: int | None, ctx: Context
) -> tuple[Message, ...]:
    words = ctx.task.words
    then = f", then earlier records of this {words.person}" if records else ""
    system = (
        f"You write the profile of one {words.person}. You are given cases in which what this {words.person} did was "
        f"compared with what other people did{then}. {words.profile_question} "
        f"Say in one short paragraph what sets this {words.person} apart and holds across the cases. "
        "Do not number or quote cases or records. Begin with the tag Summary:"
    )
    parts = []
    for number, case in enumerate(cases, 1):
        about = (
            ctx.task.describe(case.doc)
            if case.doc.stimulus is None
            else _stimulus(case.doc, limit, ctx)
        )
        parts.append(f"Case {number}\n{about}\nHow this {words.person} differs:\n{case.difference}")
    if records:
        shown = "\n\n".join(ctx.task.describe(_shortened(record, limit, ctx)) for record in records)
        parts.append(f"Earlier records of this {words.person}:\n\n{shown}")
    return Message("system", system), Message("user", "\n\n".join(parts))


def _stimulus(record: Record, limit: int | None, ctx: Context) -> str:
    return f"{ctx.task.words.stimulus.capitalize()}: {_shortened(record, limit, ctx).stimulus}"


def _shortened(record: Record, limit: int | None, ctx: Context) -> Record:
    if limit is None or record.stimulus is None:
        return record
    return msgspec.structs.replace(record, stimulus=ctx.tokens.cut(record.stimulus, limit))


def _number(count: int) -> str:
    return "one point" if count == 1 else f"{count} points"
