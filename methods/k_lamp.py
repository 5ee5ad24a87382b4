"""An entity store per user: names in the user's texts, with counts and dates, some for an answer.

No model builds the store.  For each question some entities are drawn, and the answer is given with
them as context.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from random import Random
from typing import Literal, NamedTuple, TypedDict

from personabench import Context, Method, PromptFile, Record, Sample, UsageError, User
from personabench.methods.rpm.pairs import select_visible_records
from personabench.types import moment

PROMPTS = PromptFile(__file__, "k_lamp.prompts.toml")
RECOGNIZER = "capitalized words, 1"
"""The way that entities are recognized, with its version, as stores and predictions record it."""

_TOKEN = re.compile(r"[^\W_][\w'’&-]*|[^\w\s]")
_SENTENCE_ENDS = frozenset('.!?:;"“”()…')
# Words with a capital that are no name at the beginning or the end of one.
_COMMON = (
    " a an and are as at but by did do does for from has have he her his how i if in is it its my "
    "no not of on or our she so that the their then there these they this to was we were what when "
    "where which who why will with yes you your i'm i've i'll i'd it's i’m i’ve i’ll i’d it’s "
    "monday tuesday wednesday thursday friday saturday sunday mondays tuesdays wednesdays "
    "thursdays fridays saturdays sundays january february march april may june july august "
    "september october november december "
)
# A longer run is a headline or a shout, not a name.
_LONGEST_NAME = 4
# A line of fewer words may consist of names.
_HEADLINE_WORDS = 4
_HEADLINE_SHARE = 0.6


class Entity(TypedDict):
    """An entity of the store.

    `count` is the number of records that name it; `first` and `last` are the dates of the first and
    the last of them, None without dates.
    """

    count: int
    first: str | None
    last: str | None


class Store(TypedDict):
    """The state of a user."""

    recognizer: str
    entities: dict[str, Entity]


class KLamp(Method):
    """Answer with some entities of the user's history as context."""

    name = "k_lamp"
    paper = (
        "Knowledge-Augmented Large Language Models for Personalized Contextual Query Suggestion, "
        "arXiv 2311.06318"
    )
    needs = ("history",)
    designed_for = ()
    prompts = (PROMPTS,)

    @dataclass(frozen=True)
    class Params:
        """n_entities: entities drawn for a question, without replacement.

        policy: familiar draws by count; unfamiliar by 1 / (count + 1), with the entities of the
            question that the history lacks; lapsed by count, among those not seen for some time.
        lapse_days: that time, in days before the date of the question.
        page_chars: characters of the question that are searched for entities.
        """

        n_entities: int = 5
        policy: Literal["familiar", "unfamiliar", "lapsed"] = "familiar"
        lapse_days: int = 14
        page_chars: int = 1200

        def __post_init__(self) -> None:
            if self.n_entities < 1:
                raise ValueError(f"n_entities must be at least 1, not {self.n_entities}")
            if self.lapse_days < 0:
                raise ValueError(f"lapse_days must be 0 or more, not {self.lapse_days}")

    def requirements(self) -> set[str]:
        return super().requirements() | ({"dates"} if self.params.policy == "lapsed" else set())

    def visible(self, sample: Sample) -> tuple[Record, ...]:
        """The history without records that repeat the question."""
        return select_visible_records(sample, letters=False)

    async def profile(self, user: User, ctx: Context) -> Store:
        """The entities of all records; no call."""
        return Store(recognizer=RECOGNIZER, entities=build_store(user.history))

    async def predict(self, sample: Sample, state: Store, ctx: Context) -> str:
        weights = self._weigh(sample, state["entities"])
        # The names, not the order of a file, decide the draw.
        names = draw(weights, self.params.n_entities, ctx.rng("k_lamp", sample.id))
        if not names:
            ctx.flag("no_entities" if sample.history else "empty_history")
            return await ctx.answer(sample)

        ctx.flag("entities", len(names))
        ctx.note("entities", names)
        ctx.note("recognizer", state["recognizer"])
        notes = ctx.part(PROMPTS, self.params.policy, entities=", ".join(names))
        return await ctx.answer(sample, notes=notes)

    def _weigh(self, sample: Sample, entities: Mapping[str, Entity]) -> dict[str, float]:
        """The entities that may be drawn, by weight."""
        p = self.params
        counts = {name: entity["count"] for name, entity in entities.items()}
        if p.policy == "familiar":
            return {name: float(count) for name, count in counts.items()}

        if p.policy == "lapsed":
            now = _require_date(sample)
            return {
                name: float(counts[name])
                for name, entity in entities.items()
                if _count_days(entity["last"], now) >= p.lapse_days
            }

        known = {name.casefold() for name in counts}
        page = (sample.stimulus or sample.input)[: p.page_chars]
        for name in find_entities([page])[0]:
            if name.casefold() not in known:
                counts[name] = 0
        return {name: 1 / (count + 1) for name, count in counts.items()}


def draw(weights: Mapping[str, float], count: int, rng: Random) -> list[str]:
    """Draw names by weight, one after the other, without replacement."""
    remaining = dict(sorted(weights.items()))
    names: list[str] = []
    while remaining and len(names) < count:
        (name,) = rng.choices(list(remaining), list(remaining.values()))
        names.append(name)
        del remaining[name]
    return names


def build_store(history: Sequence[Record]) -> dict[str, Entity]:
    """The entities of a history, by their first spelling."""
    # Files need not be in the order of time, and the last date decides what has lapsed.
    history = sorted(history, key=lambda record: moment(record.time))
    texts = ["\n".join(filter(None, [record.stimulus, record.response])) for record in history]
    entities: dict[str, Entity] = {}
    spellings: dict[str, str] = {}
    for record, names in zip(history, find_entities(texts), strict=True):
        for name in names:
            spelling = spellings.setdefault(name.casefold(), name)
            if spelling not in entities:
                entities[spelling] = Entity(count=0, first=record.time, last=None)
            entities[spelling]["count"] += 1
            entities[spelling]["last"] = record.time
    return entities


def find_entities(texts: Sequence[str]) -> list[list[str]]:
    """The names in each of some texts: runs of up to four capitalized words, each once.

    A single word at the beginning of a sentence is a name only if one of the texts has it, with its
    capital, within a sentence.  Lines in which most words have capitals, such as headlines, are
    left out, since a capital marks no name there.
    """
    runs_by_text = [list(_find_runs(text)) for text in texts]
    runs = [run for text_runs in runs_by_text for run in text_runs]
    inner_words = {word for run in runs if not run.is_first for word in run.words}

    names = []
    for text_runs in runs_by_text:
        unique: dict[str, str] = {}
        for run in text_runs:
            is_name = not run.is_first or len(run.words) > 1 or run.words[0] in inner_words
            if is_name:
                name = " ".join(run.words)
                unique.setdefault(name.casefold(), name)
        names.append(list(unique.values()))
    return names


class Run(NamedTuple):
    """Capitalized words in a row; `is_first`: the first of them begins a sentence."""

    words: tuple[str, ...]
    is_first: bool


def _find_runs(text: str) -> Iterator[Run]:
    """The runs of a text that may be names."""
    for line in text.splitlines():
        tokens: list[str] = _TOKEN.findall(line)
        words = [token for token in tokens if token[0].isalnum()]
        capitals = sum(word[0].isupper() for word in words)
        if len(words) >= _HEADLINE_WORDS and capitals > _HEADLINE_SHARE * len(words):
            continue

        run: list[str] = []
        begins = is_first = True
        for token in [*tokens, "."]:
            if token[0].isupper():
                if not run:
                    is_first = begins
                run.append(token)
            elif run:
                yield from _trim(run, is_first)
                run = []
            begins = token in _SENTENCE_ENDS


def _trim(words: Sequence[str], is_first: bool) -> Iterator[Run]:
    """The run without common words at its ends, if a name is left."""
    start, end = 0, len(words)
    while start < end and _is_common(words[start]):
        start += 1
    while start < end and _is_common(words[end - 1]):
        end -= 1
    if 0 < end - start <= _LONGEST_NAME:
        # The possessive of a name is the same name.
        last = words[end - 1].removesuffix("'s").removesuffix("’s")
        yield Run((*words[start : end - 1], last), is_first and start == 0)


def _is_common(word: str) -> bool:
    return f" {word.casefold()} " in _COMMON


def _require_date(sample: Sample) -> date:
    """The date of a question.

    Raises:
        UsageError: it has none.
    """
    day = _read_date(sample.time)
    if day is None:
        raise UsageError(
            f"k_lamp: question '{sample.id}' has no date that policy=lapsed could count from; "
            "choose policy=familiar or unfamiliar"
        )
    return day


def _count_days(time: str | None, now: date) -> int:
    """Days from a date to another; -1 for a time that is no date."""
    day = _read_date(time)
    return -1 if day is None else (now - day).days


def _read_date(time: str | None) -> date | None:
    numbers = moment(time)[:3]
    if len(numbers) < 3:
        return None
    try:
        return date(*numbers)
    except ValueError:
        return None
