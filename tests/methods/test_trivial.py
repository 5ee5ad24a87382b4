"""Predictors without a model."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from baseline_fixtures import Headlines, Stars, Tags, ask_once, labelled, question

from personabench import Record, Sample, UsageError, User
from personabench.api.method import Method
from personabench.methods.trivial import (
    Constant,
    CopyInput,
    CopyNearest,
    Majority,
    MostFamiliar,
    UserMajority,
    UserMean,
)
from personabench.testing.trials import trial
from personabench.types import to_json

CHOICES = ("1", "2", "3", "4", "5")


async def predict(
    folder: Path, users: list[User], method: Method, task: Headlines, **fields: Any
) -> tuple[str, Any]:
    output, ctx, requests = await ask_once(
        folder,
        users,
        method,
        question(users, **fields),
        task=task,
    )
    assert requests == []
    return output, ctx


async def test_majority_counts_all_users_and_user_majority_one(tmp_path: Path) -> None:
    users = [
        labelled("ann", "2213"),
        labelled("b", "1114"),
        labelled("c", "1"),
    ]
    assert (
        await predict(
            tmp_path / "a",
            users,
            Majority(),
            Stars(),
            choices=CHOICES,
        )
    )[0] == "1"
    assert (
        await predict(
            tmp_path / "b",
            users,
            UserMajority(),
            Tags(),
            choices=CHOICES,
        )
    )[0] == "2"


async def test_the_newest_of_equally_frequent_labels(tmp_path: Path) -> None:
    assert (
        await predict(
            tmp_path,
            [labelled("ann", "1331")],
            UserMajority(),
            Tags(),
            choices=CHOICES,
        )
    )[0] == "1"


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        ("15", "3"),
        ("12", "1"),
        ("122", "2"),
        ("x4", "4"),
        ("4445", "4"),
    ],
)
async def test_user_mean_is_the_nearest_choice(tmp_path: Path, labels: str, expected: str) -> None:
    assert (
        await predict(
            tmp_path,
            [labelled("ann", labels)],
            UserMean(),
            Stars(),
            choices=CHOICES,
        )
    )[0] == expected


async def test_user_mean_without_choices_is_the_mean(tmp_path: Path) -> None:
    assert (await predict(tmp_path, [labelled("ann", "14")], UserMean(), Stars()))[0] == "2.5"


@pytest.mark.parametrize("method", [UserMajority, UserMean, CopyNearest])
async def test_without_a_history_the_first_choice_is_returned_and_flagged(
    tmp_path: Path, method: Callable[[], Method]
) -> None:
    output, ctx = await predict(
        tmp_path,
        [User("ann", ())],
        method(),
        Stars(),
        choices=CHOICES,
    )
    assert output == "1"
    assert ctx.flags["no_label"] == 1


async def test_a_majority_outside_the_choices_is_not_returned(tmp_path: Path) -> None:
    # Some questions offer a subset of all labels.
    output, ctx = await predict(
        tmp_path,
        [labelled("ann", "99")],
        Majority(),
        Tags(),
        choices=CHOICES,
    )
    assert output == "1"
    assert ctx.flags["no_label"] == 1


async def test_copy_nearest_returns_the_best_records_response(tmp_path: Path) -> None:
    users = [labelled("ann", "12345")]
    assert (
        await predict(
            tmp_path,
            users,
            CopyNearest(),
            Tags(),
            about="tale item2 tramway",
        )
    )[0] == "3"


@pytest.mark.parametrize("method", [CopyNearest, MostFamiliar])
async def test_without_past_labels_the_most_familiar_option_is_returned(
    tmp_path: Path, method: Callable[[], Method]
) -> None:
    users = [User("ann", (Record("a", None, "Tides and harbours of the north"),))]
    for first, second, expected in (
        ("Moons of Mars", "Harbours and tides", "[2]"),
        ("Harbours and tides", "Moons", "[1]"),
    ):
        sample = Sample(
            "q",
            "ann",
            "Which one?",
            history=users[0].history,
            choices=("[1]", "[2]"),
            attributes={"options": to_json([first, second])},
        )
        output, _, requests = await ask_once(
            tmp_path / expected,
            users,
            method(),
            sample,
            task=Tags(),
        )
        assert output == expected
        assert requests == []


async def test_copy_input_and_constant(tmp_path: Path) -> None:
    users = [labelled("ann", "12")]
    assert (
        await predict(
            tmp_path / "a",
            users,
            CopyInput(),
            Headlines(),
            about="A tale",
        )
    )[0] == "A tale"
    assert (
        await predict(
            tmp_path / "b",
            users,
            Constant(),
            Stars(),
            choices=CHOICES,
        )
    )[0] == "1"
    assert (
        await predict(
            tmp_path / "c",
            users,
            Constant(Constant.Params(value="4")),
            Stars(),
            choices=CHOICES,
        )
    )[0] == "4"
    assert (await predict(tmp_path / "d", users, Constant(), Headlines()))[0] == "headline"


@pytest.mark.parametrize("method", [Majority, UserMajority])
def test_labels_of_free_texts_cannot_be_counted(method: Callable[[], Method]) -> None:
    with pytest.raises(UsageError, match="free texts"):
        trial(
            method(),
            task="lamp4",
            limit=1,
        )


def test_scores_of_labels_have_no_mean() -> None:
    with pytest.raises(UsageError, match="its answers are not scores"):
        trial(
            UserMean(),
            task="lamp2m",
            limit=1,
        )


@pytest.mark.parametrize("task", ["lamp1", "lamp2m", "lamp3"])
def test_copying_the_nearest_beats_a_constant_on_the_example_data(task: str) -> None:
    # Example data without any signal could not show whether a method personalizes.
    copied, constant = trial(CopyNearest(), task=task), trial(Constant(), task=task)
    assert not copied.requests
    primary = copied.summary.primary
    better, worse = (run.summary.metrics["official"][primary] for run in (copied, constant))
    assert better < worse if task == "lamp3" else better > worse
