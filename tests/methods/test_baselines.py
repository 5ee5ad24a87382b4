"""Properties that all baselines share: calls, the same records, no leak, counted fallbacks."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from baseline_fixtures import (
    ScriptedTask,
    ask_once,
    crowd,
    prepared,
    question,
    reply,
    shown,
    stage,
    stages,
    tales,
    text,
)

from personabench import Record, User
from personabench.api.method import Method
from personabench.methods.cicl import Cicl
from personabench.methods.compsum import ComPSum
from personabench.methods.dpl import Dpl
from personabench.methods.drp import Drp
from personabench.methods.none import NoPersonalization
from personabench.methods.persona_db import PersonaDb
from personabench.methods.rag import Rag
from personabench.methods.summary import Summary, SummaryRetrieved
from personabench.methods.trsr import Trsr
from personabench.testing.trials import trial


@pytest.mark.parametrize(
    ("method", "expected"),
    [
        (NoPersonalization(), {"answer": 1}),
        (Rag(), {"answer": 1}),
        (Summary(), {"summary": 1, "answer": 1}),
        (SummaryRetrieved(), {"summary": 1, "answer": 1}),
        (
            Trsr(Trsr.Params()),
            {
                "block": 1,
                "update": 2,
                "answer": 1,
            },
        ),
        (
            Trsr(Trsr.Params(mode="hierarchical")),
            {
                "block": 3,
                "merge": 1,
                "answer": 1,
            },
        ),
        (Trsr(Trsr.Params(mode="hierarchical", block=12)), {"block": 1, "answer": 1}),
        (Cicl(Cicl.Params()), {"answer": 1}),
        (Cicl(Cicl.Params(two_step=True)), {"contrast": 1, "answer": 1}),
        (ComPSum(ComPSum.Params()), {"analysis": 1, "answer": 1}),
        (
            Drp(Drp.Params(validate=False)),
            {
                "open": 8,
                "profile": 1,
                "answer": 1,
            },
        ),
        (
            Drp(Drp.Params()),
            {
                "open": 8,
                "check": 8,
                "profile": 1,
                "answer": 1,
            },
        ),
    ],
)
async def test_calls_per_method(
    tmp_path: Path,
    method: Method,
    expected: dict[str, int],
) -> None:
    users = crowd(items=12)
    output, ctx, requests = await ask_once(tmp_path, users, method)
    assert stages(requests) == expected
    assert output.endswith("A headline")
    assert "fallback" not in ctx.flags


async def test_persona_db_makes_two_calls_per_user(tmp_path: Path) -> None:
    users = crowd(items=3, peers=4)
    setup = ScriptedTask(tmp_path, users, answer=reply)
    method = await prepared(setup, PersonaDb())
    assert stages(setup.backend.requests) == {"distil": 5, "induce": 5}
    _, _, requests = await setup.ask(method, question(users))
    assert stages(requests) == {"answer": 1}


async def test_every_method_shows_the_same_records(tmp_path: Path) -> None:
    # Methods are compared on their use of records, so all must retrieve the same ones.
    users = crowd(items=20)
    methods: list[Method] = [
        Rag(Rag.Params(k=4)),
        Summary(Summary.Params(k=4)),
        SummaryRetrieved(SummaryRetrieved.Params(k=4)),
        Trsr(Trsr.Params(k=4)),
        ComPSum(ComPSum.Params(k=4)),
        Dpl(Dpl.Params(n_docs=4)),
        Drp(Drp.Params(n_docs=4)),
    ]
    record_lists = []
    for number, method in enumerate(methods):
        _, _, requests = await ask_once(tmp_path / str(number), users, method)
        record_lists.append(shown(requests[-1]))
    assert len(record_lists[0]) == 4
    assert all(records == record_lists[0] for records in record_lists)


@pytest.mark.parametrize(
    "method", [Rag, Summary, SummaryRetrieved, Trsr, Cicl, PersonaDb, ComPSum, Drp]
)
async def test_an_empty_history_sends_the_request_of_none(
    tmp_path: Path, method: Callable[[], Method]
) -> None:
    # Otherwise a method would be scored for its wording where it has nothing to personalize with.
    users = [User("ann", ()), *crowd()[1:]]
    _, ctx, requests = await ask_once(tmp_path / "ours", users, method())
    _, _, expected = await ask_once(tmp_path / "none", users, NoPersonalization())
    assert [request.messages for request in requests] == [request.messages for request in expected]
    assert ctx.flags["empty_profile"] >= 1


@pytest.mark.parametrize(
    "method",
    [
        Rag(),
        Summary(),
        SummaryRetrieved(),
        Trsr(),
        Cicl(Cicl.Params(negatives="peer")),
        PersonaDb(PersonaDb.Params(neighbor_records=True)),
        ComPSum(),
        Drp(),
    ],
    ids=lambda method: method.name,
)
async def test_a_gold_in_a_peers_history_reaches_no_prompt(tmp_path: Path, method: Method) -> None:
    # A peer may have answered the same question, and the reference would be copied from there.
    users = crowd()
    about = "The tale of item3 and the glacier"
    leak = Record(
        "x-3",
        about + "!",
        "SECRET @(7,7)",
        item="i3",
    )
    peer_records = tuple(record for record in tales(8, "mallory").history if record.item != "i3")
    users.append(User("mallory", (leak, *peer_records)))
    sample = question(users, about, item="i3")
    sample = msgspec.structs.replace(
        sample, history=tuple(r for r in sample.history if r.item != "i3")
    )

    def gullible(request: Any) -> str:
        """A reply that repeats the whole history of the user it is about."""
        if stage(request) == "distil" and "SECRET" in request.messages[1].content:
            return '{"topics": ["ports"], "traits": [], "patterns": ["Says SECRET"], "stances": []}'
        return reply(request)

    _, ctx, requests = await ask_once(
        tmp_path,
        users,
        method,
        sample,
        answer=gullible,
    )
    assert "fallback" not in ctx.flags
    assert "SECRET" not in text(requests)
    assert "GOLD" not in text(requests)


@pytest.mark.parametrize("method", [Cicl, ComPSum, PersonaDb, Drp])
async def test_summary_answers_without_a_population(
    tmp_path: Path, method: Callable[[], Any]
) -> None:
    users = crowd()
    own_setup, summary_setup = (
        ScriptedTask(
            tmp_path / "ours",
            users,
            answer=reply,
        ),
        ScriptedTask(
            tmp_path / "summary",
            users,
            answer=reply,
        ),
    )
    unprepared = method()
    sample = question(users)
    if isinstance(unprepared, PersonaDb):
        ctx = own_setup.context()
        state = {
            "card": "",
            "distilled": [],
            "induced": [],
        }
        output, requests = (
            await unprepared.predict(sample.view(), state, ctx),
            own_setup.backend.requests,
        )
    else:
        output, ctx, requests = await own_setup.ask(unprepared, sample)
    expected, _, expected_requests = await summary_setup.ask(Summary(Summary.Params(k=8)), sample)
    assert requests == expected_requests
    assert output == expected
    assert ctx.flags["fallback"] == 1


@pytest.mark.parametrize("method", [Cicl, ComPSum, Drp])
def test_fallbacks_are_reported_as_a_share_of_samples(
    method: Callable[[], Method],
) -> None:
    # A method that mostly falls back is scored as `summary`, and readers must see that.
    result = trial(
        method(),
        task="lamp4",
        limit=6,
        answer=lambda request: "" if stage(request) == "open" else "Words",
    )
    flagged = sum("fallback" in prediction.flags for prediction in result.predictions)
    assert result.summary.counters.get("fallback", 0) == flagged
    assert flagged == (len(result.predictions) if method is Drp else 0)
