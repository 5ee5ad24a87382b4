"""Differences between a run and the setting that the paper of its method reports.

A method states its paper's settings as plain data (`paper_settings`), and so may a task about its
options.  They are compared with the resolved run: parameters with presets filled in, task options,
decoding, task, data and history.  A run without differences is *faithful*, any other *adapted*.
Models are not compared: a table names them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

import msgspec

from personabench.api.guard import explain_result

if TYPE_CHECKING:
    from personabench.api.dataset import Dataset
    from personabench.api.method import Method
    from personabench.api.prompts import Prompts
    from personabench.api.task import Task
    from personabench.types import Sampling


DECODING = ("temperature", "top_p", "max_tokens")
"""Names in `paper_settings` that are settings of the run, not parameters of the method."""


def names_paper(method: type[Method], texts: Mapping[str, str]) -> bool:
    """Return whether parameters request the settings of the method's paper: `preset=paper`."""
    return texts.get("preset") == "paper" and bool(method.paper_settings)


def apply_paper_settings(
    method: type[Method],
    texts: Mapping[str, str],
    sampling: Sampling,
) -> tuple[dict[str, str], Sampling]:
    """Return parameters (as texts) and decoding with the paper's values for all that is not set.

    Of several values that the paper reports, the default is taken, else the first.  Decoding counts
    as set if it is not at its default.
    """
    params = {field.name: field.default for field in dataclasses.fields(method.Params)}
    unset = type(sampling)()
    preset = {}
    decoding = {}
    for name, value in method.paper_settings.items():
        accepted = value if isinstance(value, list) else [value]
        if name in DECODING:
            if getattr(sampling, name) == getattr(unset, name):
                decoding[name] = accepted[0]
        elif params.get(name) not in accepted:
            preset[name] = _text(accepted[0])

    chosen = {name: text for name, text in texts.items() if name != "preset"}
    return {**preset, **chosen}, msgspec.structs.replace(sampling, **decoding)


def _text(value: Any) -> str:
    """Write a value as on the command line."""
    return "null" if value is None else _word(value)


def list_differences(
    method: Method,
    task: Task,
    dataset: Dataset,
    sampling: Sampling,
    history: str,
    prompts: Prompts | None = None,
) -> list[str]:
    """List a run's differences from its method's paper, each in words; empty if there are none.

    A method made for any task has no data and no history control of its own to differ from.
    Requests differ from a paper's if they are worded for small models or replaced by the user.  A
    method inside of a wrapper is no paper's on any task.
    """
    actual = {**_describe_decoding(task, sampling), **method.resolved_params()}
    differences: list[str] = []
    if method.composed_of:
        differences += [f"inside of {name}" for name in method.composed_of[1:]]
    elif "*" not in method.designed_for:
        differences += _list_circumstances(method, task, dataset, history)
    differences += _compare(method, method.paper_settings, actual)
    if prompts is not None and prompts.files:
        differences += _list_texts(prompts)
    return differences


def _list_texts(prompts: Prompts) -> Iterator[str]:
    if prompts.wording == "compact":
        yield "wording compact"
    if prompts.is_replaced:
        yield f"prompts {prompts.name_replacements()}"


def _list_circumstances(
    method: Method,
    task: Task,
    dataset: Dataset,
    history: str,
) -> Iterator[str]:
    if not any(fnmatchcase(task.name, pattern) for pattern in method.designed_for):
        yield f"task {task.name}"
    else:
        # Data and options of a task that the paper does not have cannot differ from the paper's.
        if dataset.sample:
            yield "example data"
        yield from dataset.departures
        options = dataclasses.asdict(task.params)
        yield from _compare(task, task.paper_settings, options, prefix="task.")
    if history != "own":
        yield f"history {history}"


def _describe_decoding(task: Task, sampling: Sampling) -> dict[str, Any]:
    """Describe the settings of a run that are no parameters of its method."""
    return {
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "max_tokens": sampling.max_tokens or task.max_tokens,
    }


def _compare(
    plugin: Method | Task,
    paper: Mapping[str, Any],
    actual: Mapping[str, Any],
    prefix: str = "",
) -> Iterator[str]:
    """Describe each setting that is none of the paper's values, of which a list has several.

    Raises:
        PluginError: a setting that the plugin does not have.
    """
    for name, value in paper.items():
        if name not in actual:
            expected = f"a mapping with names out of {', '.join(actual)}"
            raise explain_result(plugin, "paper_settings", expected, f"it names {name!r}")
        accepted = value if isinstance(value, list) else [value]
        if actual[name] not in accepted:
            choices = " or ".join(_word(choice) for choice in accepted)
            yield f"{prefix}{name} {_word(actual[name])} (paper: {choices})"


def _word(value: Any) -> str:
    if value is None:
        return "unset"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return ",".join(map(str, value))
    return f"{value:g}" if isinstance(value, float) else str(value)
