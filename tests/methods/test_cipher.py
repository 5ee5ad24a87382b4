"""CIPHER and its family against the method items of their acceptance list, with a stub model and a rule-based user."""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import nltk
import numpy as np
import numpy.typing as npt
import pytest

from personabench import (
    Context,
    Message,
    Method,
    Metric,
    Record,
    Rendered,
    Request,
    Sample,
    Task,
    Tokens,
    UsageError,
    plan,
    registry,
    runner,
)
from personabench import Words as TaskWords
from personabench.backends.scripted import Scripted
from personabench.cache import Cache
from personabench.client import Client
from personabench.methods.cipher import HIDDEN_PREFERENCE, Cipher, Continual, CotEdit, EThenE, IclEdit, Oracle, prompts
from personabench.methods.cipher.edits import differs, edit_cost
from personabench.methods.cipher.learner import nearest
from personabench.retrieval.dense import Embedders
from personabench.spec import Sampling
from personabench.testing import trial
from personabench.types import from_json, to_json

BASE = "The team met on Monday. They agreed on a plan."
SOURCES = ("alpha", "beta", "gamma", "delta", "epsilon")
FAMILY = [Cipher, IclEdit, CotEdit, Continual, EThenE]


class Rule(NamedTuple):
    phrase: str
    holds: Callable[[str], bool]
    fix: Callable[[str], str]


RULES = (
    Rule("all lower case", lambda text: text == text.lower(), str.lower),
    Rule(
        "bullet points",
        lambda text: all(line.startswith("- ") for line in text.splitlines() if line),
        lambda text: "\n".join(line if line.startswith("- ") else f"- {line}" for line in text.splitlines()),
    ),
    Rule(
        "ends with a question",
        lambda text: text.rstrip().endswith("?"),
        lambda text: text + " What do you think?",
    ),
    Rule("uses an emoji", lambda text: "🙂" in text, lambda text: text + " 🙂"),
    Rule(
        "opens with a greeting",
        lambda text: re.split(r"\W+", text.lower())[0] in ("hello", "hi", "dear"),
        lambda text: "Hello,\n" + text,
    ),
)
RULE_OF = dict(zip(SOURCES, RULES, strict=True))


class Briefs(Task):
    name = "briefs"
    metrics = (Metric("exact"),)
    max_tokens = 200
    words = TaskWords("reader", "note", "brief", "What briefs does this reader like?", (), "Write the brief only.")

    def open(self, split: str, data: Path | None) -> Any:
        raise UsageError("only notes made up here")

    def render(self, sample: Sample, records: Sequence[Record], notes: str, tokens: Tokens) -> Rendered:
        system = f"{self.words.instruction}\n{notes}" if notes else self.words.instruction
        return Rendered((Message("system", system), Message("user", sample.input)))

    def parse(self, output: str, sample: Sample, scorer: str) -> str | None:
        return output.strip() or None

    def measure(self, parsed: str | None, sample: Sample) -> Mapping[str, float]:
        return {"exact": float(parsed in sample.references)}


class Markers:
    """One-hot vectors by the marker word that a text contains; other texts are all alike."""

    async def embed(self, texts: Sequence[str], name: str) -> npt.NDArray[np.float32]:
        return np.array([[*(float(source in text) for source in SOURCES), 0.001] for text in texts], np.float32)


def stage(request: Request) -> str:
    opening = request.messages[0].content
    for start, name in (
        ("An assistant drafted", "infer"),
        ("You see what", "infer"),
        ("You see a", "infer"),
        ("You see notes", "aggregate"),
        ("Rewrite the", "neutral"),
    ):
        if opening.startswith(start):
            return name
    return "generate"


def written(phrases: str) -> str:
    text = BASE
    for rule in RULES:
        text = rule.fix(text) if rule.phrase in phrases else text
    return text


def inferred(listed: str) -> str:
    pairs = re.findall(r"Draft: (.*?)\nFinal: (.*?)(?=\n\nDraft: |\n\nPreference:|\Z)", listed, re.DOTALL)
    edited = [pair for pair in pairs if pair[0] != pair[1]]
    draft, final = edited[-1] if edited else ("", pairs[-1][1])
    return "; ".join(rule.phrase for rule in RULES if rule.holds(final) and not (edited and rule.holds(draft)))


def stub(request: Request) -> str:
    opening, last = request.messages[0].content, request.messages[-1].content
    if stage(request) == "infer":
        return inferred(last)
    if stage(request) == "aggregate":
        phrases = re.findall(r"^- (.*)$", last, re.MULTILINE)
        return max(phrases, key=lambda phrase: (phrases.count(phrase), -phrases.index(phrase)))
    examples = opening.partition("earlier drafts:\n\n")[2]
    text = written(inferred("Draft: " + examples.rpartition("Draft: ")[2]) if examples else opening)
    return f"They share something.\n**Final:** {text}" if "Final:" in last else text


class World:
    """A task, a stub model behind the real client, and the books of its calls."""

    def __init__(self, answer: Callable[[Request], str] = stub, cache: Cache | None = None, window: int | None = None):
        self.task: Task = Briefs()
        self.backend = Scripted(answer=answer, window=window)
        self.client = Client(self.backend, cache)

    def context(self) -> Context:
        return Context(
            task=self.task,
            client=self.client,
            embedders=Markers(),  # type: ignore[arg-type]
            sampling=Sampling(),
            seed=0,
            phase="predict",
            unit="",
        )


class Round(NamedTuple):
    """What one simulated round came to."""

    draft: str
    cost: float
    predicting: int
    learning: int


async def live(
    method: Method, sources: Sequence[str], world: World | None = None, *, interrupted: bool = False
) -> tuple[list[Round], Any, World]:
    """Run rounds with the rule-based user; `interrupted` kills the process after each, keeping the JSON state."""
    world = world or World()
    state = await method.profile(Sample("", "u", "").user, world.context())
    rounds = []
    for number, source in enumerate(sources):
        rule = RULE_OF[source]
        hidden = {HIDDEN_PREFERENCE: rule.phrase} if method.privileged else {}
        text = f"Note {number} about {source}"
        asking, learning = world.context(), world.context()
        sample = Sample(f"r{number}", "u", f"Brief this: {text}", stimulus=text, attributes=hidden)
        draft = await method.predict(sample, state, asking)
        edited = draft if rule.holds(draft) else rule.fix(draft)
        cost = edit_cost(draft, edited)
        state = await method.update(state, {"draft": draft, "edited": edited, "cost": cost}, learning)
        if interrupted:
            method, state = type(method)(method.params), from_json(to_json(state), Any)
        rounds.append(Round(draft, cost, len(asking.calls), len(learning.calls)))
    return rounds, state, world


def paying(rounds: Sequence[Round]) -> list[int]:
    return [number for number, each in enumerate(rounds) if each.cost > 0]


@pytest.fixture(autouse=True)
def sentence_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Sentence data that knows no abbreviation: enough for the texts here, and nothing to download."""
    folder = tmp_path / "nltk" / "tokenizers" / "punkt_tab" / "english"
    folder.mkdir(parents=True)
    for name in ("collocations.tab", "sent_starters.txt", "abbrev_types.txt", "ortho_context.tab"):
        (folder / name).write_text("")
    monkeypatch.setattr(nltk.data, "path", [str(tmp_path / "nltk")])
    nltk.tokenize._get_punkt_tokenizer.cache_clear()
    yield
    nltk.tokenize._get_punkt_tokenizer.cache_clear()


@pytest.fixture
def quick_vectors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Embedders, "embed", lambda self, texts, name: Markers().embed(texts, name))


@pytest.mark.parametrize(
    ("final", "cost"),
    [
        (BASE, 0),
        (BASE.lower(), 3),
        ("- " + BASE, 1),
        (BASE + " What do you think?", 5),
        (BASE + " 🙂", 1),
        ("Hello,\n" + BASE, 2),
        ("The team met on Monday and agreed on a plan.", 2),
        ("The team met on Monday.\n\nThey agreed on a plan.", 0),
        ("", 12),
    ],
)
def test_acceptance_1_worked_costs(final: str, cost: int) -> None:
    assert edit_cost(BASE, final) == edit_cost(final, BASE) == cost
    assert differs(BASE, final, 0, "text") == differs(final, BASE, 0, "text") == (cost > 0)
    assert differs(BASE, final, cost, "text") is False


def test_acceptance_1_contractions_and_empty_texts() -> None:
    assert edit_cost("Don't worry", "Do not worry") == edit_cost("Do not worry", "Don't worry") == 1
    assert edit_cost("", "") == 0


def test_acceptance_1_missing_sentence_data_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nltk.data, "path", [])
    nltk.tokenize._get_punkt_tokenizer.cache_clear()
    with pytest.raises(UsageError, match="punkt_tab"):
        edit_cost("One.", "Two.")
    with pytest.raises(UsageError, match="punkt_tab"):
        differs("One.", "One .", 0, "text")
    assert differs("One.", "Two.", 0, "text")
    assert not differs("One.  Two.", "One.\nTwo.", 3, "text")


def test_whether_anything_changed_agrees_with_the_cost() -> None:
    rng = random.Random(5)
    pieces = ["Hi", "there", ".", ",", '"', "``", "''", "'s", "can", "not", "cannot", " ", "  ", "\n", "(", "🙂"]
    texts = ["".join(rng.choices(pieces, k=rng.randrange(6))) for _ in range(300)]
    close = [text.replace(" ", "") for text in texts] + [text.replace('"', "''") for text in texts]
    found: Counter[bool] = Counter()
    for one, other in [*zip(texts, close[:300], strict=True), *zip(texts, close[300:], strict=True)]:
        changed = one.split() != other.split() and edit_cost(one, other) > 0
        found[changed] += 1
        assert differs(one, other, 0, "text") == changed, (one, other)
    assert min(found[True], found[False]) > 20


def sequences() -> list[list[str]]:
    return [random.Random(seed).choices(SOURCES[: 2 + seed % 4], k=14) for seed in range(8)]


def first_occurrences(sources: Sequence[str]) -> list[int]:
    return sorted({source: place for place, source in reversed(list(enumerate(sources)))}.values())


@pytest.mark.parametrize("sources", sequences())
async def test_acceptance_3_paying_rounds_of_random_sequences(sources: list[str]) -> None:
    everywhere = list(range(len(sources)))
    for method in (Cipher(Cipher.Params(k=1)), IclEdit(), CotEdit()):
        rounds, _, _ = await live(method, sources)
        assert paying(rounds) == first_occurrences(sources), method.name
    rounds, _, _ = await live(Continual(), sources)
    assert paying(rounds) == [at for at in everywhere if at == 0 or sources[at] != sources[at - 1]]
    rounds, _, _ = await live(EThenE(), sources)
    assert paying(rounds) == [at for at in everywhere if at < 5 or sources[at] != sources[4]]
    rounds, _, _ = await live(Oracle(), sources)
    assert paying(rounds) == []


@pytest.mark.parametrize(("source", "total"), list(zip(SOURCES, (3, 1, 5, 1, 2), strict=True)))
async def test_acceptance_3_totals_with_a_single_source(source: str, total: int) -> None:
    for k in (1, 3):
        rounds, _, _ = await live(Cipher(Cipher.Params(k=k)), [source] * 6)
        assert [each.cost for each in rounds] == [total, 0, 0, 0, 0, 0]


@pytest.mark.parametrize("cls", FAMILY)
async def test_acceptance_3_killed_after_every_round_it_goes_on_the_same(cls: Any) -> None:
    sources = sequences()[3]
    rounds, state, world = await live(cls(), sources)
    again, resumed, second = await live(cls(), sources, interrupted=True)
    assert (rounds, to_json(state)) == (again, to_json(resumed))
    assert to_json(world.backend.requests) == to_json(second.backend.requests)


@pytest.mark.parametrize("reply", ["", " \n", "None", "Preference: none.", '""'])
async def test_acceptance_4_no_memory_entry_is_empty_and_none_is_never_offered(reply: str) -> None:
    world = World(lambda request: reply if stage(request) == "infer" else stub(request))
    rounds, state, _ = await live(Cipher(), ["alpha", "beta", "alpha"], world)
    assert state["rounds"] == []
    assert [(each.predicting, each.learning) for each in rounds] == [(1, 2)] * 3
    for cls in (Continual, EThenE):
        world = World(world.backend.answer)
        await live(cls(), ["alpha"] * 7, world)
        told = [request.messages[0].content for request in world.backend.requests if stage(request) == "generate"]
        assert set(told) == {"Write the brief only."}


async def test_acceptance_4_accepted_rounds_before_any_edit_leave_no_entry() -> None:
    method, world = Cipher(), World()
    state = await method.profile(Sample("", "u", "").user, world.context())
    for number in range(3):
        draft = await method.predict(Sample("r", "u", f"alpha {number}"), state, world.context())
        state = await method.update(state, {"draft": draft, "edited": draft, "cost": 0}, world.context())
    assert state == {"rounds": [], "open": None}
    assert Counter(map(stage, world.backend.requests)) == {"generate": 3}


@pytest.mark.parametrize(("delta", "cost", "asked"), [(0, 0, 0), (0, 1, 1), (3, 3, 0), (3, 5, 1)])
async def test_acceptance_5_inference_calls_are_the_rounds_that_cost_more_than_delta(
    delta: float, cost: float, asked: int
) -> None:
    method, world = Cipher(Cipher.Params(delta=delta)), World()
    state = await method.profile(Sample("", "u", "").user, world.context())
    await method.predict(Sample("r", "u", "alpha"), state, world.context())
    ctx = world.context()
    state = await method.update(state, {"draft": BASE, "edited": BASE.lower() + "  ", "cost": cost}, ctx)
    assert len(ctx.calls) == asked
    assert len(state["rounds"]) == asked


async def test_an_unedited_round_keeps_the_preference_its_draft_was_made_with() -> None:
    _, state, _ = await live(Cipher(Cipher.Params(k=3)), ["alpha", "alpha", "alpha"])
    assert [each["preference"] for each in state["rounds"]] == ["all lower case"] * 3
    assert [each["text"] for each in state["rounds"]] == [f"Note {number} about alpha" for number in range(3)]


async def test_acceptance_6_calls_per_round() -> None:
    sources = sequences()[3]
    for k in (1, 3):
        rounds, _, _ = await live(Cipher(Cipher.Params(k=k)), sources)
        assert (rounds[0].predicting, rounds[0].learning) == (1, 1)
        for each in rounds[1:]:
            assert (each.predicting, each.learning) == (1 if k == 1 else 2, each.cost > 0)
    for method in (IclEdit(), CotEdit(), Oracle()):
        rounds, _, _ = await live(method, sources)
        assert {(each.predicting, each.learning) for each in rounds} == {(1, 0)}
    rounds, _, _ = await live(Continual(), sources)
    assert [(each.predicting, each.learning) for each in rounds] == [(1, 0)] + [(2, 0)] * 13
    rounds, _, _ = await live(EThenE(), sources)
    assert [(each.predicting, each.learning) for each in rounds] == [(1, 0)] * 4 + [(1, 1)] + [(1, 0)] * 9


@pytest.mark.parametrize("cls", FAMILY)
async def test_acceptance_7_prompts_hold_no_hidden_preference_and_inferences_no_document(cls: Any) -> None:
    _, _, world = await live(cls(), sequences()[3], World(lambda request: f"{stage(request)} said"))
    for request in world.backend.requests:
        whole = "\n".join(message.content for message in request.messages)
        assert not any(rule.phrase in whole for rule in RULES)
        if stage(request) in ("infer", "aggregate"):
            assert "Note " not in whole
            assert not any(source in whole for source in SOURCES)


async def test_the_oracle_needs_a_task_that_tells_it() -> None:
    with pytest.raises(UsageError, match="briefs"):
        await Oracle().predict(Sample("r", "u", "alpha"), None, World().context())
    assert Oracle.privileged


async def test_acceptance_8_k_above_the_memory_and_ties_pick_the_earlier_entry() -> None:
    world = World()
    ctx = world.context()
    texts = ["beta 1", "alpha 1", "beta 2", "alpha 2", "beta 3"]
    assert await nearest("alpha 9", texts, 2, "bert", ctx) == [1, 3]
    assert await nearest("alpha 9", texts, 9, "mpnet", ctx) == [1, 3, 0, 2, 4]
    assert await nearest("alpha 9", [], 9, "mpnet", ctx) == []
    rounds, state, _ = await live(Cipher(Cipher.Params(k=50)), ["alpha"] * 4)
    assert len(rounds) == len(state["rounds"]) == 4


async def test_the_aggregation_sees_the_nearest_preference_first_even_if_alone() -> None:
    _, _, world = await live(Cipher(Cipher.Params(k=2)), ["beta", "alpha", "alpha"])
    merged = [request.messages[-1].content for request in world.backend.requests if stage(request) == "aggregate"]
    assert merged[0] == "- bullet points\n\nPreference:"
    assert merged[1] == "- all lower case\n- bullet points\n\nPreference:"


async def test_an_empty_aggregation_falls_back_to_the_nearest_preference() -> None:
    world = World(lambda request: "" if stage(request) == "aggregate" else stub(request))
    rounds, _, _ = await live(Cipher(), ["alpha", "alpha"], world)
    assert [each.cost for each in rounds] == [3, 0]
    assert rounds[1].predicting == 3


async def test_feedback_without_a_draft_is_an_error() -> None:
    method, world = Cipher(), World()
    state = await method.profile(Sample("", "u", "").user, world.context())
    with pytest.raises(UsageError, match="predict opens a round"):
        await method.update(state, {"draft": "a", "edited": "b", "cost": 1}, world.context())


def lamp(name: str) -> tuple[Task, Sample]:
    task = registry.load("task", name)()
    return task, next(iter(task.open(task.default_split, None).samples())).view()


async def asked(method: Method, sample: Sample, task: Task, world: World) -> tuple[str, Context]:
    world.task = task
    ctx = world.context()
    return await method.predict(sample, await method.profile(sample.user, ctx), ctx), ctx


def drafting(request: Request) -> str:
    return "A plain draft" if stage(request) == "generate" else "short and dry"


@pytest.mark.parametrize("name", ["lamp4", "lamp5", "lamp6", "lamp7"])
@pytest.mark.parametrize("k", [1, 3])
async def test_acceptance_9_static_asks_at_most_2k_offline_calls_and_none_again(
    name: str, k: int, tmp_path: Path
) -> None:
    task, sample = lamp(name)
    world = World(drafting, Cache(tmp_path / "cache.sqlite"))
    _, ctx = await asked(Cipher(Cipher.Params(k=k)), sample, task, world)
    assert len(ctx.calls) == 2 * k + (k > 1) + 1
    again = msgspec.structs.replace(sample, id="again")
    _, ctx = await asked(Cipher(Cipher.Params(k=k)), again, task, world)
    assert all(call.cached for call in ctx.calls)
    before = len(world.backend.requests)
    _, ctx = await asked(IclEdit(IclEdit.Params(k=k)), sample, task, world)
    assert len(ctx.calls) == k + 1
    assert len(world.backend.requests) == before + 1


@pytest.mark.parametrize("name", ["lamp2m", "lamp2n", "lamp3", "lamp4", "lamp5", "lamp6"])
@pytest.mark.parametrize("mode", ["static", "replay"])
@pytest.mark.parametrize("cls", FAMILY)
async def test_acceptance_9_no_draft_prompt_holds_the_users_own_response(cls: Any, mode: Any, name: str) -> None:
    task, sample = lamp(name)
    marked = tuple(
        msgspec.structs.replace(
            record,
            response=record.response if task.kind == "ordinal" else f"{record.response} OWN",
            stimulus=f"{record.stimulus} @{record.id}@",
        )
        for record in sample.history
    )
    world = World(lambda r: "2" if task.kind == "ordinal" and stage(r) == "generate" else drafting(r))
    await asked(cls(cls.Params(mode=mode)), msgspec.structs.replace(sample, history=marked), task, world)
    drafts = [r for r in world.backend.requests if stage(r) == "generate" and "@" in r.messages[-1].content]
    assert drafts
    for request in drafts:
        if mode == "static":
            assert not any("OWN" in message.content for message in request.messages)
            assert len(request.messages) == 2
        else:
            own = re.findall(r"@(.*?)@", request.messages[-1].content)[0]
            final = next(record.response for record in marked if record.id == own)
            assert task.kind != "text" or not any(final in message.content for message in request.messages)


async def test_acceptance_9_a_tweets_draft_is_its_neutral_rewrite() -> None:
    task, sample = lamp("lamp7")
    world = World(lambda request: f"{stage(request)}d")
    await asked(Cipher(Cipher.Params(k=2)), sample, task, world)
    stages = [stage(request) for request in world.backend.requests]
    assert Counter(stages) == {"neutral": 2, "infer": 2, "aggregate": 1, "generate": 1}
    tweets = {record.response for record in sample.history}
    for request in world.backend.requests:
        if stage(request) == "neutral":
            assert request.messages[1].content in tweets
        if stage(request) == "infer":
            assert re.fullmatch(r"Draft: neutrald\nFinal: (.*)\n\nPreference:", request.messages[1].content, re.DOTALL)


@pytest.mark.parametrize("cls", FAMILY)
async def test_acceptance_9_lamp1_is_not_applicable(cls: Any) -> None:
    task, sample = lamp("lamp1")
    assert "lamp1" in cls.refuses
    with pytest.raises(UsageError, match="no past choices"):
        await asked(cls(), sample, task, World())


@pytest.mark.usefixtures("quick_vectors")
@pytest.mark.parametrize("mode", ["static", "replay"])
@pytest.mark.parametrize("cls", FAMILY)
@pytest.mark.parametrize("name", ["lamp2m", "lamp2n", "lamp3", "lamp4", "lamp5", "lamp6", "lamp7"])
def test_every_cell_runs_on_the_bundled_sample(cls: Any, mode: Any, name: str) -> None:
    result = trial(cls(cls.Params(mode=mode)), task=name, limit=2)
    assert [line.error for line in result.predictions] == [None] * len(result.predictions)


@pytest.mark.usefixtures("quick_vectors")
@pytest.mark.parametrize("cls", FAMILY)
def test_an_empty_history_is_the_plain_prompt_and_flagged(cls: Any) -> None:
    result = trial(cls(), limit=3, history="none")
    plain = trial(registry.load("method", "none")(), limit=3)
    assert [line.output for line in result.predictions] == [line.output for line in plain.predictions]
    assert all(line.flags == {"empty_profile": 1} for line in result.predictions)


@pytest.mark.parametrize("name", ["lamp2m", "lamp3"])
async def test_labels_cost_what_they_are_off_and_inference_sees_the_input(name: str) -> None:
    task, sample = lamp(name)
    right, wrong = ("5", "1") if name == "lamp3" else (sample.choices[0], sample.choices[1])
    history = tuple(msgspec.structs.replace(record, response=right) for record in sample.history[:3])
    sample = msgspec.structs.replace(sample, history=history)
    for guess, inferences in ((right, 0), (wrong, 3), ("no idea", 0)):
        world = World(lambda r, guess=guess: f" {guess}." if stage(r) == "generate" else "is generous")
        _, ctx = await asked(Cipher(), sample, task, world)
        inferring = [request for request in world.backend.requests if stage(request) == "infer"]
        assert len(inferring) == inferences
        assert ctx.flags.get("draft_unreadable", 0) == (3 if guess == "no idea" else 0)
        assert ctx.flags.get("plain_prompt", 0) == (0 if inferences else 1)
        for request in inferring:
            assert any(str(record.stimulus) in request.messages[1].content for record in history)
            assert f"Guess: {wrong}" in request.messages[1].content
    world = World(lambda r: "1" if stage(r) == "generate" else "is generous")
    _, ctx = await asked(Cipher(Cipher.Params(delta=4)), sample, task, world)
    assert ctx.flags["plain_prompt"] == 1


@pytest.mark.parametrize("mode", ["static", "replay"])
@pytest.mark.parametrize("cls", FAMILY)
async def test_records_that_ask_the_question_itself_are_left_out(cls: Any, mode: Any) -> None:
    task, sample = lamp("lamp4")
    copy = Record("copy", f"  {str(sample.stimulus).upper()}\n", "THE ANSWER", fields={"text": "", "title": ""})
    history = (*sample.history[:2], copy, *sample.history[2:4])
    world = World(drafting)
    _, ctx = await asked(cls(cls.Params(mode=mode)), msgspec.structs.replace(sample, history=history), task, world)
    assert ctx.flags["duplicates_dropped"] == 1
    assert not any("THE ANSWER" in message.content for r in world.backend.requests for message in r.messages)


async def test_inputs_alone_decide_which_records_are_near() -> None:
    task = registry.load("task", "lamp4")()
    history = tuple(
        Record(f"{n}", f"a text on {source}", title, fields={"text": f"a text on {source}", "title": title})
        for n, (source, title) in enumerate([("alpha", "beta beta"), ("beta", "alpha"), ("alpha", "gamma")])
    )
    sample = Sample("q", "u", "Generate a headline: news of beta", stimulus="news of beta", history=history)
    world = World(drafting)
    await asked(IclEdit(IclEdit.Params(k=1)), sample, task, world)
    assert world.backend.requests[0].messages[-1].content == "Generate a headline: a text on beta"


async def test_replay_drafts_with_what_was_learnt_before() -> None:
    task, sample = lamp("lamp4")
    world = World(drafting)
    _, ctx = await asked(Cipher(Cipher.Params(k=1, mode="replay")), sample, task, world)
    first, second = [r for r in world.backend.requests if stage(r) == "generate"][:2]
    assert str(sample.history[0].stimulus) in first.messages[-1].content
    assert "short and dry" not in first.messages[0].content
    assert "Prefers: short and dry" in second.messages[0].content
    assert len(ctx.calls) == 2 * len(sample.history) + 1


async def test_without_edits_no_draft_is_written() -> None:
    task, sample = lamp("lamp4")
    world = World(drafting)
    await asked(Cipher(Cipher.Params(k=3, use_edits=False)), sample, task, world)
    assert Counter(map(stage, world.backend.requests)) == {"infer": 3, "aggregate": 1, "generate": 1}
    for request in world.backend.requests:
        assert "Draft:" not in request.messages[1].content


async def test_a_history_shorter_than_e_then_e_explores_still_teaches() -> None:
    task, sample = lamp("lamp4")
    world = World(drafting)
    await asked(EThenE(), msgspec.structs.replace(sample, history=sample.history[:2]), task, world)
    assert Counter(map(stage, world.backend.requests)) == {"generate": 3, "infer": 1}


@pytest.mark.usefixtures("quick_vectors")
@pytest.mark.parametrize("cls", FAMILY)
def test_prompts_fit_a_small_window(cls: Any) -> None:
    for name in ("lamp3", "lamp4", "lamp7"):
        result = trial(cls(), task=name, limit=4, window=700)
        assert [line.error for line in result.predictions] == [None] * len(result.predictions)


async def test_long_pairs_are_dropped_or_shortened_and_long_stimuli_cut() -> None:
    task, sample = lamp("lamp4")
    history = tuple(
        msgspec.structs.replace(record, stimulus="a long article " * 900, response=f"{record.response} " * 40)
        for record in sample.history[:5]
    )
    sample = msgspec.structs.replace(sample, history=history)
    for cls, flag in ((IclEdit, "pairs_dropped"), (Continual, "pairs_shortened")):
        world = World(drafting, window=900)
        _, ctx = await asked(cls(), sample, task, world)
        assert ctx.flags[flag] > 0
        assert ctx.flags["stimuli_shortened"] >= 5


@pytest.mark.parametrize(
    ("reply", "answer", "unmarked"),
    [
        ("They cut words.\nFinal: Rain", "Rain", 0),
        ("Final: draft\nno,\n**Final headline:** **Rain**", "**Rain**", 0),
        ("<think>Final: no</think>Terse.\n## Final:\n- one\n- two", "- one\n- two", 0),
        ("Rain in the final: a report", "Rain in the final: a report", 1),
        ("Thoughts.\nFinal:  ", "Thoughts.\nFinal:", 1),
    ],
)
def test_reading_a_reasoned_answer(reply: str, answer: str, unmarked: int) -> None:
    ctx = World().context()
    assert prompts.marked(reply, ctx) == answer
    assert ctx.flags.get("no_final", 0) == unmarked


@pytest.mark.parametrize(
    ("reply", "preference"),
    [
        (" Preference: short,\n dry ", "short, dry"),
        ("**Tendency:** generous", "generous"),
        ("<think>hm</think>\n“plain words”", "plain words"),
        ("- None.", ""),
        ("<think>never ends", ""),
        ("no-nonsense headlines", "no-nonsense headlines"),
        ("word " * 99, " ".join(["word"] * 60)),
    ],
)
def test_reading_a_preference(reply: str, preference: str) -> None:
    ctx = World().context()
    assert prompts.phrase(reply, ctx) == preference
    assert ctx.flags == ({"preference_capped": 1} if reply.startswith("word") else {})


@pytest.mark.parametrize(
    "make",
    [
        lambda: Cipher.Params(k=0),
        lambda: Cipher.Params(delta=-1),
        lambda: IclEdit.Params(k=0),
        lambda: CotEdit.Params(k=0),
        lambda: Continual.Params(pairs=0),
        lambda: EThenE.Params(preference_max_tokens=0),
    ],
)
def test_parameters_that_cannot_work_are_refused(make: Callable[[], Any]) -> None:
    with pytest.raises(ValueError, match="must be"):
        make()


@pytest.mark.parametrize("name", [cls.name for cls in FAMILY])
@pytest.mark.parametrize("task", ["lamp4", "lamp7"])
async def test_the_plan_predicts_the_calls(name: str, task: str, tmp_path: Path) -> None:
    options = runner.Options(methods=[name], tasks=[task], limit=4, backend="scripted", results=tmp_path)
    (forecast,) = await plan.plan(options)
    (outcome,) = await runner.run(options, backend=Scripted(answer=drafting))
    predictions = runner.RunFolder(outcome.folder).ordered_predictions
    ids = [line.sample_id for line in runner.RunFolder(outcome.folder).iter_predictions()]
    lines = [line for line in predictions(ids) if line is not None]
    made = sum(len(line.calls) for line in lines)
    paid = sum(not call.cached for line in lines for call in line.calls)
    row = forecast.as_dict({})
    assert row["calls"] == made
    assert abs(row["to_pay"] - paid) <= paid / 10
