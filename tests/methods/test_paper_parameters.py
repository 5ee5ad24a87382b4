"""Parameters of the papers' ablations: each changes what it names, and defaults nothing."""

from __future__ import annotations

import asyncio
import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from baseline_fixtures import ask_once, crowd, question, reply, stage, stages

from personabench import Request, UsageError
from personabench.methods.cicl import Cicl
from personabench.methods.cipher import Cipher, IclEdit
from personabench.methods.compsum import ComPSum
from personabench.methods.persona_db import PersonaDb
from personabench.methods.rag import Rag
from personabench.models.backends.scripted import Scripted
from personabench.run import runner
from personabench.testing.trials import trial


async def ask(folder: Path, method: Any, **setup: Any) -> list[Request]:
    """The requests of one question with five peers on every record."""
    folder.mkdir(exist_ok=True)
    _, _, requests = await ask_once(folder, crowd(items=4, peers=5), method, **setup)
    return list(requests)


def content(request: Request) -> str:
    return "\n".join(message.content for message in request.messages)


async def test_cicl_shows_pairs_without_analysis_and_analysis_without_pairs(tmp_path: Path) -> None:
    (answer,) = await ask(tmp_path / "pairs", Cicl(Cicl.Params(analyse=False)))
    assert "Not as this columnist would" in content(answer)
    assert "Analysis:" not in content(answer)

    params = Cicl.Params(two_step=True, show_pairs=False)
    contrast, answer = await ask(tmp_path / "analysis", Cicl(params))
    assert stage(contrast) == "contrast" and "Not as this columnist would" in content(contrast)
    assert "Shorter than others." in content(answer)
    assert "Not as this columnist would" not in content(answer)
    for wrong in ({"analyse": False, "two_step": True}, {"show_pairs": False}, {"n_negatives": 0}):
        with pytest.raises(ValueError):
            Cicl.Params(**wrong)


async def test_cicl_shows_several_contrasts(tmp_path: Path) -> None:
    shown = {}
    for count in (1, 3, 9):
        params = Cicl.Params(negatives="peer", n_negatives=count)
        (answer, *_) = await ask(tmp_path / str(count), Cicl(params))
        examples = content(answer).split("Not as this columnist would:")[1:]
        shown[count] = [re.findall(r"(peer\d) words", example) for example in examples]
    assert [len(peers) for peers in shown[3]] == [3] * 4
    assert [len(set(peers)) for peers in shown[9]] == [5] * 4
    # The first contrast is the one that a single one is.
    assert [peers[:1] for peers in shown[3]] == shown[1]


async def test_compsum_chooses_partners(tmp_path: Path) -> None:
    partners = {}
    for name, count in (("nearest", 1), ("random", 1), ("farthest", 1), ("nearest", 3)):
        params = ComPSum.Params(partner=name, n_partners=count)
        requests = await ask(tmp_path / f"{name}{count}", ComPSum(params))
        analysis = next(one for one in requests if stage(one) == "analysis")
        partners[name, count] = re.findall(r"(peer\d) words", content(analysis))
    assert [len(names) for names in partners.values()] == [4, 4, 4, 12]
    # All peers wrote about the same thing, so that each choice is the same draw.
    assert partners["nearest", 1] == partners["random", 1] == partners["farthest", 1]
    assert partners["nearest", 3][::3] == partners["nearest", 1]


async def test_persona_db_keeps_and_retrieves_parts_of_a_persona(tmp_path: Path) -> None:
    def rich(request: Request) -> str:
        if stage(request) == "distil":
            stances = [{"about": f"a{n}", "stance": f"s{n}"} for n in range(3)]
            lists = {name: [f"{name}{n}" for n in range(3)] for name in ("topics", "traits")}
            patterns = [f"pattern{n}" for n in range(3)]
            return json.dumps({**lists, "patterns": patterns, "stances": stances})
        if stage(request) == "induce":
            return json.dumps({"views": ["view0", "view1", "view2"]})
        return reply(request)

    async def notes(**params: Any) -> str:
        method = PersonaDb(PersonaDb.Params(item_topk=40, item_topk_collab=0, **params))
        requests = await ask(tmp_path / str(sorted(params.items())), method, answer=rich)
        return content(requests[-1])

    everything = await notes()
    for word in ("topics2", "traits2", "pattern2", "a2: s2", "view2", "<ann-0>"):
        assert word in everything
    short = await notes(list_max=1)
    assert "topics0" in short and "pattern0" in short and "view0" in short
    assert not re.search(r"(topics|traits|pattern|view|a)[12]\b", short)
    few = await notes(fields="topics,views")
    assert "topics2" in few and "view2" in few
    assert not re.search(r"traits|pattern|: s\d", few)
    raw = await notes(layers="records")
    assert "<ann-0>" in raw and not re.search(r"pattern\d|view\d", raw)
    refined = await notes(layers="distilled,induced")
    assert "<ann-" not in refined and "pattern2" in refined and "view2" in refined
    nothing = await notes(min_similarity=1.1)
    assert "topics0" in nothing and not re.search(r"<ann-|pattern\d|view\d", nothing)
    with pytest.raises(UsageError, match="layers: 'history' is none of records"):
        PersonaDb(PersonaDb.Params(layers="history"))


async def test_rag_draws_with_replacement(tmp_path: Path) -> None:
    params = Rag.Params(retriever="random", replacement=True, k=12)
    (answer,) = await ask(tmp_path / "with", Rag(params))
    drawn = re.findall(r"<(ann-\d)>", content(answer))
    assert len(drawn) == 12 and len(set(drawn)) <= 4
    (again,) = await ask(tmp_path / "again", Rag(params))
    assert content(again) == content(answer)
    with pytest.raises(UsageError, match="replacement is for retriever=random"):
        Rag(Rag.Params(replacement=True))


def run_rpm(results: Path, answer: Any, *assignments: str) -> list[Request]:
    """The requests of RPM on two questions of the example data."""
    options = runner.Options(
        ["rpm"],
        ["lamp3"],
        limit=1,
        backend="scripted",
        cache="off",
        results=results,
        assignments=[*assignments, "rpm.history_cap=4"],
    )
    model = Scripted(answer=answer)
    asyncio.run(runner.run(options, backend=model))
    return model.requests


def test_rpm_repeats_unreadable_replies_as_often_as_set(tmp_path: Path) -> None:
    for tries in (1, 3, 4):
        requests = run_rpm(tmp_path / str(tries), lambda request: "?", f"rpm.tries={tries}")
        texts = Counter(content(one).partition("Your last reply")[0] for one in requests)
        assert max(request.repeat for request in requests) == tries - 1
        assert len(texts) < len(requests) or tries == 1


def test_rpm_shows_as_many_labels_as_set(tmp_path: Path) -> None:
    from personabench import Vocabulary
    from personabench.methods.rpm.knowledge import Factor, Feature, Item, Knowledge, statistics_line

    labels = ["1", "2", "3", "4", "5"]
    items = [Item(label, "q", label, features=[Feature("f", "c", 0)]) for label in labels]
    user = Knowledge(closed=True, labels=labels, items=items, factors=[Factor("F", "")])
    words = Vocabulary(person="p", stimulus="s", response="r")
    for shown in (1, 3, 5):
        line = statistics_line(user, 0, words, labels_shown=shown)
        assert len(re.findall(r"\d 20%", line)) == shown


def test_ciphers_preferences_are_cut_and_pairs_are_ordered() -> None:
    def wordy(request: Request) -> str:
        is_inference = "turned it into a version" in request.messages[0].content
        return "likes one two three four" if is_inference else "a draft of mine"

    for limit, expected in ((2, "likes one"), (60, "likes one two three four")):
        result = trial(
            Cipher(Cipher.Params(k=1, preference_max_words=limit)),
            task="lamp4",
            limit=1,
            answer=wordy,
        )
        answers = [one for one in result.requests if "Prefers: " in content(one)]
        assert answers
        for one in answers:
            assert re.search(rf"Prefers: {expected}(\.|\n|$)", content(one)), content(one)

    orders = {}
    for order in ("nearest_last", "nearest_first"):
        result = trial(
            IclEdit(IclEdit.Params(k=3, order=order)), task="lamp4", limit=1, answer=wordy
        )
        shown = [re.findall(r"Final: (.*)", content(one)) for one in result.requests]
        orders[order] = [finals for finals in shown if len(finals) == 3]
    assert orders["nearest_last"]
    assert orders["nearest_first"] == [finals[::-1] for finals in orders["nearest_last"]]


def test_defaults_send_what_they_always_sent(tmp_path: Path) -> None:
    """Without the parameters, a stage is asked for as often as before."""
    users = crowd(items=4, peers=5)
    for method, expected in (
        (Cicl(), {"answer": 1}),
        (ComPSum(), {"analysis": 1, "answer": 1}),
        (Rag(), {"answer": 1}),
    ):
        folder = tmp_path / method.name
        folder.mkdir()
        _, _, requests = asyncio.run(ask_once(folder, users, method, question(users)))
        assert stages(requests) == expected
