"""The class attributes of methods and tasks, checked when a class is loaded.

A wrong one would show up far from its cause: `needs = "history"` is seven needs of one letter.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

from personabench.api.guard import describe_value, explain_result
from personabench.metrics.metric import Metric
from personabench.models.roles import PHASES

# A name becomes a folder and an item of a comma-separated list.
_NAME = re.compile(r"\w[\w.+ -]*")

_MISSING = object()


class Declaration(NamedTuple):
    """The required value of a class attribute; `check` returns a fault as a clause, or ""."""

    expected: str
    check: Callable[[Any], str]


def check_declarations(cls: type[Any], declarations: Mapping[str, Declaration]) -> None:
    """Check the attributes of a method or a task.

    Raises:
        PluginError: a missing or wrong one.
    """
    for name, (expected, check) in declarations.items():
        value = getattr(cls, name, _MISSING)
        # A property is computed on the instance.
        if isinstance(value, property):
            continue
        problem = "the class has none" if value is _MISSING else check(value)
        if problem:
            raise explain_result(cls, name, expected, problem)


def check_protocol(cls: type[Any]) -> None:
    """Check that a task has the methods that its protocol and its roles need.

    Raises:
        PluginError: one is missing, or would never be called.
    """
    needed = {"online": "react", "dialogue": "converse"}
    for protocol, stage in needed.items():
        has_method = callable(getattr(cls, stage, None))
        if cls.protocol == protocol and not has_method:
            problem = f"{cls.__name__} does not implement {stage}"
            raise explain_result(cls, "protocol", f"a coroutine `{stage}` beside it", problem)
        if cls.protocol == "static" and has_method:
            problem = f"`{stage}` is never called for a static task"
            raise explain_result(cls, stage, f'`protocol = "{protocol}"` beside it', problem)

    roles = () if isinstance(cls.roles, property) else (*cls.roles, *cls.optional_roles)
    if "judge" in roles and not callable(getattr(cls, "assess", None)):
        problem = f"{cls.__name__} does not implement assess"
        raise explain_result(cls, "roles", "a coroutine `assess` for the judge", problem)


def check_abstract(cls: type[Any], contracts: Mapping[str, Any]) -> None:
    """Check that a class implements its abstract members, with methods.

    Raises:
        PluginError: the first method that is missing or is no method.
    """
    for name in sorted(getattr(cls, "__abstractmethods__", ())):
        expected = contracts[name].expected if name in contracts else "an implementation"
        problem = f"{cls.__name__} does not implement {name}"
        raise explain_result(cls, name, f"a method that returns {expected}", problem)

    for name in contracts:
        value = getattr(cls, name, _MISSING)
        if value is not _MISSING and not callable(value):
            problem = f"it is {describe_value(value)}"
            raise explain_result(cls, name, "a method", problem)


def _is(*kinds: type[Any]) -> Callable[[Any], str]:
    def check(value: Any) -> str:
        # True is an int to Python, but no version and no number of tokens.
        right = isinstance(value, kinds) and (bool in kinds or not isinstance(value, bool))
        return "" if right else f"it is {describe_value(value)}"

    return check


def _name(value: Any) -> str:
    if isinstance(value, str) and _NAME.fullmatch(value):
        return ""
    return f"it is {describe_value(value)}"


def _word_name(value: Any) -> str:
    # It is the beginning of the names of parameters.
    return "" if isinstance(value, str) and value.isidentifier() else f"it is {value!r}"


def _texts(value: Any) -> str:
    if isinstance(value, str) or not isinstance(value, Iterable):
        return f"it is {describe_value(value)}"
    for text in value:
        if not isinstance(text, str):
            return f"it contains {describe_value(text)}"
    return ""


def _metrics(value: Any) -> str:
    if not isinstance(value, tuple | list) or not value:
        return f"it is {describe_value(value)}" if value else "it is empty"
    metric_names = set()
    for metric in value:
        if not isinstance(metric, Metric):
            return f"it contains {describe_value(metric)}"
        if metric.name in metric_names:
            return f"two metrics are called '{metric.name}'"
        metric_names.add(metric.name)
    return ""


def _prompt_files(value: Any) -> str:
    from personabench.api.prompts import PromptFile

    if value is None:
        return ""
    if not isinstance(value, tuple | list):
        return f"it is {describe_value(value)}"
    invalid = [item for item in value if not isinstance(item, PromptFile)]
    return f"it contains {describe_value(invalid[0])}" if invalid else ""


def _some_texts(value: Any) -> str:
    return _texts(value) or ("" if tuple(value) else "it is empty")


def _labels(value: Any) -> str:
    problem = _texts(value)
    if problem:
        return problem
    labels = tuple(value)
    for label in labels:
        if not label.strip():
            return "one of them is empty"
        if labels.count(label) > 1:
            return f"{label!r} is in it twice"
    return ""


def _roles(value: Any) -> str:
    problem = _texts(value)
    if problem:
        return problem
    unknown = [role for role in value if role not in PHASES]
    return f"it contains {unknown[0]!r}" if unknown else ""


def _positive(value: Any) -> str:
    return _is(int)(value) or ("" if value > 0 else f"it is {value}")


def _one_of(*choices: str) -> Declaration:
    expected = " or ".join(f'"{choice}"' for choice in choices)
    return Declaration(
        expected, lambda value: "" if value in choices else f"it is {describe_value(value)}"
    )


def _vocabulary(value: Any) -> str:
    from personabench.api.wording import Vocabulary

    return "" if isinstance(value, Vocabulary) else f"it is {describe_value(value)}"


def _vocabulary_or_none(value: Any) -> str:
    return "" if value is None else _vocabulary(value)


_NAME_DECLARATION = Declaration("a name of letters, digits and ._+- (str)", _name)
_WORD_DECLARATION = Declaration("a name of letters, digits and _ (str)", _word_name)
_TUPLE_OF_TEXTS = "a tuple of texts (str)"
_TUPLE_OF_ROLES = f"a tuple out of {', '.join(PHASES)}"

METHOD: Mapping[str, Declaration] = {
    "name": _NAME_DECLARATION,
    "paper": Declaration("a text (str)", _is(str)),
    "version": Declaration("a whole number (int)", _is(int)),
    "needs": Declaration("a tuple of capabilities (str)", _texts),
    "designed_for": Declaration(_TUPLE_OF_TEXTS, _texts),
    "paper_settings": Declaration("a mapping from names of settings to values", _is(Mapping)),
    "privileged": Declaration("True or False", _is(bool)),
    "rule": Declaration("True or False", _is(bool)),
    "uses_profiler": Declaration("True or False", _is(bool)),
    "prompts": Declaration("a tuple of `PromptFile`s, or None", _prompt_files),
}

WRAPPER: Mapping[str, Declaration] = {
    "name": _WORD_DECLARATION,
    **{name: METHOD[name] for name in ("paper", "version", "needs")},
    "prompts": Declaration("a tuple of `PromptFile`s", _prompt_files),
}

TASK: Mapping[str, Declaration] = {
    "name": _NAME_DECLARATION,
    "title": Declaration("a text (str)", _is(str)),
    "version": Declaration("a whole number (int)", _is(int)),
    "kind": _one_of("text", "category", "ordinal"),
    "protocol": _one_of("static", "online", "dialogue"),
    "metrics": Declaration("a tuple of `Metric`s with different names", _metrics),
    "scorers": Declaration(_TUPLE_OF_TEXTS, _some_texts),
    "max_tokens": Declaration("a whole number above 0 (int)", _positive),
    "labels": Declaration("a tuple of different texts (str)", _labels),
    "words": Declaration("a `Vocabulary`", _vocabulary),
    "full_words": Declaration("a `Vocabulary`, or None", _vocabulary_or_none),
    "default_split": Declaration("a text (str)", _is(str)),
    "paper_settings": Declaration("a mapping from names of options to values", _is(Mapping)),
    "offers": Declaration("a tuple of capabilities (str)", _texts),
    "roles": Declaration(_TUPLE_OF_ROLES, _roles),
    "optional_roles": Declaration(_TUPLE_OF_ROLES, _roles),
    "splits": Declaration("a tuple of texts (str)", _texts),
    "history_format": _one_of("auto", "turns", "list"),
    "tokenizer": Declaration("a text (str)", _is(str)),
    "example": Declaration("True or False", _is(bool)),
    "accepts_file": Declaration("True or False", _is(bool)),
    "quotes_gold": Declaration("True or False", _is(bool)),
    "shares_records": Declaration("True or False", _is(bool)),
    "sensitive": Declaration("True or False", _is(bool)),
    "source": Declaration("a text (str)", _is(str)),
    "licence": Declaration("a text (str)", _is(str)),
}
