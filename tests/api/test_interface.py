"""Optional interfaces of a task: recognized by their methods, and by nothing less."""

from __future__ import annotations

import pytest
from toy_methods import Daily, Judged, Maybe, Plain, Talk, Toy

from personabench.api.data_sources import Audited, Downloadable, Generative
from personabench.api.dialogue import DialogueTask
from personabench.api.interface import Interface
from personabench.api.judged import (
    JudgedTask,
    judge_params,
    judged_metrics,
    metrics_added_by_judge,
)
from personabench.api.official_files import OfficialFiles, SubmissionFile
from personabench.api.online import OnlineTask
from personabench.errors import UsageError
from personabench.run.judging import judge_key, prompt_version
from personabench.testing import trial

INTERFACES = (
    OnlineTask,
    DialogueTask,
    JudgedTask,
    OfficialFiles,
    SubmissionFile,
    Downloadable,
    Generative,
    Audited,
)


@pytest.mark.parametrize("interface", INTERFACES)
def test_a_plain_task_implements_no_interface(interface: type[Interface]) -> None:
    assert not isinstance(Toy(), interface)


@pytest.mark.parametrize("interface", INTERFACES)
def test_a_plain_task_with_the_methods_implements_the_interface(
    interface: type[Interface],
) -> None:
    methods = {name: lambda self: None for name in interface.interface_methods}
    assert isinstance(type("Own", (Toy,), methods)(), interface)


def test_a_task_is_no_instance_of_another_task_with_the_same_methods() -> None:
    plain = type("Own", (Toy,), {"react": lambda self: None})
    assert issubclass(plain, OnlineTask)
    assert not issubclass(plain, Daily)


def test_the_interface_sets_the_protocol() -> None:
    assert OnlineTask.protocol == Daily().protocol == "online"
    assert DialogueTask.protocol == Talk().protocol == "dialogue"


def test_only_an_optional_judge_adds_metrics() -> None:
    assert metrics_added_by_judge(Toy()) is None
    assert metrics_added_by_judge(Judged()) is None
    assert metrics_added_by_judge(Maybe()) == ("mark",)
    assert [metric.name for metric in Maybe.metrics_of(())] == ["length", "mark"]


def test_declarations_of_a_judge_have_defaults_for_plain_tasks() -> None:
    assert judged_metrics(Toy()) == judge_params(Toy()) == ()
    assert judge_params(Judged()) == ("strict",)


def test_another_wording_of_the_judge_is_another_judge() -> None:
    task = type("Own", (Judged,), {"judge_content": "0123456789ab"})()
    reworded = type("Own", (Judged,), {"judge_content": "ba9876543210"})()
    judge = {"model": "m-1"}
    assert judge_key(task, judge) != judge_key(reworded, judge)
    assert (prompt_version(task), prompt_version(reworded)) == ("01234567", "ba987654")


@pytest.mark.parametrize(
    ("declarations", "message"),
    [
        ({"protocol": "online"}, "has protocol 'online' but no method `react`"),
        ({"protocol": "dialogue"}, "has protocol 'dialogue' but no method `converse`"),
        ({"roles": ("judge",)}, "has a judge but no method `assess`"),
    ],
)
def test_a_declaration_without_its_method_is_reported(
    declarations: dict[str, object], message: str
) -> None:
    task = type("Own", (Toy,), declarations)()
    with pytest.raises(UsageError, match=message):
        trial(Plain(), task, limit=1)
