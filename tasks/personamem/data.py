"""Opened PersonaMem splits: samples whose history ends strictly before their question's message.

Users are personas. A persona has several conversations, and each question ends the history at
another message, so a persona has many histories. Profiles are stored per history, so they never
mix, and methods that compare users leave a persona out with all of its conversations.

The option `records=questions` replaces the history by the earlier questions of the conversation
with their right letters: it shows golds, for the control that learns from them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from personabench.api.dataset import Dataset
from personabench.api.id_check import list_few
from personabench.errors import DataError
from personabench.hashing import digest, digest_files, digest_record, digest_set
from personabench.tasks.personamem import conversation, rules, scoring
from personabench.tasks.personamem.files import (
    LETTERS,
    PUBLISHED_HASHES,
    Contexts,
    Question,
    find_defects,
    locate,
    read_questions,
)
from personabench.types import Record, Sample, User, to_json

if TYPE_CHECKING:
    from personabench.tasks.personamem import PersonaMem

QUESTION = "Which of the following replies suits this user best?"
INSTRUCTION = (
    f"{QUESTION} "
    "Think if you need to, then write <final_answer> and after it the letter of that one reply: "
    "(a), (b), (c) or (d)."
)
# Recorded with every run, so that runs with another instruction are never compared.
WORDING = hashlib.sha256(INSTRUCTION.encode()).hexdigest()[:12]
ROTATIONS = 4
PUBLISHED_ORDER = (0, 1, 2, 3)


def order_options(shuffle: str, question_id: str, rotation: int = 0) -> tuple[int, ...]:
    """Return the original position of each option shown: published, rotated or shuffled order."""
    if shuffle == "none":
        return PUBLISHED_ORDER
    if shuffle == "rotate4":
        return tuple((position + rotation) % ROTATIONS for position in PUBLISHED_ORDER)

    # SHA-256 of `seed|question id|position` rather than a random generator: every process and
    # machine agrees on the order.
    keys = {
        position: hashlib.sha256(f"{shuffle}|{question_id}|{position}".encode()).hexdigest()
        for position in PUBLISHED_ORDER
    }
    return tuple(sorted(keys, key=keys.__getitem__))


class PersonaMemData(Dataset):
    """An opened split.

    Raises:
        UsageError: no such split.
        DataError: files are missing or broken; the message names file, question and column.
    """

    separation = "benchmark"

    def __init__(self, task: PersonaMem, split: str, data: Path | None) -> None:
        self.split = split
        self.sample = data is None
        self.params = task.params
        self.questions_path, contexts_path = locate(split, data)
        self.source = "example data, not PersonaMem" if self.sample else str(self.questions_path)

        table = read_questions(self.questions_path)
        self.questions = table.questions
        self.contexts = Contexts(contexts_path)
        self.hash = self._hash_content()
        self.defects = tuple(find_defects(self.questions, self.contexts))
        self.warnings = tuple(self._make_warnings(table.headers))

        self._repeats = ROTATIONS if self.params.shuffle == "rotate4" else 1
        # Per instance: a cache on the class would keep every opened split alive.
        self._conversations = lru_cache(maxsize=4)(self._build_records)
        self._index = self._make_index()
        self._majority = rules.majority_letter(self._iter_gold_letters())
        self._by_type = rules.pick_by_type(self.questions)

    def index(self) -> Sequence[tuple[str, str]]:
        return self._index

    def load(self, position: int) -> Sample:
        number = position // self._repeats
        question = self.questions[number]
        order = self._order(position)
        sample_id, _ = self._index[position]
        sample = make_sample(
            question,
            sample_id=sample_id,
            split=self.split,
            order=order,
            params=self.params,
            history=self._make_history(question),
        )
        # The choices of both rules for the oracles that report them.
        hints = {
            "majority_letter": self._majority,
            "type_length": LETTERS[order.index(self._by_type[number])],
        }
        return msgspec.structs.replace(sample, hidden={**sample.hidden, **hints})

    def population(self) -> Iterator[User]:
        """Yield every persona once, with its conversation of the smallest id.

        The conversation ends at the persona's latest question in the whole split. It is empty if
        histories are questions, since these show golds.
        """
        chosen: dict[str, tuple[str, int]] = {}
        for question in self.questions:
            context, end = chosen.get(question.persona, (question.context, 0))
            if question.context < context:
                chosen[question.persona] = (question.context, question.end)
            elif question.context == context:
                chosen[question.persona] = (context, max(end, question.end))

        for persona, (context, end) in chosen.items():
            if self.params.records == "questions":
                yield User(persona, ())
            else:
                yield User(persona, self._conversations(context).before(end))

    def _hash_content(self) -> str:
        questions = digest_set(map(digest_record, self.questions))
        contexts = {question.context for question in self.questions}
        # A missing conversation is an error that `find_defects` explains.
        present = sorted(context for context in contexts if context in self.contexts)
        turns = [digest_record([context, self.contexts.turns(context)]) for context in present]
        return digest([questions, digest_set(turns)])

    def _make_index(self) -> list[tuple[str, str]]:
        if self._repeats == 1:
            return [(question.id, question.persona) for question in self.questions]

        return [
            (f"{question.id}@{rotation}", question.persona)
            for question in self.questions
            for rotation in range(self._repeats)
        ]

    def _iter_gold_letters(self) -> Iterator[str]:
        for position in range(len(self._index)):
            question = self.questions[position // self._repeats]
            yield LETTERS[self._order(position).index(question.gold)]

    def _order(self, position: int) -> tuple[int, ...]:
        number, rotation = divmod(position, self._repeats)
        return order_options(self.params.shuffle, self.questions[number].id, rotation)

    def _build_records(self, context: str) -> conversation.ConversationRecords:
        assert self.params.records != "questions"
        turns = self.contexts.turns(context)
        return conversation.ConversationRecords(turns, self.params.records)

    def _make_history(self, question: Question) -> tuple[Record, ...]:
        if self.params.records != "questions":
            return self._conversations(question.context).before(question.end)

        # Strictly before: questions at the same message would give away one another's golds.
        earlier = [
            candidate
            for candidate in self.questions
            if candidate.context == question.context and candidate.end < question.end
        ]
        earlier.sort(key=lambda candidate: candidate.end)
        return tuple(self._make_answered_record(candidate) for candidate in earlier)

    def _make_answered_record(self, question: Question) -> Record:
        order = order_options(self.params.shuffle, question.id)
        letter = LETTERS[order.index(question.gold)]
        return Record(
            question.id,
            stimulus=conversation.strip_speaker(question.query),
            response=letter.strip("()"),
            fields={
                "cut": str(question.end),
                "option": question.texts[question.gold],
            },
        )

    def _make_warnings(self, headers: int) -> Iterator[str]:
        if self.params.records == "questions":
            yield (
                "histories are earlier questions with their right letters: "
                "a control that has seen golds"
            )
        if headers:
            yield f"{headers} repeated header lines in {self.questions_path.name} were skipped"
        if self.defects:
            yield (
                f"the files break their own rules {len(self.defects)} times, "
                f"first: {self.defects[0]}"
            )
        yield from self._warn_of_duplicates()

        types = {question.type for question in self.questions}
        unknown = sorted(label for label in types if not scoring.is_known_type(label))
        if unknown:
            yield f"unknown question types, each counted separately: {', '.join(unknown)}"
        if not self.sample:
            yield from self._warn_of_versions()

    def _warn_of_duplicates(self) -> Iterator[str]:
        duplicated = [question.id for question in self.questions if len(question.equal) > 1]
        if not duplicated:
            return

        rule = "only the keyed one is right"
        if self.params.accept_duplicate_gold:
            rule = "either counts as right"
        yield f"the right text has two letters in {list_few(duplicated, 3)} questions; {rule}"

    def _warn_of_versions(self) -> Iterator[str]:
        for path in (self.questions_path, self.contexts.path):
            published = PUBLISHED_HASHES.get(path.name)
            if published is None:
                continue
            # `digest_files` hashes the hashes of its files.
            expected = hashlib.sha256(bytes.fromhex(published)).hexdigest()
            if digest_files([path]) != expected:
                yield (
                    f"{path.name} is not the published version that this project knows "
                    f"(SHA-256 {published[:12]}...)"
                )


def make_sample(
    question: Question,
    *,
    sample_id: str,
    split: str,
    order: tuple[int, ...],
    params: PersonaMem.Params,
    history: tuple[Record, ...],
) -> Sample:
    """Convert a question into a sample; facts for scoring beside the gold letter are hidden."""
    texts = [question.texts[position] for position in order]
    gold = LETTERS[order.index(question.gold)]
    rights: tuple[str, ...] = (gold,)
    if params.accept_duplicate_gold:
        rights = tuple(LETTERS[order.index(position)] for position in question.equal)

    facts = scoring.Facts(
        type=question.type,
        split=split,
        topic=question.topic,
        context=question.context,
        blocks=question.blocks,
        tokens=question.tokens,
        proportion=question.proportion,
        rights=rights,
        order=order,
    )
    options = _format_options(question, texts, order, params.template)
    return Sample(
        id=sample_id,
        user_id=question.persona,
        input=f"{question.query}\n\n{INSTRUCTION}\n\n{options}",
        stimulus=conversation.strip_speaker(question.query),
        history=history,
        references=(gold,),
        choices=LETTERS,
        attributes={
            "cut": str(question.end),
            "options": to_json(texts),
        },
        hidden={"facts": to_json(facts)},
    )


def _format_options(
    question: Question,
    texts: Sequence[str],
    order: tuple[int, ...],
    template: str,
) -> str:
    options = [f"{letter} {text}" for letter, text in zip(LETTERS, texts, strict=True)]
    if template != "official":
        return "\n".join(options)
    # The published cell is kept byte for byte; its quoting may differ from Python's.
    return question.cell if order == PUBLISHED_ORDER else repr(options)


def read_facts(sample: Sample) -> scoring.Facts:
    """Return the facts of a sample that only scoring may see.

    Raises:
        DataError: the sample is a view, from which they were removed.
    """
    if "facts" not in sample.hidden:
        raise DataError(f"question {sample.id} has no references to score against")
    return msgspec.json.decode(sample.hidden["facts"], type=scoring.Facts)
