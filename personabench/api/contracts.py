"""Contracts of plugin code: the results that the engine expects, method by method.

The classes that plugins derive from pass every subclass to `guard_methods`, which wraps the methods
listed here: their exceptions and wrong results end as a `PluginError` (see `guard`), whoever calls
them.  A check returns the fault of a result as a clause, such as "it returned None".
"""

from __future__ import annotations

import functools
import inspect
import math
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import FunctionType
from typing import Any

import msgspec

from personabench.api.guard import describe_value, explain_failure, explain_result, is_fault
from personabench.api.memory_items import MemoryItem
from personabench.metrics.evidence import EVIDENCE
from personabench.metrics.metric import Metric
from personabench.types import Message, Record, Sample, User

Check = Callable[[Any, Any], str]
"""From the plugin and a result, what is wrong with it, as a clause; empty if nothing is."""


@dataclass(frozen=True)
class Contract:
    """The result that a method of a plugin has to return.

    Attributes:
        expected: the result in words, after "expected".
        check: checks a result, or one item of it if the method `yields`.
        waits: whether it is written `async def`.
        yields: whether its result is iterated.
    """

    expected: str
    check: Check
    waits: bool = False
    yields: bool = False


def guard_methods(cls: type[Any], contracts: Mapping[str, Contract]) -> None:
    """Guard those methods of a class that have a contract, its own and those of its mixins."""
    for stage, contract in contracts.items():
        for base in cls.__mro__:
            if stage in base.__dict__:
                break
        else:
            continue

        attribute = base.__dict__[stage]
        function = getattr(attribute, "__func__", attribute)
        if isinstance(function, FunctionType) and not hasattr(function, "guarded_stage"):
            setattr(cls, stage, _guard(attribute, function, stage, contract))


def _guard(attribute: Any, function: Any, stage: str, contract: Contract) -> Any:
    wrap = _guard_call
    if contract.waits:
        wrap = _guard_coroutine
    elif contract.yields:
        wrap = _guard_iterator

    if isinstance(attribute, staticmethod):
        guarded = wrap(lambda plugin, *args, **more: function(*args, **more), stage, contract)
    else:
        guarded = wrap(function, stage, contract)
    functools.update_wrapper(guarded, function)
    guarded.guarded_stage = stage  # type: ignore[attr-defined]
    return classmethod(guarded) if isinstance(attribute, classmethod) else guarded


# `find_plugin_call` looks for the name of these functions and for `plugin` and `stage` in them.


def _guard_call(function: Any, stage: str, contract: Contract) -> FunctionType:
    def guarded_call(plugin: Any, *args: Any, **more: Any) -> Any:
        try:
            result = function(plugin, *args, **more)
            problem = contract.check(plugin, result)
        except BaseException as error:
            if not is_fault(error):
                raise
            raise explain_failure(plugin, stage, contract.expected, error) from error
        if problem:
            raise explain_result(plugin, stage, contract.expected, problem)
        return result

    return guarded_call  # type: ignore[return-value]


def _guard_coroutine(function: Any, stage: str, contract: Contract) -> FunctionType:
    async def guarded_call(plugin: Any, *args: Any, **more: Any) -> Any:
        try:
            result = function(plugin, *args, **more)
            if not inspect.isawaitable(result):
                problem = _returned(result)
                raise explain_result(plugin, stage, f"`async def {stage}`", problem)
            result = await result
            problem = contract.check(plugin, result)
        except BaseException as error:
            if not is_fault(error):
                raise
            raise explain_failure(plugin, stage, contract.expected, error) from error
        if problem:
            raise explain_result(plugin, stage, contract.expected, problem)
        return result

    return guarded_call  # type: ignore[return-value]


def _guard_iterator(function: Any, stage: str, contract: Contract) -> FunctionType:
    def guarded_call(plugin: Any, *args: Any, **more: Any) -> Iterator[Any]:
        try:
            result = function(plugin, *args, **more)
            problem = "" if isinstance(result, Iterable) else _returned(result)
            items = iter(()) if problem else iter(result)
        except BaseException as error:
            if not is_fault(error):
                raise
            raise explain_failure(plugin, stage, contract.expected, error) from error
        if problem:
            raise explain_result(plugin, stage, contract.expected, problem)

        end = object()
        while True:
            # Outside of the `yield`, whose exceptions are the caller's.
            try:
                item = next(items, end)
                problem = "" if item is end else contract.check(plugin, item)
            except BaseException as error:
                if not is_fault(error):
                    raise
                raise explain_failure(plugin, stage, contract.expected, error) from error
            if problem:
                raise explain_result(plugin, stage, contract.expected, problem)
            if item is end:
                return
            yield item

    return guarded_call  # type: ignore[return-value]


# Checks -----------------------------------------------------------------------------------------


def _returned(value: Any) -> str:
    """Describe a returned value for an error message."""
    if value is None:
        return "it returned None; is a `return` missing?"
    if inspect.isawaitable(value):
        if inspect.iscoroutine(value):
            # Closed, so that Python does not warn of a coroutine that was never awaited.
            value.close()
        return "it returned a coroutine; is an `await` missing, or an `async` too many?"
    if isinstance(value, AsyncIterator):
        return "it is an async generator; it must `return`, not `yield`"
    return f"it returned {describe_value(value)}"


def _text(plugin: Any, value: Any) -> str:
    return "" if isinstance(value, str) else _returned(value)


def _text_or_none(plugin: Any, value: Any) -> str:
    return "" if value is None else _text(plugin, value)


def _nothing(plugin: Any, value: Any) -> str:
    if inspect.isawaitable(value):
        return _returned(value)
    return ""


def _json(plugin: Any, value: Any) -> str:
    if inspect.isawaitable(value):
        return _returned(value)
    try:
        msgspec.json.encode(value)
    except (TypeError, ValueError, RecursionError, OverflowError) as error:
        return f"{_returned(value)}, which JSON cannot hold ({error})"
    return ""


def _json_object(plugin: Any, value: Any) -> str:
    return _json(plugin, value) if isinstance(value, Mapping) else _returned(value)


def _json_object_or_none(plugin: Any, value: Any) -> str:
    return "" if value is None else _json_object(plugin, value)


def _feedback(plugin: Any, value: Any) -> str:
    if not isinstance(value, tuple) or len(value) != 2:
        return _returned(value)
    feedback, record = value
    return _json(plugin, feedback) or _json_object(plugin, record)


def _conversation(plugin: Any, value: Any) -> str:
    if not isinstance(value, tuple) or len(value) != 2:
        return _returned(value)
    answer, record = value
    return _text(plugin, answer) or _json_object(plugin, record)


def check_rendered(plugin: Any, value: Any, kind: type[Any]) -> str:
    """Check a worded request; `kind` is its class."""
    if not isinstance(value, kind):
        return _returned(value)
    if not isinstance(value.messages, tuple | list) or not value.messages:
        return f"its `messages` are {describe_value(value.messages)}"
    for message in value.messages:
        if not isinstance(message, Message):
            return f"its `messages` contain {describe_value(message)}"
        if message.role not in ("system", "user", "assistant"):
            return f"a message has the role {describe_value(message.role)}"
        if not isinstance(message.content, str):
            return f"a message has {describe_value(message.content)} as its content"
    if problem := _records(plugin, value.records):
        return f"of its `records`, {problem}"
    return _flags(plugin, value.flags)


def _flags(plugin: Any, value: Any) -> str:
    if not isinstance(value, Mapping):
        return _returned(value)
    for name, amount in value.items():
        if not isinstance(name, str) or not _is_number(amount):
            return f"the flag {name!r} is {describe_value(amount)}"
    return ""


def _is_number(value: Any) -> bool:
    # numpy's scalars are numbers as well.
    return hasattr(value, "__float__") and not isinstance(value, str | bytes)


def _values(plugin: Any, value: Any) -> str:
    """Check metric values: names of metrics, and finite numbers."""
    return _check_values(value, _all_metrics(plugin))


def _retrieval_values(plugin: Any, value: Any) -> str:
    # Those of evidence need no declaration.
    return _check_values(value, (*_all_metrics(plugin), *EVIDENCE))


def _check_values(value: Any, metrics: Sequence[Metric]) -> str:
    if not isinstance(value, Mapping):
        return _returned(value)
    metric_names = [metric.name for metric in metrics]
    for name, amount in value.items():
        if name not in metric_names:
            return f"it returned a value of {name!r}, which is none of its metrics"
        # As nearly all values are.
        if type(amount) is float and math.isfinite(amount):
            continue
        numbers = amount if isinstance(amount, list | tuple) else [amount]
        for number in numbers:
            if not _is_number(number):
                return f"the value of '{name}' is {describe_value(amount)}"
            if not math.isfinite(number):
                return f"the value of '{name}' is {float(number)}"
    return ""


def _all_metrics(task: Any) -> tuple[Metric, ...]:
    return (*task.metrics, *getattr(task, "judged_metrics", ()))


def _metrics(plugin: Any, value: Any) -> str:
    if not isinstance(value, tuple | list):
        return _returned(value)
    for metric in value:
        if not isinstance(metric, Metric):
            return f"it contains {describe_value(metric)}"
    return ""


def _records(plugin: Any, value: Any) -> str:
    if not isinstance(value, tuple | list):
        return _returned(value)
    for record in value:
        problem = _record(record)
        if problem:
            return problem
    return ""


def _records_or_none(plugin: Any, value: Any) -> str:
    return "" if value is None else _records(plugin, value)


def _record(record: Any) -> str:
    # Nearly all records pass, and histories are long, so the problem is looked for afterwards.
    if (
        isinstance(record, Record)
        and isinstance(record.id, str)
        and isinstance(record.response, str)
        and (record.stimulus is None or isinstance(record.stimulus, str))
        and (record.time is None or isinstance(record.time, str))
        and (record.item is None or isinstance(record.item, str))
    ):
        return ""
    return _describe_record_problem(record)


def _describe_record_problem(record: Any) -> str:
    if not isinstance(record, Record):
        return f"it contains {describe_value(record)}"
    if not isinstance(record.id, str):
        return f"a record has {describe_value(record.id)} as its `id`"
    for name in ("stimulus", "response", "time", "item"):
        text = getattr(record, name)
        if not isinstance(text, str) and (text is not None or name == "response"):
            return f"`{name}` of record {record.id} is {describe_value(text)}"
    return ""


def _user(plugin: Any, value: Any) -> str:
    if not isinstance(value, User):
        return f"it yields {describe_value(value)}"
    if not isinstance(value.id, str):
        return f"a user has {describe_value(value.id)} as `id`"
    return _records(plugin, value.history)


_SAMPLE_TEXTS = ("id", "user_id", "input")
_OPTIONAL_TEXTS = ("stimulus", "time", "item", "history_owner")


def _sample(plugin: Any, value: Any) -> str:
    if not isinstance(value, Sample):
        return _returned(value)
    for name in (*_SAMPLE_TEXTS, *_OPTIONAL_TEXTS):
        text = getattr(value, name)
        if not isinstance(text, str) and (text is not None or name in _SAMPLE_TEXTS):
            return f"its `{name}` is {describe_value(text)}"

    for name in ("references", "choices", "evidence"):
        texts = getattr(value, name)
        if not isinstance(texts, tuple | list):
            return f"`{name}` of sample {value.id} is {describe_value(texts)}, not a tuple"
        for text in texts:
            if not isinstance(text, str):
                return f"`{name}` of sample {value.id} contain {describe_value(text)}"

    for name in ("attributes", "hidden"):
        facts = getattr(value, name)
        if not isinstance(facts, Mapping):
            return f"`{name}` of sample {value.id} is {describe_value(facts)}"

    if not isinstance(value.history, tuple | list):
        return f"`history` of sample {value.id} is {describe_value(value.history)}, not a tuple"
    problem = _records(plugin, value.history)
    return f"in sample {value.id}, {problem}" if problem else ""


def _index(plugin: Any, value: Any) -> str:
    if isinstance(value, str | bytes) or not isinstance(value, Sequence):
        return _returned(value)
    return ""


def _check_index(index: Sequence[Any]) -> str:
    """Check every entry of an index: pairs of texts, each sample once."""
    positions: dict[str, int] = {}
    for position, entry in enumerate(index):
        if not isinstance(entry, tuple | list) or len(entry) != 2:
            return f"entry {position} is {describe_value(entry)}"
        for name in entry:
            if not isinstance(name, str):
                return f"entry {position} contains {describe_value(name)}"
        first = positions.setdefault(entry[0], position)
        if first != position:
            return f"sample '{entry[0]}' is in it twice (entries {first} and {position})"
    return ""


def check_dataset(task: Any, value: Any, kind: type[Any]) -> str:
    """Check an opened split, whose class is of this kind: its attributes and its index."""
    if not isinstance(value, kind):
        return _returned(value)

    for name in ("separation", "split", "source", "hash", "missing_requirement", "edited_words"):
        if not hasattr(value, name):
            raise explain_result(value, name, "a text (str)", f"the dataset has no `{name}`")
        text = getattr(value, name)
        if not isinstance(text, str):
            raise explain_result(value, name, "a text (str)", f"it is {describe_value(text)}")
    if not value.hash:
        raise explain_result(value, "hash", "the SHA-256 of the data", "it is empty")
    if not isinstance(value.warnings, tuple | list):
        problem = f"it is {describe_value(value.warnings)}"
        raise explain_result(value, "warnings", "a tuple of texts", problem)

    problem = _check_index(value.index())
    if problem:
        raise explain_result(value, "index", DATASET["index"].expected, problem)
    return ""


def _texts(plugin: Any, value: Any) -> str:
    if isinstance(value, str) or not isinstance(value, set | frozenset | tuple | list):
        return _returned(value)
    for text in value:
        if not isinstance(text, str):
            return f"it contains {describe_value(text)}"
    return ""


def _counts(plugin: Any, value: Any) -> str:
    return _flags(plugin, value)


def _samples_by_id(plugin: Any, value: Any) -> str:
    if not isinstance(value, Mapping):
        return _returned(value)
    for sample in value.values():
        problem = _sample(plugin, sample)
        if problem:
            return problem
    return ""


def _items(plugin: Any, value: Any) -> str:
    if not isinstance(value, tuple | list):
        return _returned(value)
    for item in value:
        if not isinstance(item, MemoryItem):
            return f"it contains {describe_value(item)}"
        if not isinstance(item.text, str) or not isinstance(item.part, str):
            return f"the text or part of an item is {describe_value(item.text)}"
        ids = item.record_ids
        if ids is not None and (isinstance(ids, str) or not isinstance(ids, tuple | list)):
            return f"`record_ids` of an item is {describe_value(ids)}, not a list or None"
        for record_id in ids or ():
            if not isinstance(record_id, str):
                return f"`record_ids` of an item contain {describe_value(record_id)}"
    return ""


def _sizes(plugin: Any, value: Any) -> str:
    if not isinstance(value, Mapping):
        return _returned(value)
    for name, amount in value.items():
        if not isinstance(amount, int) or amount < 0:
            return f"the size '{name}' is {describe_value(amount)}"
    return ""


def _mapping(plugin: Any, value: Any) -> str:
    return "" if isinstance(value, Mapping) else _returned(value)


def _anything(plugin: Any, value: Any) -> str:
    return ""


# The contracts ----------------------------------------------------------------------------------
# Those of `render` and `open`, which need the classes of their results, are beside these classes.

WORDING: Mapping[str, Contract] = {
    "parse": Contract("the answer as text (str), or None if it cannot be read", _text_or_none),
    "describe": Contract("a record as text (str)", _text),
    "query_text": Contract("the text to search with (str)", _text),
    "document_text": Contract("the text to find a record by (str)", _text),
    "question": Contract("a `Sample`", _sample),
    "facts": Contract("facts as text (str), empty for none", _text),
    "exchanges": Contract("a sequence of `Record`s, or None", _records_or_none),
    "options": Contract("a tuple of texts (str)", _texts),
    "persona": Contract("a description of the user (str), empty without one", _text),
}

TASK: Mapping[str, Contract] = {
    "measure": Contract("a finite number for each metric, by name", _values),
    "measure_retrieval": Contract(
        "a finite number for each metric of retrieval, by name", _retrieval_values
    ),
    "measure_interaction": Contract("a finite number for metrics, by name", _values),
    "metrics_of": Contract("a tuple of `Metric`s", _metrics),
    "react": Contract(
        "the feedback and the interaction, a tuple of two JSON objects", _feedback, waits=True
    ),
    "converse": Contract(
        "the final answer (str) and the interaction (a JSON object), a tuple",
        _conversation,
        waits=True,
    ),
    "assess": Contract("the judge's values as a JSON object, or None", _json_object_or_none, True),
    "submission": Contract("pieces of text (str)", _text, yields=True),
    "read_references": Contract("a mapping of sample ids to `Sample`s", _samples_by_id),
    "read_predictions": Contract("the task's name and (id, output) pairs", _anything),
    "download": Contract("no result", _nothing),
    "generate": Contract("the path of the new file", _anything, waits=True),
    "audit": Contract("a list of leaks as texts (str)", _texts),
}

DATASET: Mapping[str, Contract] = {
    "index": Contract("a sequence of (sample id, user id) pairs, each sample once", _index),
    "load": Contract("a `Sample`", _sample),
    "flags": Contract("a mapping of names to numbers", _flags),
    "samples": Contract("`Sample`s", _sample, yields=True),
    "population": Contract("`User`s", _user, yields=True),
    "user_counts": Contract("a mapping of names to numbers", _counts),
}

METHOD: Mapping[str, Contract] = {
    "requirements": Contract("a set of capabilities (str)", _texts),
    "resolved_params": Contract("a mapping from names of parameters to values", _mapping),
    "visible": Contract("a tuple of `Record`s", _records),
    "prepare": Contract("results on `self`", _nothing, waits=True),
    "profile": Contract("the profile as a JSON value", _json, waits=True),
    "predict": Contract("the answer as text (str)", _text, waits=True),
    "update": Contract("the profile as a JSON value", _json, waits=True),
}

MEMORY: Mapping[str, Contract] = {
    "start": Contract("the first state as a JSON value", _json, waits=True),
    "ingest": Contract("the state as a JSON value", _json, waits=True),
    "finish": Contract("the state as a JSON value", _json, waits=True),
    "reinforce": Contract("the state as a JSON value", _json),
    "retrieve": Contract("a list of `MemoryItem`s, best first", _items, waits=True),
    "size": Contract("a mapping of names to whole numbers", _sizes),
}
