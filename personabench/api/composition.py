"""Methods made of a method and wrappers: `rag+remind` is the method `rag` inside of `remind`.

A composed class derives from the method's class, so that the engine sees a method like any other.
Its parameters are the method's and those of the wrappers, with the wrapper's name in front.
"""

from __future__ import annotations

import dataclasses
import inspect
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, get_type_hints

from personabench.api.context import Context
from personabench.api.guard import create, params_of
from personabench.api.memory import Memory
from personabench.api.memory_items import MemoryItem
from personabench.api.method import Method, State
from personabench.api.prompts import PromptFile
from personabench.api.source import ENGINE, source_hash
from personabench.api.wording import Rendered, Wording, WordingView
from personabench.api.wrapper import Wrapper
from personabench.errors import UsageError
from personabench.hashing import digest
from personabench.models.tokens import Tokens
from personabench.types import Message, Record, Response, Sample

JOINT = "+"
_MEANING = re.compile(r"((?:\w+, )*\w+)(: .+)")


class WrappedWording(WordingView):
    """A task's wording in which wrappers change the requests for one question.

    Args:
        wording: the wording as the method would get it.
        reword: changes a request.
        sample_id: the question's id; drafts of other questions stay as they are.
    """

    def __init__(
        self, wording: Wording, reword: Callable[[Rendered, Sample], Rendered], sample_id: str
    ) -> None:
        super().__init__(wording)
        self._reword = reword
        self._sample_id = sample_id

    def _wrap(self, rendered: Rendered, sample: Sample) -> Rendered:
        return self._reword(rendered, sample) if sample.id == self._sample_id else rendered

    def render(
        self, sample: Sample, records: Sequence[Record], notes: str, tokens: Tokens
    ) -> Rendered:
        """Word the request and have the wrappers change it."""
        return self._wrap(super().render(sample, records, notes, tokens), sample)

    def render_content(
        self, sample: Sample, records: Sequence[Record], notes: str, tokens: Tokens
    ) -> Rendered | None:
        """Word the request without the form of the answer and have the wrappers change it."""
        rendered = super().render_content(sample, records, notes, tokens)
        return None if rendered is None else self._wrap(rendered, sample)

    def chat(self, sample: Sample, records: Sequence[Record]) -> Rendered | None:
        """Render the conversation and have the wrappers change it."""
        rendered = super().chat(sample, records)
        return None if rendered is None else self._wrap(rendered, sample)


class WrappedContext(Context):
    """The context of a method for one question, whose calls wrappers see.

    Artifacts and profiling (`shared`, `profiling`) are not the question's and stay as they are.

    Attributes:
        replies: the requests with their replies, in the order of the replies.
        selections: the number of retrievals that went through `select`.
    """

    def __init__(self, ctx: Context, sample: Sample, wrappers: Sequence[Wrapper]) -> None:
        # What is collected (calls, flags, notes) is collected with those of the plain context.
        vars(self).update(vars(ctx))
        self._plain = ctx
        self._sample = sample
        self._wrappers = wrappers
        self._room = sum(wrapper.room(ctx) for wrapper in wrappers)
        self._kept: dict[tuple[str, str], bool] = {}
        self.task = WrappedWording(ctx.task, self._reword, sample.id)
        self.replies: list[tuple[tuple[Message, ...], str]] = []
        self.selections = 0

    def shared(self) -> Context:
        """Return the plain context for artifacts."""
        return self._plain.shared()

    def profiling(self) -> Context:
        """Return the plain context for profiling work."""
        return self._plain.profiling()

    def _reword(self, rendered: Rendered, sample: Sample) -> Rendered:
        for wrapper in self._wrappers:
            rendered = wrapper.reword(rendered, sample, self._plain)
        return rendered

    def count_excess_tokens(self, messages: Sequence[Message], max_tokens: int) -> int:
        """Count as `Context` does, with the room that the wrappers need for further turns."""
        return super().count_excess_tokens(messages, max_tokens + self._room)

    async def complete(self, messages: Sequence[Message], **options: Any) -> Response:
        """Call the model as `Context` does, and remember the request."""
        response = await super().complete(messages, **options)
        self.replies.append((tuple(messages), response.text.strip()))
        return response

    async def retrieve(self, sample: Sample, *args: Any, **options: Any) -> list[Record]:
        """Retrieve as `Context` does; the wrappers choose what stays."""
        records = await super().retrieve(sample, *args, **options)
        # What is retrieved for a draft of another question is not this question's.
        return await self._select_records(records) if sample.id == self._sample.id else records

    async def answer(self, sample: Sample, records: Sequence[Record] = (), notes: str = "") -> str:
        """Answer as `Context` does, with those records that the wrappers let through."""
        if sample.id == self._sample.id:
            records = await self._select_records(records)
        return await super().answer(sample, records, notes)

    async def _select_records(self, records: Sequence[Record]) -> list[Record]:
        # A record that was retrieved and is then shown is judged once.
        fresh = {_identify(record): record for record in records}
        fresh = {key: record for key, record in fresh.items() if key not in self._kept}
        texts = [self.task.describe(record) for record in fresh.values()]
        kept = set(await self.select(texts))
        for position, key in enumerate(fresh):
            self._kept[key] = position in kept
        return [record for record in records if self._kept[_identify(record)]]

    async def select(self, texts: Sequence[str]) -> list[int]:
        """Return the positions of the pieces that all wrappers keep, in order."""
        kept = list(range(len(texts)))
        for wrapper in self._wrappers:
            if not wrapper.acts("select") or not kept:
                continue
            self.selections += 1
            offered = [texts[position] for position in kept]
            chosen = await wrapper.select(self._sample, offered, self._plain.choosing())
            inside = {position for position in chosen if 0 <= position < len(kept)}
            kept = [kept[position] for position in sorted(inside)]
        return kept

    def request_for(self, answer: str) -> tuple[Message, ...]:
        """Return the request whose reply is the answer, else the last one; empty without any."""
        matching = [messages for messages, reply in self.replies if reply == answer]
        requests = matching or [messages for messages, _ in self.replies]
        return requests[-1] if requests else ()


def _identify(record: Record) -> tuple[str, str]:
    # Records of two users may have one id.
    return record.id, record.response


class _Composed(Method):
    """A method inside of wrappers; the method's class follows in the order of resolution."""

    wrapper_classes: ClassVar[Sequence[type[Wrapper]]] = ()

    def __init__(self, params: Any = None) -> None:
        chosen_params = params if params is not None else self.Params()
        super().__init__(chosen_params)
        # A method may keep parameters of its own class, which have none of the wrappers'.
        if not isinstance(self.params, self.Params):
            self.params = chosen_params
        self.wrappers = tuple(
            create(cls, _wrapper_params(cls, chosen_params)) for cls in self.wrapper_classes
        )

    async def predict(self, sample: Sample, state: State, ctx: Context) -> str:
        """Answer as the method does, in a context that the wrappers watch, and revise that."""
        wrapped = WrappedContext(ctx, sample, self.wrappers)
        try:
            answer = await super().predict(sample, state, wrapped)  # type: ignore[safe-super]
        finally:
            ctx.cited = wrapped.cited
            ctx.is_storable &= wrapped.is_storable

        selects = any(wrapper.acts("select") for wrapper in self.wrappers)
        if selects and sample.history and not wrapped.selections:
            ctx.flag("nothing_to_select")
        messages = wrapped.request_for(answer)
        for wrapper in self.wrappers:
            if not wrapper.acts("revise"):
                continue
            if not messages:
                ctx.flag("nothing_to_revise")
                continue
            answer = await wrapper.revise(sample, answer, messages, ctx)
        return answer

    def requirements(self) -> set[str]:
        """Return the needs of the method and of the wrappers."""
        return super().requirements().union(*(cls.needs for cls in self.wrapper_classes))


class _ComposedMemory(_Composed):
    """A memory inside of wrappers, which choose among the items that it retrieves."""

    # It derives from no `Memory`, whose abstract methods would come before the memory's own.

    async def retrieve(
        self, state: State, query: str, ctx: Context, now: str
    ) -> Sequence[MemoryItem]:
        """Retrieve as the memory does; the wrappers choose what stays."""
        items: Sequence[MemoryItem]
        items = await super().retrieve(state, query, ctx, now)  # type: ignore[misc]
        if not isinstance(ctx, WrappedContext):
            return items
        kept = await ctx.select([item.text for item in items])
        return [items[position] for position in kept]


# One class for the same parts, as there is one for a name.
_composed: dict[tuple[type[Any], ...], type[Method]] = {}


def compose(base: type[Method], wrappers: Sequence[type[Wrapper]]) -> type[Method]:
    """Return the class of a method inside of wrappers, the first of which acts first.

    Raises:
        UsageError: a wrapper that is in it twice, or that has nothing to act on.
    """
    key = (base, *wrappers)
    if key not in _composed:
        _check_fit(base, wrappers)
        _composed[key] = _make_class(base, wrappers)
    return _composed[key]


def _make_class(base: type[Method], wrappers: Sequence[type[Wrapper]]) -> type[Method]:
    parts = (base.name, *(wrapper.name for wrapper in wrappers))
    kind = _ComposedMemory if issubclass(base, Memory) else _Composed
    needs = dict.fromkeys([*base.needs, *(need for cls in wrappers for need in cls.needs)])
    papers = [base.paper, *(wrapper.paper for wrapper in wrappers)]
    attributes: dict[str, Any] = {
        "name": JOINT.join(parts),
        "composed_of": parts,
        "paper": "; ".join(dict.fromkeys(paper for paper in papers if paper)),
        "needs": tuple(needs),
        "designed_for": (),
        "prompts": _list_prompts(base, wrappers),
        "wrapper_classes": wrappers,
        "Params": _join_params(base, wrappers),
        # The source hash of a class follows its bases, of which the wrappers are none.
        "code": digest([getattr(base, "code", ""), *map(_identify_wrapper, wrappers)]),
        "__doc__": _describe(base, wrappers),
        "__module__": _choose_module(base, wrappers),
    }
    if issubclass(base, Memory):
        parameter_keys = [_key(cls, field.name) for cls in wrappers for field in _fields(cls)]
        attributes["retrieval_params"] = (*base.retrieval_params, *parameter_keys)
    composed: type[Method] = type(f"{base.__name__}Wrapped", (kind, base), attributes)
    return composed


def select_params(cls: type[Method], parameters: Mapping[str, Mapping[str, str]]) -> dict[str, str]:
    """Return the parameters that are addressed to a method: to its parts, then to its name."""
    texts: dict[str, str] = {}
    for number, part in enumerate(cls.composed_of):
        for name, text in parameters.get(part, {}).items():
            texts[f"{part}_{name}" if number else name] = text
    return {**texts, **parameters.get(cls.name, {})}


def _check_fit(base: type[Method], wrappers: Sequence[type[Wrapper]]) -> None:
    name = JOINT.join([base.name, *(wrapper.name for wrapper in wrappers)])
    parts = [*(base.composed_of or (base.name,)), *(wrapper.name for wrapper in wrappers)]
    repeated = [part for part in parts if parts.count(part) > 1]
    if repeated:
        raise UsageError(f"method {name}: '{repeated[0]}' is in it twice; name each part once")
    if base.rule:
        raise UsageError(
            f"method {name}: '{base.name}' is a rule that calls no model, so that "
            f"{wrappers[0].name} has no request to act on; wrap a method that calls the model"
        )
    learns = any({"history", "feedback"} & set(need.split("|")) for need in base.needs)
    for wrapper in wrappers:
        if wrapper.acts("select") and not learns:
            raise UsageError(
                f"method {name}: {wrapper.name} chooses among retrieved records, and "
                f"'{base.name}' uses no history; wrap a method that retrieves, such as a memory"
            )


def _identify_wrapper(wrapper: type[Wrapper]) -> list[Any]:
    return [wrapper.name, wrapper.version, source_hash(wrapper)]


def _list_prompts(
    base: type[Method], wrappers: Sequence[type[Wrapper]]
) -> Sequence[PromptFile] | None:
    files = [file for wrapper in wrappers for file in wrapper.prompts]
    return tuple(dict.fromkeys([*(base.prompts or ()), *files])) or None


def _fields(wrapper: type[Wrapper]) -> Sequence[dataclasses.Field[Any]]:
    return dataclasses.fields(params_of(wrapper))


def _key(wrapper: type[Wrapper], name: str) -> str:
    return f"{wrapper.name}_{name}"


def _join_params(base: type[Method], wrappers: Sequence[type[Wrapper]]) -> type[Any]:
    """The parameters of a method and its wrappers as one dataclass.

    Raises:
        UsageError: two parameters have one name.
    """
    params = params_of(base)
    names = {field.name for field in dataclasses.fields(params)}
    fields = []
    meanings = [inspect.getdoc(params) or ""]
    for wrapper in wrappers:
        kinds = get_type_hints(wrapper.Params)
        for field in _fields(wrapper):
            key = _key(wrapper, field.name)
            if key in names:
                raise UsageError(
                    f"method {base.name}{JOINT}{wrapper.name}: both have a parameter '{key}'; "
                    "rename one in its code"
                )
            names.add(key)
            fields.append((key, kinds[field.name], _copy_default(field)))
        meanings.append(_prefix_meanings(wrapper))
    joined = dataclasses.make_dataclass("Params", fields, bases=(params,), frozen=True)
    joined.__doc__ = "\n".join(meanings)
    joined.__module__ = params.__module__
    return joined


def _copy_default(field: dataclasses.Field[Any]) -> Any:
    if field.default_factory is not dataclasses.MISSING:
        return dataclasses.field(default_factory=field.default_factory)
    return dataclasses.field(default=field.default)


def _prefix_meanings(wrapper: type[Wrapper]) -> str:
    """The lines `name: meaning` of a wrapper's parameters, with its name in front."""

    def prefix(match: re.Match[str]) -> str:
        names = [_key(wrapper, name) for name in match[1].split(", ")]
        return ", ".join(names) + match[2]

    documentation = inspect.getdoc(wrapper.Params) or ""
    return "\n".join(_MEANING.sub(prefix, line, count=1) for line in documentation.splitlines())


def _wrapper_params(wrapper: type[Wrapper], params: Any) -> Any:
    values = {field.name: getattr(params, _key(wrapper, field.name)) for field in _fields(wrapper)}
    return wrapper.Params(**values)


def _describe(base: type[Method], wrappers: Sequence[type[Wrapper]]) -> str:
    classes: list[type[Any]] = [base, *wrappers]
    lines = [(inspect.getdoc(cls) or "").partition("\n")[0] for cls in classes]
    return " ".join(f"{cls.name}: {line}" for cls, line in zip(classes, lines, strict=True))


def _choose_module(base: type[Method], wrappers: Sequence[type[Wrapper]]) -> str:
    """The module of the first part that is not built in, by which faults are located."""
    modules = [cls.__module__ for cls in (base, *wrappers)]
    foreign = [module for module in modules if module.partition(".")[0] != ENGINE]
    return (foreign or modules)[0]
