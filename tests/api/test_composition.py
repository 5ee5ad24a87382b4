"""A method inside of wrappers: names, parameters, identity, and the three places where they act."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pytest

from personabench import (
    Context,
    Memory,
    MemoryItem,
    Message,
    Method,
    Rendered,
    Sample,
    UsageError,
    Wrapper,
)
from personabench.api import registry
from personabench.api.composition import compose
from personabench.api.fidelity import list_differences
from personabench.errors import PluginError
from personabench.models.backends.scripted import Scripted
from personabench.results.run_folder import RunFolder
from personabench.run import runner
from personabench.testing import trial
from personabench.types import Request, Sampling


class Shown(Method):
    """Show the newest records, retrieved; a draft of one of them comes first."""

    name = "shown"
    needs = ("history",)

    @dataclass(frozen=True)
    class Params:
        """k: records."""

        k: int = 3

    async def predict(self, sample: Sample, state: None, ctx: Context) -> str:
        if sample.history:
            await ctx.shared().answer(ctx.task.question(sample.history[-1], like=sample))
        records = await ctx.retrieve(sample, self.params.k, "recency")
        return await ctx.answer(sample, records)


class Verbatim(Memory):
    """Keep every record."""

    name = "verbatim"
    unit = "record"

    async def start(self, ctx: Context) -> list[Any]:
        return []

    async def ingest(self, state: list[Any], batch: Any, ctx: Context) -> list[Any]:
        text = "\n".join(ctx.task.describe(record) for record in batch.records)
        return [*state, {"text": text, "ids": list(batch.record_ids)}]

    async def retrieve(
        self, state: list[Any], query: str, ctx: Context, now: str
    ) -> Sequence[MemoryItem]:
        return [MemoryItem(item["text"], item["ids"]) for item in reversed(state)]


class First(Wrapper):
    """Keep the first pieces."""

    name = "first"

    @dataclass(frozen=True)
    class Params:
        """count: pieces that are kept."""

        count: int = 1

    async def select(self, sample: Sample, texts: Sequence[str], ctx: Context) -> Sequence[int]:
        ctx.flag("pieces", len(texts))
        return range(self.params.count)


class Please(Wrapper):
    """Add a word."""

    name = "please"

    def reword(self, rendered: Rendered, sample: Sample, ctx: Context) -> Rendered:
        return rendered.with_paragraph("PLEASE.")


class Loud(Wrapper):
    """Have the answer repeated."""

    name = "loud"

    def room(self, ctx: Context) -> int:
        return 500

    async def revise(
        self, sample: Sample, answer: str, messages: Sequence[Message], ctx: Context
    ) -> str:
        again = (*messages, Message("assistant", answer), Message("user", "LOUDER"))
        return (await ctx.complete(again, max_tokens=9)).text


def contents(request: Request) -> str:
    return "\n".join(message.content for message in request.messages)


def wrapped(*wrappers: type[Wrapper], base: type[Method] = Shown, **params: Any) -> Method:
    cls = compose(base, wrappers)
    return cls(cls.Params(**params))


def run_methods(folder: Path, methods: Sequence[str], *assignments: str) -> list[runner.Outcome]:
    options = runner.Options(
        methods, ["lamp4"], limit=1, backend="scripted", results=folder, assignments=assignments
    )
    return asyncio.run(runner.run(options, backend=Scripted()))


# Where wrappers act


def test_a_request_is_changed_and_the_draft_of_a_record_is_not() -> None:
    draft, answer = trial(wrapped(Please), "lamp4", limit=1, concurrency=1).requests[:2]
    assert "PLEASE." not in contents(draft)
    assert contents(answer).endswith("PLEASE.")


def test_a_conversation_is_changed_as_well() -> None:
    full = registry.load_class("method", "full")
    result = trial(wrapped(Please, base=full), "prefeval", limit=1)
    assert len(result.requests[0].messages) > 2
    assert contents(result.requests[0]).endswith("PLEASE.")


def test_what_is_retrieved_is_chosen_from_once() -> None:
    kept = {}
    for count in (0, 1, 3):
        result = trial(wrapped(First, first_count=count), "lamp4", limit=1, concurrency=1)
        (line, *_) = result.predictions
        assert line.error is None and line.flags["pieces"] == 3
        kept[count] = contents(result.requests[1])
    bare = trial("none", "lamp4", limit=1).requests[0]
    assert kept[0] == contents(bare)
    assert len(kept[0]) < len(kept[1]) < len(kept[3])


def test_items_of_a_memory_are_chosen_from() -> None:
    whole = trial(Verbatim(), "locomo", limit=1).predictions[0]
    chosen = trial(wrapped(First, base=Verbatim), "locomo", limit=1).predictions[0]
    assert whole.flags["memory_items"] > chosen.flags["memory_items"] == 1
    assert chosen.flags["pieces"] >= whole.flags["memory_items"]


def test_a_method_that_retrieves_nothing_is_counted() -> None:
    full = registry.load_class("method", "full")
    (line,) = trial(wrapped(First, base=full), "prefeval", limit=1).predictions
    assert line.flags["nothing_to_select"] == 1


def test_an_answer_is_revised_after_the_request_that_gave_it() -> None:
    def answer(request: Request) -> str:
        return f"{len(request.messages)} messages"

    result = trial(wrapped(Please, Loud), "lamp4", limit=1, answer=answer, concurrency=1)
    _, first, second = result.requests[:3]
    assert second.messages[:-2] == first.messages
    assert second.messages[-2].content == f"{len(first.messages)} messages"
    assert result.predictions[0].output == f"{len(second.messages)} messages"


def test_a_revision_has_room_in_the_window() -> None:
    plain = trial(wrapped(Please, k=8), "lamp4", limit=1, window=1200).predictions[0].flags
    loud = trial(wrapped(Loud, k=8), "lamp4", limit=1, window=1200).predictions[0].flags
    assert loud.get("records_dropped", 0) > plain.get("records_dropped", 0)


def test_wrappers_act_in_the_order_of_their_names() -> None:
    result = trial("rag+cot+remind", "lamp4", limit=1)
    text = contents(result.requests[0])
    assert text.index("Five examples") < text.rindex("Keep in mind")


# Names, parameters, identity


def test_a_composed_method_is_described() -> None:
    cls = registry.load_class("method", "rag+self_critic")
    assert (cls.name, cls.composed_of) == ("rag+self_critic", ("rag", "self_critic"))
    assert registry.load_class("method", "rag+self_critic") is cls
    assert issubclass(cls, registry.load_class("method", "rag"))
    assert "2304.11406" in cls.paper and "2502.09597" in cls.paper
    names = [field.name for field in dataclasses.fields(cls.Params)]
    assert names[:2] == ["k", "retriever"] and names[-1] == "self_critic_critique_tokens"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("rag+remnid", "no wrapper named 'remnid'; did you mean remind"),
        ("rga+remind", "no method named 'rga'; did you mean rag"),
        ("remind+rag", "'rag' is a method and no wrapper; the method stands first"),
        ("rag+remind+remind", "'remind' is in it twice"),
        ("remind+remind", "'remind' is in it twice"),
        ("rag+", "write METHOD[+]WRAPPER"),
        ("none+self_recheck", "'none' uses no history"),
        ("constant+remind", "'constant' is a rule that calls no model"),
    ],
)
def test_parts_that_do_not_fit_are_refused_in_words(name: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        registry.load_class("method", name)


def test_parameters_are_addressed_by_part_and_by_whole_name(tmp_path: Path) -> None:
    methods = ["rag", "rag+self_critic"]
    settings = ("rag.k=2", "self_critic.critique_tokens=30", "rag+self_critic.k=3")
    plain, critic = run_methods(tmp_path, methods, *settings)
    assert RunFolder(plain.folder).spec().params["k"] == 2
    params = RunFolder(critic.folder).spec().params
    assert (params["k"], params["self_critic_critique_tokens"]) == (3, 30)
    assert critic.folder.parts[-3] == "rag+self_critic"

    with pytest.raises(UsageError, match="no parameter 'self_critic_tokens'"):
        run_methods(tmp_path, methods, "self_critic.tokens=30")
    with pytest.raises(UsageError, match="'remind' is not part of this run"):
        run_methods(tmp_path, methods, "remind.k=3")


def test_the_identity_of_a_run_covers_method_and_wrapper(tmp_path: Path) -> None:
    """The parameters of both, and the source of both, but not the place of a file."""
    hashes = set()
    for number, (word, count) in enumerate([("a", 1), ("b", 1), ("a", 2)]):
        folder = tmp_path / str(number)
        folder.mkdir()
        (folder / "mine.py").write_text(METHOD.format(count=count))
        (folder / "polite.py").write_text(WRAPPER.format(word=word))
        cls = registry.load_class("method", f"{folder / 'mine.py'}+{folder / 'polite.py'}")
        assert cls.name == "mine+polite"
        hashes.add(registry.source_hash(cls))
    again = tmp_path / "again"
    again.mkdir()
    (again / "mine.py").write_text(METHOD.format(count=2))
    (again / "polite.py").write_text(WRAPPER.format(word="a"))
    cls = registry.load_class("method", f"{again / 'mine.py'}+{again / 'polite.py'}")
    assert len(hashes) == 3 and registry.source_hash(cls) in hashes

    folders = {
        outcome.folder
        for settings in ((), ("k=2",), ("self_critic.critique_tokens=9",))
        for outcome in run_methods(tmp_path, ["rag+self_critic"], *settings)
    }
    assert len(folders) == 3


METHOD = """
from personabench import Method


class Mine(Method):
    name = "mine"

    async def predict(self, sample, state, ctx):
        return await ctx.answer(sample, sample.history[-{count}:])
"""
WRAPPER = """
from personabench import Wrapper


class Polite(Wrapper):
    name = "polite"

    def reword(self, rendered, sample, ctx):
        return rendered.with_paragraph("{word}")
"""


def test_a_need_that_a_parameter_takes_back_stays_taken_back() -> None:
    class Choosy(Shown):
        name = "choosy"
        needs = ("history", "dates")

        def requirements(self) -> set[str]:
            return super().requirements() - {"dates"}

    class Labelled(Please):
        name = "labelled"
        needs = ("labels",)

    method = wrapped(Labelled, base=Choosy)
    assert method.needs == ("history", "dates", "labels")
    assert method.requirements() == {"history", "labels"}


def test_a_file_may_hold_a_method_and_a_wrapper(tmp_path: Path) -> None:
    path = tmp_path / "both.py"
    path.write_text(METHOD.format(count=1) + WRAPPER.format(word="PLEASE"))
    assert registry.load_class("method", f"{path}+{path}").name == "mine+polite"
    cls = registry.load_class("method", f"{path}:Mine+{path}:Polite")
    assert contents(trial(cls(), "lamp4", limit=1).requests[0]).endswith("PLEASE")


def test_an_installed_wrapper_is_known_by_its_entry_point(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "installed_wrapper.py").write_text(WRAPPER.format(word="PLEASE"))
    monkeypatch.syspath_prepend(str(tmp_path))
    points = [EntryPoint("polite", "installed_wrapper:Polite", "personabench.wrappers")]
    monkeypatch.setattr(
        registry, "_find_entry_points", lambda kind: points if kind == "wrapper" else []
    )
    assert registry.load_class("method", "rag+polite").name == "rag+polite"
    assert {"polite", "remind"} <= registry.list_entries("wrapper").keys()


def test_a_plus_sign_in_a_path_is_no_wrapper(tmp_path: Path) -> None:
    folder = tmp_path / "a+b"
    folder.mkdir()
    (folder / "mine.py").write_text(METHOD.format(count=1))
    assert registry.load_class("method", str(folder / "mine.py")).name == "mine"


def test_a_method_inside_of_a_wrapper_is_never_faithful() -> None:
    method = registry.load_class("method", "rag+remind")()
    task = registry.load_class("task", "lamp4")()
    dataset = task.open(task.default_split, None)
    differences = list_differences(method, task, dataset, Sampling(), "own")
    assert differences == ["inside of remind"]


def test_faults_of_a_wrapper_are_explained() -> None:
    class Broken(Wrapper):
        name = "broken"

        def reword(self, rendered: Rendered, sample: Sample, ctx: Context) -> Any:
            return "text"

    (line, *_) = trial(wrapped(Broken), "lamp4", limit=1).predictions
    assert line.error is not None and "Broken.reword" in line.error
    assert "expected a `Rendered`" in line.error


def test_a_wrapper_needs_a_name_that_parameters_can_begin_with(tmp_path: Path) -> None:
    path = tmp_path / "odd.py"
    path.write_text(WRAPPER.format(word="a").replace('"polite"', '"so-so"'))
    with pytest.raises(PluginError, match="a name of letters, digits and _"):
        registry.load_class("method", f"rag+{path}")
