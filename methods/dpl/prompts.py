"""DPL's prompts, in the task's vocabulary, and their shortening until a request fits the window.

No user is identified: the user is "this" author or customer, and peers are numbered.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

import msgspec

from personabench import Context, Message, PromptFile, Record, UsageError
from personabench.methods.dpl.selectors import Peer
from personabench.methods.dpl.settings import ALL_AXES, Settings
from personabench.types import moment

PROMPTS = PromptFile(__file__, "dpl.prompts.toml")

# The name of a cut, "" for the whole request, and the messages.
Draft = tuple[str, tuple[Message, ...]]
# Makes a request from the texts of a comparison and the number of peers in it.
BuildRequest = Callable[[str, int], tuple[Message, ...]]
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


def draft_differences(
    case: Case,
    settings: Settings,
    ctx: Context,
    build: BuildRequest | None = None,
) -> Iterator[Draft]:
    """Stage 1: one record against its peers; then with shorter stimuli, then with fewer peers.

    `build` makes another request than the difference in free text.
    """
    build = build or (
        lambda texts, peer_count: _difference_prompt(texts, peer_count, case, settings, ctx)
    )
    for limit in (None, *_SHORTER):
        cut = "stimuli_shortened" if limit else ""
        yield cut, build(_format_texts(case, case.peers, limit, ctx), len(case.peers))
    for count in range(len(case.peers) - 1, 0, -1):
        texts = _format_texts(case, case.peers[:count], _SHORTER[-1], ctx)
        yield "peers_dropped", build(texts, count)


def draft_profiles(
    cases: Sequence[Case],
    records: Sequence[Record],
    order: str,
    ctx: Context,
) -> Iterator[Draft]:
    """Stage 2: all cases and records; then fewer records, shorter stimuli, finally fewer cases.

    `records` come best first, whatever the order in which they are shown.
    """
    yield "", _profile_prompt(cases, _order_records(records, order), None, ctx)
    # Records go first: they are shown again with the question, the differences are not.
    for count in range(len(records) - 1, -1, -1):
        remaining = _order_records(records[:count], order)
        yield "profile_records_dropped", _profile_prompt(cases, remaining, None, ctx)
    for limit in _SHORTER:
        yield "stimuli_shortened", _profile_prompt(cases, (), limit, ctx)
    for count in range(len(cases) - 1, 0, -1):
        yield "cases_dropped", _profile_prompt(cases[:count], (), _SHORTER[-1], ctx)


def _order_records(records: Sequence[Record], order: str) -> Sequence[Record]:
    if order == "best_last":
        return records[::-1]
    if order == "oldest_first":
        return sorted(records, key=lambda record: moment(record.time))
    return records


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
    return ctx.part(PROMPTS, "agreement", count=str(case.agreeing))


def choose_axes(names: Sequence[str], ctx: Context) -> list[tuple[str, str]]:
    """The task's axes of these names, or all.

    Raises:
        UsageError: an axis that the task does not have.
    """
    axes = {name: (name, definition) for name, definition in ctx.task.words.axes}
    if list(names) == [ALL_AXES]:
        return list(axes.values())
    for name in names:
        if name not in axes:
            raise UsageError(
                f"dpl: axes={','.join(names)}: {ctx.task.name} has no axis '{name}'; it has "
                f"{', '.join(axes)}"
            )
    return [axes[name] for name in names]


def format_axes(axes: Sequence[tuple[str, str]]) -> str:
    """Axes, one on a line."""
    return "\n".join(f"- {name}: {definition}" for name, definition in axes)


def format_notes(profile: str, ctx: Context) -> str:
    """The profile as a request for an answer shows it; empty without one."""
    return ctx.part(PROMPTS, "notes", profile=profile) if profile else ""


def strip_tag(text: str) -> tuple[str, bool]:
    """A profile without its leading tag, in any spelling, and whether there was one."""
    stripped = _TAG.sub("", text, count=1)
    return stripped.strip(), stripped != text


def _difference_prompt(
    texts: str,
    peer_count: int,
    case: Case,
    settings: Settings,
    ctx: Context,
) -> tuple[Message, ...]:
    material = _describe_material(case, peer_count, ctx)
    if settings.free_form:
        return ctx.prompt(PROMPTS, "free_difference", material=material, texts=texts)
    axes = choose_axes(settings.axes, ctx)
    return ctx.prompt(
        PROMPTS,
        "difference",
        material=material,
        points=_count_points(len(axes)),
        axes=format_axes(axes),
        texts=texts,
    )


def _format_texts(
    case: Case,
    peers: Sequence[Peer],
    limit: int | None,
    ctx: Context,
) -> str:
    """The texts of a comparison: the stimulus, the user's response, and those of peers."""
    has_stimulus = case.record.stimulus is not None
    same_stimulus = has_stimulus and case.tier in ("T1", "T2")

    parts = []
    own_record = case.record
    if has_stimulus:
        parts.append(_format_stimulus(case.record, limit, ctx))
        own_record = msgspec.structs.replace(case.record, stimulus=None)
    parts.append(ctx.part(PROMPTS, "own_text", record=ctx.task.describe(own_record)))
    for number, peer in enumerate(peers, 1):
        peer_record = _shorten(peer.record, limit, ctx)
        if same_stimulus:
            peer_record = msgspec.structs.replace(peer_record, stimulus=None)
        described = ctx.task.describe(peer_record)
        parts.append(ctx.part(PROMPTS, "peer_text", number=str(number), record=described))
    return "\n\n".join(parts)


def _describe_material(case: Case, peer_count: int, ctx: Context) -> str:
    """The sentence that introduces the texts of a comparison."""
    peers = "one other person" if peer_count == 1 else f"{peer_count} other people"
    if case.record.stimulus is None:
        return ctx.part(PROMPTS, "no_stimulus", peers=peers)
    stage = "same_stimulus" if case.tier in ("T1", "T2") else "near_stimulus"
    return ctx.part(PROMPTS, stage, peers=peers)


def format_cases(cases: Sequence[Case], limit: int | None, ctx: Context) -> str:
    """The differences with their subjects, numbered."""
    parts = [
        ctx.part(
            PROMPTS,
            "case",
            number=str(number),
            about=_format_stimulus(case.record, limit, ctx),
            difference=case.difference,
        )
        for number, case in enumerate(cases, 1)
    ]
    return "\n\n".join(parts)


def _profile_prompt(
    cases: Sequence[Case],
    records: Sequence[Record],
    limit: int | None,
    ctx: Context,
) -> tuple[Message, ...]:
    listed = format_cases(cases, limit, ctx)
    if not records:
        return ctx.prompt(PROMPTS, "profile_of_cases", cases=listed)

    shortened = (_shorten(record, limit, ctx) for record in records)
    described = "\n\n".join(ctx.task.describe(record) for record in shortened)
    return ctx.prompt(PROMPTS, "profile", cases=listed, records=described)


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
