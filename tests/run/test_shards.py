"""Shards: who is in which, and that merged they are the run that was never split."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from engine_fixtures import Jittery, headlines, options
from filelock import FileLock

from personabench.api import registry
from personabench.errors import DataError, UsageError
from personabench.models.backends.scripted import Scripted
from personabench.models.cache import Cache
from personabench.models.roles import RoleName
from personabench.results.summary import to_dict
from personabench.run import runner
from personabench.run.merge import _open_data, find_shards, merge_shards
from personabench.run.options import Options
from personabench.run.runner import Outcome
from personabench.run.selection import select
from personabench.run.shards import Shard, partition

TOYS = Path(__file__).parents[1] / "toy_methods.py"
TIMES = {"seconds", "durations", "cached", "time", "files", "sha256"}
"""What two runs of the same may differ in: what it took, what was paid, and the hashes of files
that hold these."""


async def shard(
    asked: Options, text: str, roles: Mapping[RoleName, Scripted] | None = None
) -> list[Outcome]:
    """Run one shard of what was asked."""
    part = Shard.read(text)
    own = dataclasses.replace(asked, shard=part, results=part.results(asked.results))
    return await runner.run(own, backend=Jittery(), roles=roles)


def merged(asked: Options, **how: Any) -> list[Outcome]:
    """Merge whatever is under the results."""
    found = find_shards(asked.results)
    return [
        merge_shards(asked.results, run, parts, **{"data": None, **how})
        for run, parts in found.items()
    ]


def timeless(value: Any) -> Any:
    """A JSON value without what two runs may differ in; receipts of calls made at once come in any
    order."""
    if isinstance(value, dict):
        kept = {name: timeless(each) for name, each in value.items() if name not in TIMES}
        # Shards have no common cache, so each pays for what the whole run would repeat.
        for total in ("calls", "input_tokens", "output_tokens"):
            repeated = "repeated" if total == "calls" else f"repeated_{total}"
            if repeated in kept:
                kept[total] += kept.pop(repeated)
        return (
            {**kept, "calls": sorted(kept["calls"], key=str)}
            if isinstance(kept.get("calls"), list)
            else kept
        )
    return [timeless(each) for each in value] if isinstance(value, list) else value


def content(folder: Path) -> dict[str, Any]:
    """Every file of a run folder but logs and lock: each line as JSON, in order, without times."""
    return {
        str(path.relative_to(folder)): [
            json.dumps(timeless(json.loads(line))) for line in path.read_text().splitlines()
        ]
        for path in sorted(folder.rglob("*"))
        if path.suffix in (".json", ".jsonl")
    }


@pytest.mark.parametrize("text", ["0/4", "5/4", "1/0", "a/b", "3", "1/4/2", "-1/4", "1.5/4", ""])
def test_a_shard_is_two_numbers(text: str) -> None:
    with pytest.raises(UsageError, match="write i/n with i from 1 to n"):
        Shard.read(text)
    assert str(Shard.read("3/8")) == "3/8"


def test_users_are_whole_shards_even_and_a_larger_limit_goes_on(tmp_path: Path) -> None:
    dataset = registry.load_class("task", "lamp4")().open(
        "user/dev", headlines(tmp_path, 23, each=3)
    )
    index = dataset.index()
    before: dict[int, int] = {}
    for limit in (10, 40, None):
        positions = select(dataset, limit, 7)
        parts = partition(dataset, positions, 4)
        assert parts.keys() == set(positions) and parts.items() >= before.items()
        before = parts
    assert len({(index[at][1], number) for at, number in before.items()}) == 23
    sizes = [len(Shard(number, 4).take(dataset, positions)) for number in range(1, 5)]
    assert sum(sizes) == 69 and max(sizes) - min(sizes) <= 3
    assert Shard(2, 4).take(dataset, positions) == [at for at in positions if before[at] == 2]


@pytest.mark.parametrize(("of", "methods"), [(1, "none"), (3, "rag,summary,dpl"), (9, "summary")])
async def test_merged_shards_are_the_unsharded_run(tmp_path: Path, of: int, methods: str) -> None:
    data = headlines(tmp_path / "data", 7, each=2, records=3)
    asked = options(
        tmp_path / "split",
        methods,
        data=data,
        limit=11,
        grid=["rag.k=1,2"] if "rag" in methods else [],
        history="shuffled",
        concurrency=1,
    )
    for number in range(of, 0, -1):
        await shard(asked, f"{number}/{of}")
    joined = merged(asked)
    whole = await runner.run(
        dataclasses.replace(asked, results=tmp_path / "whole", concurrency=1), backend=Jittery()
    )
    assert len(joined) == len(whole) == {1: 1, 3: 4, 9: 1}[of]
    for outcome in whole:
        place = outcome.folder.relative_to(tmp_path / "whole")
        assert content(tmp_path / "split" / place) == content(tmp_path / "whole" / place)
        assert outcome.summary.status == "complete" and outcome.summary.n == 12
    again = await runner.run(
        asked, backend=Scripted(answer=lambda request: pytest.fail("asked again"))
    )
    assert [timeless(to_dict(outcome.summary)) for outcome in again] == [
        timeless(to_dict(outcome.summary)) for outcome in whole
    ]


@pytest.mark.parametrize("task", ["lamp2m", "lamp3", "personamem", "reviews"])
async def test_every_kind_of_task_and_data_splits(tmp_path: Path, task: str) -> None:
    asked = options(tmp_path / "split", "none", task, limit=8)
    for number in (1, 2):
        await shard(asked, f"{number}/2")
    (joined,) = merged(asked)
    (whole,) = await runner.run(
        dataclasses.replace(asked, results=tmp_path / "whole", concurrency=1), backend=Jittery()
    )
    assert content(joined.folder) == content(whole.folder)


@pytest.mark.parametrize(
    ("task", "method"), [("Daily", "Counting"), ("Judged", "Plain"), ("Talk", "Plain")]
)
async def test_trajectories_judgements_and_dialogues_are_merged_without_a_call(
    tmp_path: Path, task: str, method: str
) -> None:
    marks = {"Judged": lambda request: "unsure" if "b2" in request.messages[0].content else "4"}
    asked = options(tmp_path / "split", f"{TOYS}:{method}", f"{TOYS}:{task}")
    for number in (1, 2):
        role: RoleName = "judge" if task == "Judged" else "simulator"
        await shard(
            asked, f"{number}/2", {role: Scripted(answer=marks.get(task, lambda request: "more"))}
        )
    (joined,) = merged(asked)
    whole = dataclasses.replace(asked, results=tmp_path / "whole", concurrency=1)
    (unsplit,) = await runner.run(
        whole,
        backend=Jittery(),
        roles={role: Scripted(answer=marks.get(task, lambda request: "more"))},
    )
    files = content(joined.folder)
    assert files == content(unsplit.folder)
    assert [
        name
        for name in files
        if name.startswith({"Daily": "states", "Judged": "judgements"}.get(task, "spec"))
    ]
    assert joined.summary.n == 12 and joined.summary.counters.get("unjudged", 0) == (
        task == "Judged"
    )


async def test_a_larger_limit_and_a_failed_sample_go_on_shard_by_shard(tmp_path: Path) -> None:
    asked = options(tmp_path / "split", data=headlines(tmp_path / "data", 9), limit=4)
    for number in (1, 2, 3):
        await shard(asked, f"{number}/3")
    assert merged(asked)[0].summary.n == 4
    larger = dataclasses.replace(asked, limit=None)
    await shard(larger, "1/3")
    with pytest.raises(UsageError, match=r"shards 1/3 and 2/3 differ in --limit \(None, 4\)"):
        merged(asked)
    await shard(larger, "2/3")
    await shard(larger, "3/3")
    (joined,) = merged(asked)
    (whole,) = await runner.run(
        dataclasses.replace(larger, results=tmp_path / "whole", concurrency=1), backend=Jittery()
    )
    assert content(joined.folder) == content(whole.folder)


async def test_what_is_not_whole_is_refused_and_partial_is_owed(tmp_path: Path) -> None:
    asked = options(tmp_path / "split", data=headlines(tmp_path / "data", 12))
    await shard(asked, "1/4")
    await shard(asked, "3/4")
    with pytest.raises(
        UsageError, match=r"is not complete: shards 2/4, 4/4 did not run. Repeat their commands"
    ):
        merged(asked)
    (predictions,) = (tmp_path / "split/shards/3-of-4").rglob("predictions.jsonl")
    predictions.write_text("".join(predictions.read_text().splitlines(keepends=True)[:-2]))
    with pytest.raises(UsageError, match=r"did not run; shard 3/4 has 2 pending samples"):
        merged(asked)
    (part,) = merged(asked, partial=True)
    assert (part.summary.status, part.summary.n, part.summary.owed) == ("incomplete", 4, 8)
    model = Jittery()
    (outcome,) = await runner.run(asked, backend=model)
    assert outcome.folder == part.folder and outcome.summary.n == 12
    assert model.asked.total() == 6, "two were deleted, but their calls are in the merged cache"
    with pytest.raises(UsageError, match="has 8 samples that its shards do not have, such as q"):
        merged(asked, partial=True)


async def test_shards_that_do_not_belong_together_are_refused(tmp_path: Path) -> None:
    data = headlines(tmp_path / "data", 6)
    asked = options(tmp_path / "split", data=data)
    for text in ("1/2", "2/2", "1/3"):
        await shard(asked, text)
    with pytest.raises(UsageError, match="was split by 2 and by 3; choose one with --shards"):
        merged(asked)
    with pytest.raises(UsageError, match="was not split by 5 but by 2 and by 3"):
        merged(asked, of=5)
    assert merged(asked, of=2)[0].summary.n == 6
    (run,) = find_shards(asked.results)
    folder = asked.results / "shards/2-of-2" / run
    with (
        FileLock(folder / "lock"),
        pytest.raises(UsageError, match=r"shard 2/2 of .* is still running; wait for it"),
    ):
        merged(asked, of=2)
    spec = json.loads((folder / "spec.json").read_text())
    (folder / "spec.json").write_text(json.dumps({**spec, "seed": 5}))
    with pytest.raises(UsageError, match="shards 1/2 and 2/2 are of different runs"):
        merged(asked, of=2)
    (folder / "shard.json").write_text("{")
    with pytest.raises(DataError, match=r"shard.json is damaged .* repeat the shard's command"):
        merged(asked, of=2)


async def test_data_may_move_but_not_change(tmp_path: Path) -> None:
    data = headlines(tmp_path / "data", 4)
    asked = options(tmp_path / "split", data=data)
    for text in ("1/2", "2/2"):
        await shard(asked, text)
    moved = Path(shutil.move(data, tmp_path / "moved"))
    with pytest.raises(DataError, match=r"no longer in .*; name its folder with --data"):
        merged(asked)
    assert merged(asked, data=moved)[0].summary.n == 4
    headlines(moved, 5)
    _open_data.cache_clear()
    with pytest.raises(DataError, match="the data of lamp4 has changed since its shards ran"):
        merged(asked, data=moved)


async def test_responses_of_all_shards_are_in_the_merged_cache(tmp_path: Path) -> None:
    asked = options(tmp_path / "split", "summary", data=headlines(tmp_path / "data", 4))
    for text in ("1/2", "2/2"):
        await shard(asked, text)
        assert not (asked.results / "cache.sqlite").exists(), "shards never write to one file"
    merged(asked)
    merged(asked)
    cache = Cache(asked.results / "cache.sqlite")
    stats = cache.stats()
    cache.close()
    assert (stats["responses"], stats["artifacts"]) == (8, 4)
    before = (asked.results / "cache.sqlite").read_bytes()
    part = Shard.read("2/3")
    paying = Jittery()
    await runner.run(
        dataclasses.replace(asked, shard=part, results=part.results(asked.results)), backend=paying
    )
    assert paying.asked.total() == 0, "what the whole run paid before, no shard pays again"
    assert (asked.results / "cache.sqlite").read_bytes() == before


async def test_a_damaged_cache_of_a_shard_is_left_out(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    asked = options(tmp_path / "split", data=headlines(tmp_path / "data", 4))
    for text in ("1/2", "2/2"):
        await shard(asked, text)
    damaged = Shard.read("1/2").results(asked.results) / "cache.sqlite"
    damaged.write_text("these are not the bytes you are looking for " * 40)
    (outcome,) = merged(asked)
    assert (
        outcome.summary.n == 4
        and str(damaged) in caplog.text
        and "merged without it" in caplog.text
    )
    cache = Cache(asked.results / "cache.sqlite")
    assert cache.stats()["responses"] == 2
    cache.close()


@pytest.mark.parametrize(
    ("name", "damage"),
    [("shard.json", b'{"task": "\xff"}'), ("predictions.jsonl", b'{"sample_id": "\xff"}\n')],
)
async def test_bytes_that_are_no_text_are_named(tmp_path: Path, name: str, damage: bytes) -> None:
    asked = options(tmp_path / "split", data=headlines(tmp_path / "data", 2))
    await shard(asked, "1/1")
    (run,) = find_shards(asked.results)
    (asked.results / "shards/1-of-1" / run / name).write_bytes(damage)
    with pytest.raises(DataError, match=rf"{name}.* is damaged \(invalid UTF-8"):
        merged(asked)


async def test_a_task_from_a_file_is_found_again_from_anywhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copy(TOYS, tmp_path / "mine.py")
    monkeypatch.chdir(tmp_path)
    asked = options(tmp_path / "split", "mine.py:Plain", "mine.py:Maybe")
    for text in ("1/2", "2/2"):
        await shard(asked, text)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert merged(asked)[0].summary.n == 12


def test_a_grid_is_every_combination_and_each_run_once(tmp_path: Path) -> None:
    model = Scripted()
    asked = options(
        tmp_path,
        "none,rag",
        grid=["rag.k=1,2", "task.template=lamp-official,chat"],
        assignments=["k=4"],
    )
    jobs = runner.resolve(asked, model)
    found = [
        (job.spec.method, job.spec.params.get("k"), job.spec.task_params["template"])
        for job in jobs
    ]
    assert sorted(found, key=str) == sorted(
        [
            (name, k, template)
            for template in ("lamp-official", "chat")
            for name, k in (("none", None), ("rag", 1), ("rag", 2))
        ],
        key=str,
    )
    for grid in ("k", "k=", "k=1,,2", "k=1,1"):
        with pytest.raises(UsageError, match=f"--grid {grid}: write key=value,value"):
            runner.resolve(dataclasses.replace(asked, grid=[grid]), model)
    with pytest.raises(UsageError, match="each key and value once"):
        runner.resolve(dataclasses.replace(asked, grid=["k=1", "k=2"]), model)
    with pytest.raises(
        UsageError, match="none of the methods none, rag has a parameter of that name"
    ):
        runner.resolve(dataclasses.replace(asked, grid=["kk=1,2"]), model)
