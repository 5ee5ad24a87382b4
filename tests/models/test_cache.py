# ruff: noqa: SLF001 - the statements of the connection
"""The response cache as a file: content, keys, pruning, damage, a full disk."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from engine_fixtures import Jittery, headlines, make_engine

from personabench.errors import DataError, RunError, UsageError
from personabench.methods.none import NoPersonalization
from personabench.models.backends.scripted import Scripted
from personabench.models.cache import Cache, difference, request_key
from personabench.models.client import Client
from personabench.types import Message, Request, Response, Usage, to_json

MODEL = {"kind": "scripted", "name": "scripted"}


@pytest.fixture
def cache(tmp_path: Path) -> Iterator[Cache]:
    cache = Cache(tmp_path / "cache.sqlite")
    yield cache
    cache.close()


def ask(content: str, **changes: int) -> Request:
    return Request(
        (Message("system", "Be brief."), Message("user", content)), max_tokens=9, **changes
    )


def test_what_is_stored_comes_back(tmp_path: Path) -> None:
    cache = Cache(tmp_path / "new" / "folder" / "cache.sqlite")
    response = Response("zwölf", "length", Usage(3, 4, 1), 0.5, ({"token": "z", "logprob": -0.1},))
    request = Request((Message("user", "ä\x00\n'"),), 5, 0.7, 0.9, 3, {"type": "object"}, 2, 1)
    key = request_key(MODEL, request)
    assert (
        cache.get(key) is None and cache.request(key) is None and cache.artifact("profile") is None
    )
    cache.put(key, MODEL, request, response)
    cache.put_artifact("profile", {"state": ["a", 1, None]})
    cache.close()
    again = Cache(cache.path)
    assert again.get(key) == response and again.request(key) == request
    assert again.artifact("profile") == {"state": ["a", 1, None]}
    assert again.stats()["responses"] == again.stats()["artifacts"] == 1
    assert again.stats()["models"] == {"scripted": 1}


def test_keys_name_content_alone() -> None:
    key = request_key(MODEL, ask("a"))
    assert key == request_key(dict(reversed(MODEL.items())), ask("a")) and len(key) == 64
    others = [ask("b"), ask("a", seed=1), ask("a", repeat=1), ask("a", logprobs=1)]
    assert len({key, *(request_key(MODEL, other) for other in others)}) == 5
    assert request_key({**MODEL, "name": "other"}, ask("a")) != key


def test_keys_and_json_names_stay_those_of_caches_on_disk() -> None:
    request = Request(
        (Message("system", "Be brief."), Message("user", "Was möchtest du? 日本")),
        max_tokens=64,
        temperature=0.7,
        top_p=0.9,
        seed=5,
        schema={"type": "object", "properties": {"a": {"type": "string"}}},
        logprobs=3,
        repeat=2,
    )
    expected = "d558b60ad9bc005993e8dc47a62a10edbde8ab1da5a9c5f10ad701d9dde6bad3"
    assert request_key({"kind": "api", "name": "m"}, request) == expected
    assert '"draw":2' in to_json(request)


def test_two_processes_share_a_file(tmp_path: Path) -> None:
    one, two = Cache(tmp_path / "c"), Cache(tmp_path / "c")
    one.put("k1", MODEL, ask("a"), Response("x"))
    two.put("k2", MODEL, ask("b"), Response("y"))
    assert (one.get("k2"), two.get("k1")) == (Response("y"), Response("x"))


def test_nearest_and_difference(tmp_path: Path) -> None:
    cache = Cache(tmp_path / "c")
    assert cache.nearest(MODEL, ask("a")) is None
    for content in ("the red kite", "the red house"):
        cache.put(request_key(MODEL, ask(content)), MODEL, ask(content), Response("x"))
    wanted = ask("the red horse")
    nearest = cache.nearest(MODEL, wanted)
    assert nearest is not None and nearest[0] == ask("the red house")
    assert "messages[1] (user) from character 10: wanted 'rse', stored 'use'" in difference(
        wanted, MODEL, *nearest
    )
    assert difference(wanted, MODEL, wanted, MODEL) == "nothing: the call is stored"
    shorter = Request(wanted.messages[:1], 9)
    assert difference(wanted, MODEL, shorter, MODEL) == "messages: wanted 2, stored 1"
    assert difference(ask("a", repeat=2), MODEL, ask("a"), MODEL) == "repeat: wanted 2, stored 0"


def test_the_nearest_call_shares_messages_before_it_shares_a_beginning(tmp_path: Path) -> None:
    def turns(*contents: str) -> Request:
        return Request(tuple(Message("user", content) for content in contents), 9)

    cache = Cache(tmp_path / "c")
    same_question, other_question = (
        turns("an older record", "a record", "the question"),
        turns("a recipe", "how so?"),
    )
    for stored in (same_question, other_question):
        cache.put(request_key(MODEL, stored), MODEL, stored, Response("x"))
    nearest = cache.nearest(MODEL, turns("a record", "the question"))
    assert nearest is not None and nearest[0] == same_question


def test_models_of_one_name_are_counted_together(tmp_path: Path) -> None:
    cache = Cache(tmp_path / "c")
    for number, model in enumerate(({**MODEL, "sha256": "a"}, {**MODEL, "sha256": "b"})):
        cache.put(str(number), model, ask("a"), Response("x"))
    assert cache.stats()["models"] == {"scripted": 2}


def test_pruning_by_age_and_model(tmp_path: Path) -> None:
    cache = Cache(tmp_path / "c")
    for name, days in (("new", 0.0), ("old", 40.0), ("other", 0.0)):
        model = {**MODEL, "name": "second"} if name == "other" else MODEL
        cache.put(name, model, ask(name), Response("x"))
        cache.put_artifact(name, 1)
        with sqlite3.connect(cache.path) as raw:
            for table in ("responses", "artifacts"):
                raw.execute(
                    f"UPDATE {table} SET time=? WHERE key=?", (time.time() - days * 86400, name)
                )
    assert cache.prune(older_than_days=30) == 1
    assert cache.get("old") is None and cache.get("new") is not None
    assert cache.artifact("old") is None and cache.artifact("new") == 1
    assert cache.prune(model="second") == 1 and cache.get("other") is None
    assert cache.stats()["responses"] == 1


def test_a_file_that_is_no_cache_is_named(tmp_path: Path) -> None:
    path = tmp_path / "cache.sqlite"
    path.write_text("these are not the bytes you are looking for " * 40)
    with pytest.raises(
        UsageError, match=r"cache\.sqlite cannot be opened as a response cache .*; move it away"
    ):
        Cache(path)
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="cannot be created"):
        Cache(tmp_path / "file" / "cache.sqlite")


def test_a_cache_that_cannot_be_opened_is_no_damaged_cache(tmp_path: Path) -> None:
    (tmp_path / "cache.sqlite").mkdir()
    with pytest.raises(RunError, match="cannot be opened"):
        Cache(tmp_path / "cache.sqlite")


def damaged(path: Path) -> Cache:
    """A cache whose file is damaged from its fourth page on."""
    cache = Cache(path)
    for number in range(300):
        cache.put(f"{number:064d}", MODEL, ask("x" * 500), Response("y" * 200))
    cache.close()
    data = bytearray(path.read_bytes())
    data[4096 * 3 :] = b"\xff" * (len(data) - 4096 * 3)
    path.write_bytes(data)
    return Cache(path)


def test_damage_inside_the_file_is_a_message(tmp_path: Path) -> None:
    broken = damaged(tmp_path / "cache.sqlite")
    with pytest.raises(RunError, match=r"cache\.sqlite cannot be read .*; move it away"):
        for number in range(300):
            broken.get(f"{number:064d}")


def test_damage_is_a_message_whatever_is_asked(tmp_path: Path) -> None:
    broken = damaged(tmp_path / "cache.sqlite")
    for asked in (
        broken.stats,
        lambda: broken.nearest(MODEL, ask("x")),
        lambda: broken.prune(older_than_days=1),
    ):
        with pytest.raises(
            RunError, match=r"cache\.sqlite cannot be (read|written) .*; move it away"
        ):
            asked()


@pytest.mark.parametrize(
    "damage", ["'{'", "'[]'", "NULL", "5", "CAST(x'7b22ff22' AS TEXT)", "x'ff'"]
)
def test_a_damaged_entry_is_a_miss_that_is_overwritten(tmp_path: Path, damage: str) -> None:
    older = Cache(tmp_path / "older")
    cache = Cache(tmp_path / "cache.sqlite", older.path)
    key = request_key(MODEL, ask("a"))

    def fill() -> None:
        cache.put(key, MODEL, ask("a"), Response("x"))
        cache.put_artifact("profile", {"state": 1})

    fill()
    with closing(sqlite3.connect(cache.path)) as database, database:
        database.execute(
            f"UPDATE responses SET response={damage}, request={damage}, model={damage}"
        )
        database.execute("UPDATE artifacts SET value='{'")
    assert (cache.get(key), cache.request(key), cache.artifact("profile")) == (None, None, None)
    assert cache.nearest(MODEL, ask("a")) is None and cache.stats()["models"] == {"unreadable": 1}
    assert cache.prune(model="scripted") == 0
    older.put(key, MODEL, ask("a"), Response("from the older one"))
    assert cache.get(key) == Response("from the older one")
    fill()
    assert cache.get(key) == Response("x") and cache.artifact("profile") == {"state": 1}
    assert cache.prune(model="scripted") == 1


@pytest.mark.parametrize("column", ["response", "request", "model"])
def test_one_changed_character_of_an_entry_makes_it_a_miss(tmp_path: Path, column: str) -> None:
    cache = Cache(tmp_path / "cache.sqlite")
    key = request_key(MODEL, ask("scripted"))
    cache.put(key, MODEL, ask("scripted"), Response("scripted"))
    cache.put_artifact("profile", {"state": "scripted"})
    assert cache.get(key) is not None and cache.artifact("profile") is not None
    with closing(sqlite3.connect(cache.path)) as database, database:
        database.execute(f"UPDATE responses SET {column}=replace({column}, 'scri', 'scry')")
        database.execute("UPDATE artifacts SET value=replace(value, 'scri', 'scry')")
    assert (cache.get(key), cache.request(key), cache.artifact("profile")) == (None, None, None)


def test_a_cache_of_an_earlier_version_is_read_extended_and_merged(tmp_path: Path) -> None:
    older = tmp_path / "older"
    with closing(sqlite3.connect(older)) as database, database:
        database.execute(
            "CREATE TABLE responses(key TEXT PRIMARY KEY, model TEXT, request TEXT, response TEXT, "
            "time REAL)"
        )
        database.execute("CREATE TABLE artifacts(key TEXT PRIMARY KEY, value TEXT, time REAL)")
        stored = ("k", to_json(MODEL), to_json(ask("a")), to_json(Response("x")), 1.0)
        database.execute("INSERT INTO responses VALUES(?,?,?,?,?)", stored)
        database.execute("INSERT INTO artifacts VALUES('p', '1', 1.0)")
    behind = Cache(tmp_path / "new", older)
    assert (behind.get("k"), behind.artifact("p")) == (Response("x"), 1)
    merged = Cache(tmp_path / "merged")
    merged.absorb(older)
    assert (merged.get("k"), merged.artifact("p")) == (Response("x"), 1)
    opened = Cache(older)
    opened.put("l", MODEL, ask("b"), Response("y"))
    assert (opened.get("k"), opened.get("l")) == (Response("x"), Response("y"))
    merged.absorb(older)
    assert merged.get("l") == Response("y")


def test_a_damaged_cache_that_is_taken_in_is_the_one_that_is_named(tmp_path: Path) -> None:
    cache, good = Cache(tmp_path / "cache.sqlite"), Cache(tmp_path / "good")
    good.put("k", MODEL, ask("a"), Response("x"))
    (tmp_path / "bad").write_text("these are not the bytes you are looking for " * 40)
    with pytest.raises(
        DataError, match=r"response cache .*/bad cannot be merged into .*cache\.sqlite"
    ):
        cache.absorb(tmp_path / "bad")
    cache.absorb(good.path)
    assert cache.get("k") == Response("x")


def test_a_file_that_cannot_be_written_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "cache.sqlite"
    cache = Cache(path)
    cache.put("k", MODEL, ask("a"), Response("x"))
    cache.close()
    connect = sqlite3.connect

    class Refused(sqlite3.Connection):
        """SQLite in a folder that cannot be written: no place for the shared memory of its log."""

        def execute(self, *words: Any) -> Any:
            raise sqlite3.OperationalError("unable to open database file")

        executescript = execute

    def connected(place: object, **how: Any) -> sqlite3.Connection:
        kind = sqlite3.Connection if "immutable" in str(place) else Refused
        return connect(str(place), factory=kind, **how)

    monkeypatch.setattr(sqlite3, "connect", connected)
    with pytest.raises(RunError, match="cannot be opened") as caught:
        Cache(path, writing=True)
    assert "free some space" not in str(caught.value) and "can be read and written" in str(
        caught.value
    )
    reading = Cache(path)
    assert reading.get("k") == Response("x") and reading.stats()["responses"] == 1
    assert reading.nearest(MODEL, ask("b")) is not None
    with pytest.raises(RunError, match=r"cannot be written .*readonly.*can be read and written"):
        reading.put("l", MODEL, ask("b"), Response("y"))


async def test_a_full_disk_stops_the_run_and_loses_nothing(tmp_path: Path) -> None:
    data = headlines(tmp_path / "data", 200)
    cache = Cache(tmp_path / "cache.sqlite")
    database = cache._db
    pages = database.execute("PRAGMA page_count").fetchone()[0]
    database.execute(f"PRAGMA max_page_count={pages + 12}")
    backend = Jittery()
    setup = make_engine(
        tmp_path, NoPersonalization(), data, backend=backend, cache=cache, concurrency=4
    )
    with pytest.raises(RunError, match=r"cache\.sqlite cannot be written .*full.*free some space"):
        await setup.run()
    setup.close()
    done, paid = setup.predictions(), backend.asked.total()
    assert 10 < len(done) < 200 and not any(line.error for line in done.values())

    backend = Jittery()
    setup = make_engine(tmp_path, NoPersonalization(), data, backend=backend)
    assert await setup.run() and len(setup.predictions()) == 200
    setup.close()
    assert backend.asked.total() == 200 - len(done) and paid - len(done) <= 4


async def test_calls_that_finish_together_are_on_disk_before_any_of_them_returns(
    cache: Cache,
) -> None:
    statements: list[str] = []
    cache._db.set_trace_callback(statements.append)

    async def store(name: str) -> Response | None:
        await cache.store(name, MODEL, ask(name), Response(name))
        other = Cache(cache.path)
        stored = other.get(name)
        other.close()
        return stored

    names = [f"k{number}" for number in range(20)]
    stored = await asyncio.gather(*map(store, names))
    assert [response and response.text for response in stored] == names
    assert statements.count("COMMIT") == 1
    # Alone, a call does not wait for others.
    assert await store("alone") == Response("alone")


async def test_a_call_that_nobody_waits_for_any_more_is_stored_with_the_others(
    cache: Cache,
) -> None:
    callers = [
        asyncio.create_task(cache.store(name, MODEL, ask(name), Response(name)))
        for name in ("dropped", "kept")
    ]
    await asyncio.sleep(0)
    callers[0].cancel()
    ended = await asyncio.gather(*callers, return_exceptions=True)
    assert isinstance(ended[0], asyncio.CancelledError) and ended[1] is None
    assert cache.get("dropped") == Response("dropped")
    assert cache.get("kept") == Response("kept")


async def test_a_failed_write_reaches_every_caller_and_leaves_no_part(cache: Cache) -> None:
    cache._db.execute("PRAGMA max_page_count=1")
    long = Response("x" * 500_000)
    names = ("a", "b", "c")
    ended = await asyncio.gather(
        *(cache.store(name, MODEL, ask(name), long) for name in names), return_exceptions=True
    )
    assert [type(error) for error in ended] == [RunError] * 3
    assert "free some space" in str(ended[0])
    cache._db.execute("PRAGMA max_page_count=100000")
    assert [cache.get(name) for name in names] == [None] * 3
    await cache.store("a", MODEL, ask("a"), long)
    assert cache.get("a") == long


async def test_closing_writes_what_waits(tmp_path: Path) -> None:
    cache = Cache(tmp_path / "c.sqlite")
    caller = asyncio.create_task(cache.store("k", MODEL, ask("a"), Response("x")))
    await asyncio.sleep(0)
    cache.close()
    await caller
    again = Cache(tmp_path / "c.sqlite")
    assert again.get("k") == Response("x")
    again.close()


async def test_no_call_begins_before_the_one_whose_place_it_takes_is_on_disk(cache: Cache) -> None:
    unstored: list[int] = []
    begun = 0

    class Watched(Scripted):
        async def complete(self, request: Request, group: str) -> Response:
            nonlocal begun
            begun += 1
            with closing(sqlite3.connect(cache.path)) as other:
                ((stored,),) = other.execute("SELECT count(*) FROM responses")
            unstored.append(begun - stored)
            # All calls that are in flight end in one turn of the loop.
            await asyncio.sleep(0)
            return await super().complete(request, group)

    client = Client(Watched(), cache, concurrency=20)
    requests = [ask(f"question {number}") for number in range(80)]
    await asyncio.gather(*(client.complete(request, "predict", "u") for request in requests))
    assert len(unstored) == 80
    assert max(unstored) == 20
