"""One attempt at a sample: the contexts that make its calls, and the prediction it becomes.

The engine decides when a sample's turn comes.  It hands an `Attempt` to the method and the task,
whatever the protocol; an attempt brings together the calls of the model under test and of the
simulator.
"""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from personabench.api.context import Context
from personabench.api.dataset import Dataset
from personabench.api.shown import list_shown
from personabench.api.task import JsonObject
from personabench.models.roles import Caller, Role
from personabench.types import Call, Prediction, Record, Sample, Usage, to_json


@dataclass
class Attempt:
    """Everything that makes calls for a sample.

    Attributes:
        ctx: the method when it answers.
        create_simulator: creates the simulated user's role.
        create_learning: creates the context of the method when it learns from feedback.
        windows: the windows that prompts were fitted to, by model that the method calls.
        profile: the key of the user's profile that the answer was made with.
        history: the records that the method got, if a dialogue changed those of the sample.
        is_too_long: the server refused a prompt and said how long it may be.
    """

    ctx: Context
    create_simulator: Callable[[], Role]
    create_learning: Callable[[], Context]
    windows: Sequence[int | None]
    profile: str | None = None
    history: tuple[Record, ...] | None = None
    is_too_long: bool = False

    # Most samples need neither, and there may be thousands a second.
    @functools.cached_property
    def simulator(self) -> Role:
        """The simulated user."""
        return self.create_simulator()

    @functools.cached_property
    def learning(self) -> Context:
        """The method when it learns from feedback."""
        return self.create_learning()

    @property
    def _callers(self) -> list[Caller]:
        """The method and those others that took part, in the order of their calls in a line."""
        created = vars(self)
        others = [created[name] for name in ("simulator", "learning") if name in created]
        return [self.ctx, *others]

    @property
    def notes(self) -> dict[str, Any]:
        """Notes of the method about its own work."""
        contexts = [caller for caller in self._callers if isinstance(caller, Context)]
        return {name: value for ctx in contexts for name, value in ctx.notes.items()}

    def list_shown(self, sample: Sample) -> tuple[str, ...] | None:
        """List the records that the model saw: those that the method cites, or those recognized.

        None if the method cannot tell.
        """
        history = sample.history if self.history is None else self.history
        cited = self.ctx.cited
        if cited is None:
            return list_shown(history, self.ctx.sent, sample)
        if cited.record_ids is None:
            return None
        visible = {record.id for record in history}
        return tuple(record_id for record_id in cited.record_ids if record_id in visible)

    def read_answer(self, answer: str) -> str:
        """Return the text that is scored: in a raw reading, the whole reply that the answer was.

        The method sees no thoughts, and an answer that it made from several replies has none.
        """
        raw = self.ctx.raw_replies.get(answer.strip(), answer)
        if raw.strip() == answer.strip():
            return answer
        self.ctx.flag("read_raw")
        return raw

    def prediction(
        self,
        sample: Sample,
        output: str | None,
        parsed: str | None,
        interaction: JsonObject,
        shown: tuple[str, ...] | None,
        error: str | None,
        attempts: int,
    ) -> Prediction:
        """The sample's prediction; a failed one has neither answer nor interaction."""
        flags: dict[str, float] = {}
        calls: list[Call] = []
        method_calls: list[Call] = []
        for caller in self._callers:
            for name, amount in caller.flags.items():
                flags[name] = flags.get(name, 0) + amount
            calls += caller.calls
            # Calls of a simulator are listed, but they are no cost of the method.
            if isinstance(caller, Context):
                method_calls += [call for call in caller.calls if not call.profiler]
        # A record that holds the answer must not fall out of a window silently.
        if "over_window" in flags and shown is not None:
            lost = set(sample.evidence).difference(shown)
            if lost:
                flags["evidence_dropped"] = len(lost)

        usage = Usage(
            sum(call.input_tokens for call in method_calls),
            sum(call.output_tokens for call in method_calls),
            sum(call.cached_tokens for call in method_calls),
            sum(call.reasoning_tokens or 0 for call in method_calls) or msgspec.UNSET,
            sum(call.cache_write_tokens or 0 for call in method_calls) or msgspec.UNSET,
        )
        if error is not None:
            output, parsed, interaction, shown = None, None, {}, None
        return Prediction(
            sample_id=sample.id,
            user_id=sample.user_id,
            output=output,
            parsed=parsed,
            flags=flags,
            calls=tuple(calls),
            usage=usage,
            error=error,
            attempts=attempts,
            profile=self.profile,
            interaction=interaction,
            shown=shown,
        )


Act = Callable[[Sample, Attempt], Awaitable[tuple[str, Mapping[str, Any]]]]
"""How a protocol answers a sample: returns the final answer and the interaction."""


class SingleSamples(Sequence[Sequence[int]]):
    """Positions as batches of one, without a list for each."""

    def __init__(self, positions: Sequence[int]) -> None:
        self._positions = positions

    def __len__(self) -> int:
        return len(self._positions)

    def __getitem__(self, index: Any) -> Any:
        return (self._positions[index],)


def group_by_user(dataset: Dataset, positions: Sequence[int]) -> list[list[int]]:
    """Positions in groups of one user, in the order given."""
    groups: dict[str, list[int]] = {}
    for position in positions:
        user = dataset.index()[position][1]
        groups.setdefault(user, []).append(position)
    return list(groups.values())


def comes_from_models(error: BaseException) -> bool:
    """Whether the code of models and their servers raised an error.

    If a call failed, the work can go on from the replies so far. With an error of a method or a
    task, which may have refused the replies, the same replies would fail again.
    """
    trace = error.__traceback__
    module = ""
    while trace is not None:
        module = trace.tb_frame.f_globals.get("__name__", "")
        trace = trace.tb_next
    return module.startswith("personabench.models")


def require_text(answer: Any) -> str:
    """The answer of a method, checked.

    Raises:
        TypeError: it is not text.
    """
    if not isinstance(answer, str):
        raise TypeError(f"predict() returned {type(answer).__name__}, not text")
    return answer


def plain(value: Any) -> Any:
    """A value as it would be read back from disk."""
    return msgspec.json.decode(to_json(value))
