"""Calls, caching, wording and fallback of DPL."""

from __future__ import annotations

import asyncio
import random
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest
from dpl_fixtures import (
    WORDS,
    Headlines,
    ScriptedTask,
    Stars,
    Tags,
    crowd,
    question,
    reply,
    reviewed,
    stage,
    stages,
    text,
)

from personabench import (
    Record,
    Request,
    Sample,
    Task,
    UsageError,
    User,
)
from personabench.methods.dpl import Dpl
from personabench.methods.dpl.prompts import strip_tag
from personabench.methods.rag import Rag
from personabench.methods.summary import Summary
from personabench.models.backends.base import BackendOptions
from personabench.models.backends.scripted import Scripted
from personabench.retrieval import search as retrieval
from personabench.retrieval.bm25 import BM25
from personabench.testing.trials import trial
from personabench.types import Call, Prediction, Usage, from_json, to_json


async def test_calls_per_sample_and_reuse_by_the_same_user(tmp_path: Path) -> None:
    users = crowd(items=8)
    setup = ScriptedTask(tmp_path, users)
    method = await setup.dpl(preset="faithful")
    output, ctx, requests = await setup.ask(method, question(users))
    assert output == "A headline"
    assert stages(requests) == {
        "difference": 8,
        "profile": 1,
        "answer": 1,
        "summary": 0,
    }
    assert ctx.flags == {
        "n_eff": 8,
        "tier_1": 8,
        "k_eff": 32,
        "tag_stripped": 1,
    }
    _, _, requests = await setup.ask(method, question(users, "Another tale, of the brewery"))
    assert stages(requests)["difference"] == 0


async def test_duplicates_leave_fewer_peers_and_the_prompt_counts_them(
    tmp_path: Path,
) -> None:
    users = crowd(items=1, peers=5)
    for number in (2, 3, 4):
        history = (reviewed(users[number].id, 0, "the same words @(50,50)"),)
        users[number] = User(users[number].id, history)
    setup = ScriptedTask(tmp_path, users)
    _, ctx, requests = await setup.ask(await setup.dpl(preset="faithful"), question(users))
    assert ctx.flags["k_eff"] == 3
    system, user = (message.content for message in requests[0].messages)
    assert "3 other people" in system
    assert re.findall(r"Other person (\d)", user) == ["1", "2", "3"]


@pytest.mark.parametrize("peer_count", [0, 1, 2, 3])
async def test_few_peers_are_ineligible_in_faithful_and_all_used_in_lamp(
    tmp_path: Path, peer_count: int
) -> None:
    users = crowd(items=2, peers=peer_count)
    setup = ScriptedTask(tmp_path, users)
    _, ctx, _ = await setup.ask(await setup.dpl(preset="faithful"), question(users))
    assert ctx.flags["fallback"] == 1
    assert ctx.flags["n_eff"] == 0
    _, ctx, _ = await setup.ask(await setup.dpl(preset="adapted"), question(users))
    if peer_count:
        assert ctx.flags["k_eff"] == 2 * peer_count
        assert "fallback" not in ctx.flags
    else:
        assert ctx.flags["fallback"] == 1


@pytest.mark.parametrize("items", [12, 30])
async def test_ties_put_the_later_record_first(tmp_path: Path, items: int) -> None:
    users = crowd(items=items, peers=4)
    setup = ScriptedTask(tmp_path, users)
    sample = question(users, "nothing shared")
    method = await setup.dpl(preset="faithful", n_docs=3)
    _, _, requests = await setup.ask(method, sample)
    prompts = [
        request.messages[1].content for request in requests if stage(request) == "difference"
    ]
    assert [re.search(r"item(\d+)", prompt)[1] for prompt in prompts] == [  # type: ignore[index]
        str(items - 1),
        str(items - 2),
        str(items - 3),
    ]


async def test_no_eligible_record_falls_back_without_an_exception(
    tmp_path: Path,
) -> None:
    users = [User("ann", (Record("a", "One story", "words"),)), User("bob", ())]
    setup = ScriptedTask(tmp_path, users)
    for sample in (question(users), question([User("ann", ())])):
        _, ctx, requests = await setup.ask(await setup.dpl(), sample)
        assert ctx.flags["fallback"] == 1
        assert stages(requests)["difference"] == 0


async def test_prompts_do_not_depend_on_which_samples_run(tmp_path: Path) -> None:
    # A run on a subset must be comparable with, and cached by, the whole run.
    users = crowd()
    first = question(users)
    second = Sample(
        "q2",
        "peer0",
        "Of a glacier",
        stimulus="Of a glacier",
        history=users[1].history,
    )
    alone, both = (
        ScriptedTask(tmp_path / "alone", users),
        ScriptedTask(tmp_path / "both", users),
    )
    _, _, expected = await alone.ask(await alone.dpl(population_max_users=4), first)
    method = await both.dpl(population_max_users=4)
    await both.ask(method, second)
    _, _, requests = await both.ask(method, first)
    assert [request.messages for request in requests] == [request.messages for request in expected]


@pytest.mark.parametrize("task", ["lamp2m", "lamp4", "reviews"])
def test_a_smaller_run_sends_a_subset_of_the_requests(task: str) -> None:
    few, more = (
        trial(
            Dpl(Dpl.Params(n_docs=3)),
            task,
            limit=limit,
        )
        for limit in (2, 6)
    )
    requested = {str(request.messages) for request in more.requests}
    assert {stage(request) for request in few.requests} == {"difference", "profile", "answer"}
    assert {str(request.messages) for request in few.requests} < requested
    flags = {line.sample_id: line.flags for line in more.predictions}
    assert all(line.flags == flags[line.sample_id] for line in few.predictions)


async def test_each_difference_stays_with_its_record(tmp_path: Path) -> None:
    users = crowd(items=8)
    waits = random.Random(5)

    class Shuffled(Scripted):
        async def complete(self, request: Request, group: str) -> Any:
            await asyncio.sleep(waits.random() / 50)
            return await super().complete(request, group)

    setup = ScriptedTask(tmp_path, users)
    setup.client.backend = setup.backend = Shuffled(BackendOptions(model="scripted"), answer=reply)
    _, _, requests = await setup.ask(await setup.dpl(), question(users))
    body = next(request for request in requests if stage(request) == "profile").messages[1].content
    pairs = re.findall(
        r"Story: .*?(\w+)\nHow this columnist differs:\nForm: shorter about (\w+)\.", body
    )
    assert len(pairs) == 8
    assert all(subject == described for subject, described in pairs)


async def test_a_changed_second_stage_still_pairs_cached_differences(
    tmp_path: Path,
) -> None:
    users = crowd(items=8)
    setup = ScriptedTask(tmp_path, users)
    await setup.ask(await setup.dpl(), question(users))
    _, _, requests = await setup.ask(
        await setup.dpl(), question(users, "Of a quarry, a library and item2")
    )
    assert stages(requests)["difference"] == 0
    body = next(request for request in requests if stage(request) == "profile").messages[1].content
    pairs = re.findall(
        r"Story: .*?(\w+)\nHow this columnist differs:\nForm: shorter about (\w+)\.", body
    )
    assert len(pairs) == 8
    assert all(subject == described for subject, described in pairs)


@pytest.mark.parametrize(
    "tagged",
    [
        "Summary: Dry wit.",
        "  \n Summary: Dry wit.",
        "**Summary:** Dry wit.",
        "**Summary**: Dry wit.",
        "summary: Dry wit.",
        "SUMMARY\nDry wit.",
        "Summary Dry wit.",
        "## Summary\n\nDry wit.",
        "[Summary]: Dry wit.",
        "<Summary> Dry wit.",
    ],
)
def test_tag_variants_parse_alike(tagged: str) -> None:
    # Small models decorate the tag, and a tag left in the notes changes the final prompt.
    assert strip_tag(tagged) == ("Dry wit.", True)


@pytest.mark.parametrize(
    "plain",
    [
        "Dry wit.",
        "Summaries bore this columnist.",
        "Summary-like headlines.",
        "Summary of the columnist: dry wit.",
        "**Summary of the columnist:** dry wit.",
    ],
)
def test_no_tag_leaves_the_text(plain: str) -> None:
    assert strip_tag(f" {plain}") == (plain, False)


@pytest.mark.parametrize("task", [Tags(), Stars()])
async def test_agreement_is_a_fixed_line_without_a_call(tmp_path: Path, task: Task) -> None:
    # There is no difference to describe, so the model could only invent one.
    users = [User(person, (reviewed(person, 0, "4"),)) for person in ("ann", "bob", "cem")]
    setup = ScriptedTask(tmp_path, users, task)
    _, ctx, requests = await setup.ask(await setup.dpl(), question(users))
    assert stages(requests) == {
        "difference": 0,
        "profile": 1,
        "answer": 1,
        "summary": 0,
    }
    assert "2 of 2 other people gave the same headline as this columnist." in text(requests)
    assert ctx.flags == {
        "n_eff": 1,
        "tier_1": 1,
        "k_eff": 0,
        "agreement_lines": 1,
        "tag_stripped": 1,
    }


async def test_without_a_population_the_prompts_are_those_of_summary(
    tmp_path: Path,
) -> None:
    users = crowd()
    samples = [question(users), question([User("nobody", ())])]
    dpl_setup, summary_setup = (
        ScriptedTask(tmp_path / "dpl", users),
        ScriptedTask(tmp_path / "summary", users),
    )
    method = await dpl_setup.dpl(prepared=False)
    for sample in samples:
        output, ctx, requests = await dpl_setup.ask(method, sample)
        expected, _, expected_requests = await summary_setup.ask(
            Summary(Summary.Params(k=8)), sample
        )
        assert requests == expected_requests
        assert output == expected
        assert ctx.flags["fallback"] == 1


@pytest.mark.parametrize("change", ["model", "k", "axes", "wording"])
async def test_what_changes_a_difference_misses_the_cache(
    tmp_path: Path, change: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    users = crowd(items=8)
    setup = ScriptedTask(tmp_path, users)
    await setup.ask(await setup.dpl(), question(users))
    task = Headlines()
    if change == "axes":
        task.words = msgspec.structs.replace(WORDS, axes=WORDS.axes[:2])  # type: ignore[misc]
    if change == "wording":
        monkeypatch.setattr(
            "personabench.methods.dpl.prompts._count_points", lambda count: f"all of {count} axes"
        )
    again = ScriptedTask(
        tmp_path,
        users,
        task,
        model="another" if change == "model" else "scripted",
    )
    method = await again.dpl(k_peers=2) if change == "k" else await again.dpl()
    _, _, requests = await again.ask(method, question(users))
    assert stages(requests)["difference"] == 8


async def test_fewer_records_need_no_new_differences(tmp_path: Path) -> None:
    users = crowd()
    setup = ScriptedTask(tmp_path, users)
    await setup.ask(await setup.dpl(n_docs=8), question(users))
    _, ctx, requests = await setup.ask(await setup.dpl(n_docs=4), question(users))
    assert stages(requests) == {
        "difference": 0,
        "profile": 1,
        "answer": 1,
        "summary": 0,
    }
    assert ctx.flags["n_eff"] == 4


def long_crowd() -> list[User]:
    return [
        User(
            user.id,
            tuple(
                msgspec.structs.replace(record, stimulus=f"{record.stimulus} " + "and on " * 90)
                for record in user.history
            ),
        )
        for user in crowd(items=8)
    ]


async def test_the_lowest_ranked_records_go_first(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    # The best records carry most of the evidence.
    users = long_crowd()
    setup = ScriptedTask(tmp_path, users, window=3200)
    about = "A tale of the tramway " + "and more " * 40
    with caplog.at_level("INFO"):
        _, ctx, requests = await setup.ask(await setup.dpl(), question(users, about))
    body = next(request for request in requests if stage(request) == "profile").messages[1].content
    cases, _, records = body.partition("Earlier records")
    dropped = int(ctx.flags["profile_records_dropped"])
    ranked = [
        str(record.item)[1:] for record in await setup.context().retrieve(question(users, about), 8)
    ]
    assert 0 < dropped < 8
    assert re.findall(r"of item(\d+) and", records) == ranked[: 8 - dropped]
    assert cases.count("Case ") == 8
    assert f"profile_records_dropped: {dropped}" in caplog.text
    assert about in requests[-1].messages[1].content


async def test_then_stimuli_are_shortened_then_cases_dropped(tmp_path: Path) -> None:
    users = long_crowd()
    setup = ScriptedTask(tmp_path, users, window=1400)
    _, ctx, requests = await setup.ask(
        await setup.dpl(profile_max_tokens=64, difference_max_tokens=64), question(users)
    )
    assert ctx.flags["profile_records_dropped"] == 8
    assert ctx.flags["stimuli_shortened"] > 0
    assert "cases_dropped" not in ctx.flags
    narrow = ScriptedTask(tmp_path, users, window=640)
    method = await narrow.dpl(profile_max_tokens=64, difference_max_tokens=64)
    _, ctx, requests = await narrow.ask(method, question(users))
    body = next(request for request in requests if stage(request) == "profile").messages[1].content
    assert ctx.flags["cases_dropped"] == 8 - body.count("Case ")
    assert 0 < body.count("Case ") < 8
    assert "Story: A new tale of the tramway and the orchard" in requests[-1].messages[1].content


async def test_dashes_and_newlines_survive(
    tmp_path: Path,
) -> None:
    users = crowd()
    awkward = "First\n--------\n\nSecond\u2028line \u2014 --- end"
    setup = ScriptedTask(
        tmp_path,
        users,
        answer=lambda request: awkward if stage(request) == "answer" else reply(request),
    )
    output, ctx, _ = await setup.ask(await setup.dpl(), question(users))
    line = to_json(Prediction("q1", "ann", output, output, ctx.flags, tuple(ctx.calls), Usage()))
    assert "\n" not in line
    read = from_json(line, Prediction)
    assert read.output == awkward
    assert {name: read.flags[name] for name in ("n_eff", "k_eff", "tier_1")} == {
        "n_eff": 8,
        "k_eff": 32,
        "tier_1": 8,
    }
    assert all(isinstance(call, Call) for call in read.calls)


@pytest.mark.parametrize("retriever", ["bm25", "dense", "random"])
async def test_the_records_shown_are_those_of_rag(tmp_path: Path, retriever: str) -> None:
    # The gain over `rag` is then due to the profile alone.
    users = crowd(items=20)
    setup = ScriptedTask(tmp_path, users)
    record_lists = []
    for method in (
        await setup.dpl(n_docs=4, retriever=retriever),
        Rag(Rag.Params(k=4, retriever=retriever)),
    ):
        _, _, requests = await setup.ask(method, question(users))
        record_lists.append(re.findall(r"<(ann-\d+)>", requests[-1].messages[1].content))
    assert len(record_lists[0]) == 4
    assert record_lists[0] == record_lists[1]


async def test_runs_of_one_population_share_its_index(tmp_path: Path) -> None:
    # A dry run comes before every run, and an index of a large population takes seconds.
    setup = ScriptedTask(tmp_path, crowd())
    first, second = await setup.dpl(), await setup.dpl()
    assert first.peers is second.peers
    assert (await setup.dpl(tau=0.5)).peers is not first.peers
    # In a dry run the user scope comes from filler in place of embeddings.
    scoped, other = await setup.dpl(tiers="user"), await setup.dpl(tiers="user")
    assert scoped.peers is not other.peers


async def test_a_history_is_indexed_once_for_ranking_and_for_showing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # However many samples are in progress: the cache of indexes holds none but the last one here.
    users = crowd(items=20)
    setup = ScriptedTask(tmp_path, users)
    method = await setup.dpl()
    monkeypatch.setattr(retrieval, "_indexes", retrieval.IndexCache(1))
    built: list[int] = []
    build = BM25.__init__

    def count(index: BM25, documents: Sequence[str], *args: Any, **more: Any) -> None:
        built.append(len(documents))
        build(index, documents, *args, **more)

    monkeypatch.setattr(BM25, "__init__", count)
    sizes = range(10, 10 + len(users))
    samples = [
        Sample(f"q{user.id}", user.id, "Of a glacier", history=user.history[:size])
        for user, size in zip(users, sizes, strict=True)
    ]
    await asyncio.gather(*(setup.ask(method, sample) for sample in samples))
    assert sorted(built) == list(sizes)


async def test_an_empty_difference_is_a_failed_record(tmp_path: Path) -> None:
    users = crowd(items=3)
    mute = ScriptedTask(
        tmp_path / "one",
        users,
        answer=lambda request: (
            " " if "item1 " in request.messages[1].content.split("\n")[0] else reply(request)
        ),
    )
    _, ctx, requests = await mute.ask(await mute.dpl(), question(users))
    assert ctx.flags["n_eff"] == 2
    assert ctx.flags["failed_docs"] == 1
    body = next(request for request in requests if stage(request) == "profile").messages[1].content
    assert body.count("Case ") == 2
    silent = ScriptedTask(
        tmp_path / "all",
        users,
        answer=lambda r: "" if stage(r) == "difference" else reply(r),
    )
    _, ctx, requests = await silent.ask(await silent.dpl(), question(users))
    assert ctx.flags["fallback"] == 1
    assert ctx.flags["failed_docs"] == 3
    assert stages(requests)["summary"] == 1


async def test_a_part_of_the_axes_or_none(tmp_path: Path) -> None:
    users = crowd(items=3)
    setup = ScriptedTask(tmp_path, users)
    for params, present, absent in (
        ({"axes": "Form"}, ["- Form: ", "one point"], ["- Affect", "- Substance"]),
        ({"axes": "Substance, Form"}, ["- Substance: ", "- Form: ", "2 points"], ["- Affect"]),
        ({"free_form": True}, ["State how this columnist differs"], ["- Form", "points"]),
        ({}, ["- Form: ", "- Affect: ", "- Substance: ", "3 points"], []),
    ):
        method = await setup.dpl(**params)
        _, _, requests = await setup.ask(method, question(users))
        systems = [one.messages[0].content for one in requests if stage(one) == "difference"]
        assert systems
        for system in systems:
            assert all(part in system for part in present), params
            assert not any(part in system for part in absent), params
    with pytest.raises(UsageError, match="has no axis 'Tone'; it has Form, Affect, Substance"):
        await setup.dpl(axes="Form,Tone")


async def test_blocks_of_their_own_sizes_and_order(tmp_path: Path) -> None:
    users = crowd(items=8)

    async def show(**params: Any) -> tuple[list[str], list[str], list[str]]:
        """Ids compared, shown with the profile's request, and shown with the answer's."""
        folder = tmp_path / str(params)
        folder.mkdir()
        setup = ScriptedTask(folder, users)
        _, _, requests = await setup.ask(await setup.dpl(**params), question(users))
        compared = [text([one]) for one in requests if stage(one) == "difference"]
        (profile,) = [text([one]) for one in requests if stage(one) == "profile"]
        (answer,) = [text([one]) for one in requests if stage(one) == "answer"]
        shown = profile.partition("Earlier records")[2]
        return (
            sorted({re.findall(r"item(\d)", one)[0] for one in compared}),
            re.findall(r"item(\d)", shown),
            re.findall(r"<ann-(\d)>", answer),
        )

    compared, in_profile, in_answer = await show(n_docs=2, n_shown=5)
    assert (len(compared), len(in_profile), len(in_answer)) == (2, 5, 5)
    assert in_profile == in_answer
    _, best_last, in_answer = await show(n_docs=2, n_shown=5, order="best_last")
    assert best_last == in_profile[::-1] and in_answer == in_profile
    compared, in_profile, _ = await show(num_documents=3)
    assert set(compared) | set(in_profile) == {"5", "6", "7"}


async def test_without_a_summarizer_the_differences_are_shown(tmp_path: Path) -> None:
    users = crowd(items=3)
    setup = ScriptedTask(tmp_path, users)
    _, _, requests = await setup.ask(await setup.dpl(summarize=False), question(users))
    assert stages(requests) == {"difference": 3, "profile": 0, "answer": 1, "summary": 0}
    (answer,) = [text([one]) for one in requests if stage(one) == "answer"]
    assert answer.count("How this columnist differs:\nForm: shorter about") == 3
