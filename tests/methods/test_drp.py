"""Open dimensions: parsing, confirmation, and the thoughts of reasoning models."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from baseline_fixtures import (
    ScriptedTask,
    Tags,
    ask_once,
    crowd,
    labelled,
    prepared,
    question,
    reply,
    stage,
    stages,
    text,
)

from personabench import Request, UsageError
from personabench.methods.drp import SCHEMA, Drp, parse_dimensions


def row(name: str, **changes: Any) -> dict[str, Any]:
    return {
        "name": name,
        "definition": "how it is",
        "difference": f"more {name}",
        **changes,
    }


def listed(*rows: Any) -> str:
    return json.dumps({"dimensions": rows})


def saying(**replies: str) -> Callable[[Request], str]:
    return lambda request: replies.get(stage(request), reply(request))


def profile_prompt(requests: list[Request]) -> str:
    return next(request for request in requests if stage(request) == "profile").messages[1].content


@pytest.mark.parametrize(
    ("text", "expected_names", "malformed"),
    [
        (
            listed(row("Wit"), row("Length")),
            ["Wit", "Length"],
            0,
        ),
        (
            "Sure:\n```json\n" + listed(row("Wit")) + "\n```",
            ["Wit"],
            0,
        ),
        (
            listed(row("Wit"), row("Tone", difference=""), row("Form", definition=None)),
            ["Wit"],
            2,
        ),
        (
            listed(row("Wit"), {"name": "Tone"}),
            ["Wit"],
            1,
        ),
        (
            listed(row("Wit"), row("wit ")),
            ["Wit"],
            0,
        ),
        (
            listed(row("Wit"), row("Tone"))[:-20],
            ["Wit"],
            1,
        ),
        (
            '{"dimensions": [{"name": "Wit", "definition": bad}, ' + json.dumps(row("Tone")) + "]}",
            ["Tone"],
            1,
        ),
        (
            "[" + json.dumps(row("Wit")) + "]",
            ["Wit"],
            0,
        ),
        (
            listed(row("Wit", definition="as in {braces} and [sic]")),
            ["Wit"],
            0,
        ),
        (
            f"{json.dumps(row('Wit', definition='uses [sic]'))}\n{json.dumps(row('Tone'))}",
            ["Wit", "Tone"],
            0,
        ),
        (listed(), [], 0),
        ("They are wittier.", [], 0),
    ],
)
def test_malformed_blocks_are_dropped_and_counted(
    text: str,
    expected_names: list[str],
    malformed: int,
) -> None:
    parsed, count = parse_dimensions(text)
    assert [dimension.name for dimension in parsed] == expected_names
    assert count == malformed


async def test_malformed_blocks_are_counted_in_the_run(tmp_path: Path) -> None:
    answer = saying(open=listed(row("Wit"), row("Tone", difference="")))
    _, ctx, requests = await ask_once(
        tmp_path,
        crowd(items=3),
        Drp(Drp.Params(validate=False)),
        answer=answer,
    )
    assert ctx.flags["dimensions"] == 3
    assert ctx.flags["dimensions_malformed"] == 3
    assert "- Wit (how it is): more Wit" in profile_prompt(requests)


async def test_an_unfinished_thought_is_a_failure(tmp_path: Path) -> None:
    users = crowd(items=2)
    thinking = "Let me see. " + listed(row("Trace"))
    method = Drp(Drp.Params(reasoning=True, validate=False))
    _, ctx, requests = await ask_once(
        tmp_path / "cut",
        users,
        method,
        answer=saying(open=thinking),
    )
    assert ctx.flags["thought_unfinished"] == 2
    assert ctx.flags["failed_docs"] == 2
    assert ctx.flags["fallback"] == 1
    finished = f"{thinking}</think>{listed(row('Wit'))}"
    _, ctx, requests = await ask_once(
        tmp_path / "whole",
        users,
        method,
        answer=saying(open=finished),
    )
    assert ctx.flags["dimensions"] == 2
    assert "Trace" not in profile_prompt(requests)
    assert all(request.schema is None for request in requests)
    opened = saying(open="<think>" + thinking)
    _, ctx, _ = await ask_once(
        tmp_path / "opened",
        users,
        Drp(),
        answer=opened,
    )
    assert ctx.flags["thought_unfinished"] == 2


async def test_the_profile_gets_the_validated_list(tmp_path: Path) -> None:
    users = crowd(items=3)
    _, ctx, requests = await ask_once(tmp_path / "on", users, Drp())
    assert ctx.flags["dimensions"] == 3
    assert ctx.flags["dimensions_rejected"] == 3
    assert "Wit" in profile_prompt(requests)
    assert "Length" not in profile_prompt(requests)
    check = next(request for request in requests if stage(request) == "check")
    assert "Dimensions to check:" in check.messages[1].content
    assert '"name": "Length"' in check.messages[1].content
    assert check.schema == SCHEMA
    _, _, requests = await ask_once(tmp_path / "off", users, Drp(Drp.Params(validate=False)))
    assert "Length" in profile_prompt(requests)


async def test_dimensions_invented_by_the_check_are_ignored(tmp_path: Path) -> None:
    # The check may only confirm; a dimension that it adds was checked by no second look.
    answer = saying(check=listed(row("Invented"), row("WIT", difference="much drier")))
    _, ctx, requests = await ask_once(
        tmp_path,
        crowd(items=2),
        Drp(),
        answer=answer,
    )
    assert ctx.flags["dimensions"] == 2
    assert "Invented" not in profile_prompt(requests)


@pytest.mark.parametrize(("check", "failed"), [("I agree.", True), (listed(), False)])
async def test_without_a_confirmed_dimension_a_record_is_dropped(
    tmp_path: Path, check: str, failed: bool
) -> None:
    _, ctx, requests = await ask_once(
        tmp_path,
        crowd(items=2),
        Drp(),
        answer=saying(check=check),
    )
    assert ctx.flags["failed_docs"] == 2
    assert ctx.flags["fallback"] == 1
    assert ctx.flags["dimensions_rejected"] == 4
    assert ("validation_failed" in ctx.flags) is failed
    assert "profile" not in stages(requests)


async def test_agreement_costs_no_call(tmp_path: Path) -> None:
    users = [labelled("ann", "12"), labelled("b", "12")]
    _, ctx, requests = await ask_once(
        tmp_path,
        users,
        Drp(),
        question(users, "Of a zoo"),
        task=Tags(),
    )
    assert ctx.flags["agreement_lines"] == 2
    assert stages(requests) == {"profile": 1, "answer": 1}


async def test_a_second_question_repeats_neither_lists_nor_checks(tmp_path: Path) -> None:
    users = crowd(items=8)
    setup = ScriptedTask(tmp_path, users, answer=reply)
    method = await prepared(setup, Drp())
    await setup.ask(method, question(users))
    _, _, requests = await setup.ask(method, question(users, "Another tale, of the brewery"))
    assert stages(requests) == {"profile": 1, "answer": 1}


def test_the_faithful_preset_allows_long_replies() -> None:
    assert Drp(Drp.Params(preset="faithful")).settings.difference_max_tokens == 4096
    assert Drp(Drp.Params(preset="faithful", profile_max_tokens=9)).settings.profile_max_tokens == 9
    assert Drp().settings.difference_max_tokens == 512


async def test_no_thought_reaches_the_answer_or_is_it(tmp_path: Path) -> None:
    # A thought in the answer would be scored as part of it.
    users = crowd(items=2)
    method = Drp(Drp.Params(reasoning=True, validate=False))
    thought = "Hm, SECRET.</think>"
    reply_text = thought + listed(row("Wit"))
    answer = saying(
        open=reply_text,
        profile=f"{thought}\nSummary: Dry.",
        answer=f"{thought}A headline",
    )
    output, ctx, requests = await ask_once(
        tmp_path / "whole",
        users,
        method,
        answer=answer,
    )
    assert output == "A headline"
    assert "SECRET" not in text(requests)
    assert "Dry." in requests[-1].messages[0].content
    answer = saying(
        open=reply_text,
        profile="Hm, SECRET",
        answer="Hm, SECRET",
    )
    output, ctx, requests = await ask_once(
        tmp_path / "cut",
        users,
        method,
        answer=answer,
    )
    assert output == ""
    assert "SECRET" not in text(requests)
    assert ctx.flags["thought_unfinished"] == 2
    assert ctx.flags["empty_notes"] == 1


async def test_definitions_are_cut_if_wanted(tmp_path: Path) -> None:
    users = crowd(items=3)
    answer = saying(open=listed(row("Wit", definition="one two three four")))
    for words, shown in ((0, "(one two three four)"), (2, "(one two)")):
        method = Drp(Drp.Params(validate=False, definition_words=words))
        _, _, requests = await ask_once(tmp_path / str(words), users, method, answer=answer)
        assert f"- Wit {shown}: more Wit" in profile_prompt(requests)
    with pytest.raises(UsageError, match="free_form is for dpl"):
        Drp(Drp.Params(free_form=True))
