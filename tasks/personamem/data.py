"""An opened PersonaMem split: samples whose history ends strictly before the message at which they are asked.

Users are personas.  A persona has several conversations, whose cuts are different histories: what a method makes of a
history is named by the history itself, so conversations and cuts never mix, while methods that compare people leave a
persona out with all of its conversations.  A history of questions, asked for by option, is the earlier questions of the
conversation with their right letters: it shows golds, for the control that learns from them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from personabench.api.dataset import Dataset
from personabench.api.id_check import few
from personabench.errors import DataError
from personabench.hashing import digest_files
from personabench.tasks.personamem import conversation, rules, scoring
from personabench.tasks.personamem.files import (
    KNOWN,
    LETTERS,
    Contexts,
    Question,
    defects,
    locate,
    read_questions,
)
from personabench.types import Record, Sample, User, to_json

if TYPE_CHECKING:
    from personabench.tasks.personamem import PersonaMem

INSTRUCTION = (
    "Which of the following replies suits this user best? "
    "Think if you need to, then write <final_answer> and after it the letter of that one reply: (a), (b), (c) or (d)."
)
WORDING = hashlib.sha256(INSTRUCTION.encode()).hexdigest()[:12]
ROTATIONS = 4


def order_of(shuffle: str, question: str, rotation: int = 0) -> tuple[int, ...]:
    """The original position of each option shown: as published, rotated, or sorted by a hash of seed, id and position.

    The hash is SHA-256 of `seed|question id|position`, so that every process and machine agrees.
    """
    if shuffle == "none":
        return (0, 1, 2, 3)
    if shuffle == "rotate4":
        return tuple((at + rotation) % ROTATIONS for at in range(ROTATIONS))
    names = {
        at: hashlib.sha256(f"{shuffle}|{question}|{at}".encode()).hexdigest()
        for at in range(ROTATIONS)
    }
    return tuple(sorted(names, key=names.__getitem__))


class PersonaMemData(Dataset):
    """An opened split.

    Raises:
        UsageError: no such split.
        DataError: files missing or broken; the message names file, question and column.
    """

    separation = "benchmark"

    def __init__(self, task: PersonaMem, split: str, data: Path | None) -> None:
        self.split = split
        self.sample = data is None
        self.params = task.params
        self.questions_path, contexts = locate(split, data)
        self.contexts = Contexts(contexts)
        table = read_questions(self.questions_path)
        self.questions = table.questions
        self.source = "bundled sample, not PersonaMem" if self.sample else str(self.questions_path)
        self.hash = digest_files([self.questions_path, contexts])
        self.defects = tuple(defects(self.questions, self.contexts))
        self.warnings = tuple(self._told(table.headers))
        self._repeats = ROTATIONS if self.params.shuffle == "rotate4" else 1
        self._cuts = lru_cache(maxsize=4)(self._conversation)
        self._index = [
            (question.id if self._repeats == 1 else f"{question.id}@{turn}", question.persona)
            for question in self.questions
            for turn in range(self._repeats)
        ]
        orders = [self._order(position) for position in range(len(self._index))]
        golds = [self.questions[at // self._repeats].gold for at in range(len(self._index))]
        self._majority = rules.majority(
            LETTERS[order.index(gold)] for order, gold in zip(orders, golds, strict=True)
        )
        self._by_type = rules.by_type(self.questions)

    def index(self) -> Sequence[tuple[str, str]]:
        return self._index

    def load(self, position: int) -> Sample:
        at = position // self._repeats
        question, order = self.questions[at], self._order(position)
        chats = self.params.records != "questions"
        sample = asked(
            self._index[position][0],
            question,
            self.split,
            order,
            self.params.template,
            self.params.accept_duplicate_gold,
            self._cuts(question.context).before(question.end) if chats else self._earlier(question),
        )
        hints = {
            "majority_letter": self._majority,
            "type_length": LETTERS[order.index(self._by_type[at])],
        }
        return msgspec.structs.replace(sample, hidden={**sample.hidden, **hints})

    def population(self) -> Iterator[User]:
        """Every persona once: the conversation with the smallest id, up to its latest cut in the whole split.

        Nothing of it where histories are questions, since these show golds.
        """
        chosen: dict[str, tuple[str, int]] = {}
        for question in self.questions:
            context, end = chosen.get(question.persona, (question.context, 0))
            if question.context < context:
                context, end = question.context, 0
            chosen[question.persona] = (
                context,
                max(end, question.end) if question.context == context else end,
            )
        for persona, (context, end) in chosen.items():
            chats = self.params.records != "questions"
            yield User(persona, self._cuts(context).before(end) if chats else ())

    def _order(self, position: int) -> tuple[int, ...]:
        at, rotation = divmod(position, self._repeats)
        return order_of(self.params.shuffle, self.questions[at].id, rotation)

    def _conversation(self, context: str) -> conversation.Cuts:
        assert self.params.records != "questions"
        return conversation.Cuts(self.contexts.turns(context), self.params.records)

    def _earlier(self, question: Question) -> tuple[Record, ...]:
        """The questions asked strictly before this one in its conversation, with their right letters."""
        before = [
            each
            for each in self.questions
            if each.context == question.context and each.end < question.end
        ]
        return tuple(self._answered(each) for each in sorted(before, key=lambda each: each.end))

    def _answered(self, question: Question) -> Record:
        letter = LETTERS[order_of(self.params.shuffle, question.id).index(question.gold)]
        fields = {"cut": str(question.end), "option": question.texts[question.gold]}
        return Record(
            question.id, conversation.bare(question.query), letter.strip("()"), fields=fields
        )

    def _told(self, headers: int) -> Iterator[str]:
        if self.params.records == "questions":
            yield "histories are earlier questions with their right letters: a control that has seen golds"
        if headers:
            yield f"{headers} repeated header lines in {self.questions_path.name} are no questions and were left out"
        if self.defects:
            yield f"the files break their own rules {len(self.defects)} times: {self.defects[0]}"
        doubled = [question.id for question in self.questions if len(question.equal) > 1]
        if doubled:
            counted = (
                "either counts as right"
                if self.params.accept_duplicate_gold
                else "only the keyed one is right"
            )
            yield f"the right text stands under two letters in {few(doubled, 3)} questions; {counted}"
        unknown = sorted(
            {question.type for question in self.questions if not scoring.known(question.type)}
        )
        if unknown:
            yield f"unknown question types, counted by themselves: {', '.join(unknown)}"
        if not self.sample:
            for path in (self.questions_path, self.contexts.path):
                expected = KNOWN.get(path.name)
                if (
                    expected is not None
                    and digest_files([path]) != hashlib.sha256(bytes.fromhex(expected)).hexdigest()
                ):
                    yield f"{path.name} is not the published version this project knows (SHA-256 {expected[:12]}...)"


def asked(
    name: str,
    question: Question,
    split: str,
    order: tuple[int, ...],
    template: str,
    accept_duplicates: bool,
    history: tuple[Record, ...],
) -> Sample:
    """A question as a sample; what only scoring may know beside the gold letter is hidden."""
    texts = [question.texts[at] for at in order]
    shown = [f"{letter} {text}" for letter, text in zip(LETTERS, texts, strict=True)]
    gold = LETTERS[order.index(question.gold)]
    rights = (
        tuple(LETTERS[order.index(at)] for at in question.equal) if accept_duplicates else (gold,)
    )
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
    options = "\n".join(shown)
    if template == "official":
        options = question.cell if order == (0, 1, 2, 3) else repr(shown)
    return Sample(
        id=name,
        user_id=question.persona,
        input=f"{question.query}\n\n{INSTRUCTION}\n\n{options}",
        stimulus=conversation.bare(question.query),
        history=history,
        references=(gold,),
        choices=LETTERS,
        attributes={"cut": str(question.end), "options": to_json(texts)},
        hidden={"facts": to_json(facts)},
    )


def facts_of(sample: Sample) -> scoring.Facts:
    """What scoring knows of a sample.

    Raises:
        DataError: the sample is a view, from which it was removed.
    """
    if "facts" not in sample.hidden:
        raise DataError(f"question {sample.id} has no references to score against")
    return msgspec.json.decode(sample.hidden["facts"], type=scoring.Facts)
