"""ALOE: does a model adapt to its user in the course of a conversation?

"Aligning LLMs with Individual Preferences via Interaction" (arXiv 2410.03642), evaluation alone.  A
simulated user with hidden facts and a hidden manner talks with the model under test; a judge scores
how well each reply is tailored.  The curve of scores over turns shows whether the model learns.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import msgspec

from personabench.api.context import Context
from personabench.api.dataset import Dataset
from personabench.api.dialogue import DialogueTask, Reply
from personabench.api.judged import JudgedTask
from personabench.api.layout import Layout, Parts, arrange, check_layout
from personabench.api.rows import NoDataError
from personabench.api.task import JsonObject
from personabench.api.wording import Rendered, Vocabulary
from personabench.hashing import digest
from personabench.metrics.metric import Value
from personabench.models.roles import Role
from personabench.models.tokens import Tokens
from personabench.tasks.aloe import judging, scoring
from personabench.tasks.aloe.files import read_cases
from personabench.tasks.aloe.wording import OPENING, clean_message, word_role
from personabench.types import Message, Record, Sample, Try

__all__ = ["Aloe"]

SIMULATOR_TOKENS = 300
_HEADING = "From earlier in this conversation:"


class Aloe(DialogueTask, JudgedTask):
    """Talk with a user whose facts and manner come to light turn by turn."""

    name = "aloe"
    title = "ALOE: adapt to a user in the course of a conversation"
    kind = "text"
    # What was said earlier in the conversation is the history of a turn.
    offers = ("history", "dialogue")
    source = "the setting of arXiv 2410.03642; its data have no licence and are not downloaded"
    licence = "of the data that are named with --data"
    default_split = "all"
    max_tokens = 300
    scorers = ("official",)
    protocol = "dialogue"
    roles = ("simulator", "judge")
    judge_content = judging.PROMPT
    metrics = scoring.METRICS
    words = Vocabulary(
        person="user",
        stimulus="message",
        response="reply",
        profile_question=(
            "Who is this user, what do they care about, and in which manner do they talk and want "
            "to be talked to?"
        ),
        instruction="Reply to the user.",
        goal="Reply to the user.",
        answer_form="the reply to the user",
    )

    @dataclasses.dataclass(frozen=True)
    class Params(Layout):
        """Options of the task, beside those of the layout.

        Attributes:
            turns: turns of a conversation, 2 to 10.
            profiles, personalities: the first so many of each are combined.
            simulator_temperature: of the simulated user; the release leaves it to the server.
        """

        turns: int = scoring.MAX_TURNS
        profiles: int = 20
        personalities: int = 5
        simulator_temperature: float = 1.0

        def __post_init__(self) -> None:
            check_layout(self, turns="the conversation is shown as turns in any case")
            if not 2 <= self.turns <= scoring.MAX_TURNS:
                raise ValueError(f"turns is a number from 2 to {scoring.MAX_TURNS}")
            if self.profiles < 1 or self.personalities < 1:
                raise ValueError("profiles and personalities are numbers of texts, at least 1")
            if not 0 <= self.simulator_temperature <= 2:
                raise ValueError("simulator_temperature is a number from 0 to 2")

    params: Params

    def open(self, split: str, data: Path | None) -> Dataset:
        dataset = super().open(split, data)
        if data is None:
            dataset.source = "example data, not ALOE"
        return dataset

    def load(self, split: str, data: Path | None) -> Iterator[Sample]:
        if data is None:
            raise NoDataError(f"the example data of {self.name} are missing; name a folder")
        params = self.params
        for case in read_cases(data, params.profiles, params.personalities):
            yield Sample(
                case.id,
                user_id=case.id,
                # What the simulated user gets in place of a first reply, alike for all cases.
                input=OPENING,
                hidden={"profile": case.profile, "personality": case.personality},
            )

    def render(
        self, sample: Sample, records: Sequence[Record], notes: str, tokens: Tokens
    ) -> Rendered:
        """Word a turn: notes and chosen exchanges as system message, then the conversation."""
        # What the conversation below holds is not shown twice.
        visible = {message.content for message in sample.dialogue}
        listed = [record for record in records if record.stimulus not in visible]
        parts = Parts(
            question=sample.input,
            notes=f"About this user:\n{notes}" if notes else "",
            records=listed,
            word_turn=self.describe,
            word_list=self._list_exchanges,
        )
        *known, turn = arrange(parts, self.params, "list")
        return Rendered((*known, *sample.dialogue, turn), tuple(records))

    def _list_exchanges(self, records: Sequence[Record]) -> str:
        return "\n\n".join([_HEADING, *(self.describe(record) for record in records)])

    def render_content(
        self, sample: Sample, records: Sequence[Record], notes: str, tokens: Tokens
    ) -> Rendered:
        """See `Wording`; a turn states no form of its reply."""
        return self.render(sample, records, notes, tokens)

    def describe(self, record: Record) -> str:
        return f"User: {record.stimulus}\nAssistant: {record.response}"

    def document_text(self, record: Record) -> str:
        return f"{record.stimulus} {record.response}"

    def parse(self, output: str, sample: Sample, scorer: str) -> str | None:
        """The last reply; None for an empty one."""
        return output.strip() or None

    def measure(self, parsed: str | None, sample: Sample) -> Mapping[str, Value]:
        """No metric: all of them come from the judge."""
        return {}

    async def converse(
        self, sample: Sample, reply: Reply, ctx: Context, simulator: Role
    ) -> tuple[str, JsonObject]:
        """Lead the conversation; a user with nothing to say twice in a row ends it, counted."""
        turns: list[dict[str, str]] = []
        for _ in range(self.params.turns):
            message = await self._speak(sample, turns, simulator)
            if not message:
                simulator.flag("simulator_empty")
                break
            output = await reply(_make_turn(sample, turns, message))
            turns.append({"user": message, "reply": output.strip()})
        interaction = {
            "turns": turns,
            "simulator_temperature": self.params.simulator_temperature,
        }
        return turns[-1]["reply"] if turns else "", interaction

    async def _speak(
        self, sample: Sample, turns: Sequence[Mapping[str, str]], simulator: Role
    ) -> str:
        """The user's next message, requested once more if nothing is left of it."""
        role = word_role(sample.hidden["profile"], sample.hidden["personality"])
        messages = [Message("system", role), Message("user", sample.input)]
        for turn in turns:
            messages.append(Message("assistant", turn["user"]))
            messages.append(Message("user", turn["reply"] or "(no reply)"))

        message = ""
        for attempt in range(2):
            text = await simulator.complete(
                messages,
                max_tokens=SIMULATOR_TOKENS,
                temperature=self.params.simulator_temperature,
                repeat=attempt,
                accept=lambda reply: bool(clean_message(reply)),
                attempt=Try(attempt, 2),
            )
            message = clean_message(text)
            if message:
                break
        return message

    async def assess(
        self, sample: Sample, output: str, interaction: JsonObject, judge: Role
    ) -> JsonObject | None:
        """Judge each turn by itself; None if no turn could be judged."""
        scores: list[int | None] = []
        for turn in interaction["turns"]:
            judged = await judging.judge_reply(
                judge,
                sample.hidden["profile"],
                sample.hidden["personality"],
                turn["user"],
                turn["reply"],
            )
            if judged.attempts > 1:
                judge.flag("judge_retried", judged.attempts - 1)
            if judged.value is None:
                judge.flag("turns_unjudged")
            scores.append(judged.value)
        if all(score is None for score in scores):
            return None
        return {"scores": scores}

    def measure_interaction(
        self, interaction: JsonObject, assessment: JsonObject | None, sample: Sample
    ) -> Mapping[str, Value]:
        return scoring.make_values(assessment["scores"], self.params.turns) if assessment else {}


def _make_turn(sample: Sample, turns: Sequence[Mapping[str, str]], message: str) -> Sample:
    """A variant of a sample for one turn, with the conversation as dialogue and as history."""
    dialogue: list[Message] = []
    history = []
    for number, turn in enumerate(turns, start=1):
        dialogue.append(Message("user", turn["user"]))
        dialogue.append(Message("assistant", turn["reply"] or "(no reply)"))
        content = digest([turn["user"], turn["reply"]])[:8]
        history.append(
            Record(
                f"turn-{number:02d}-{content}",
                stimulus=turn["user"],
                response=turn["reply"] or "(no reply)",
            )
        )
    return msgspec.structs.replace(
        sample,
        input=message,
        stimulus=message,
        dialogue=tuple(dialogue),
        history=tuple(history),
    )
