"""Results of runs that never ran: data, predictions, calls and scores with chosen effects, as a run
writes them."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

import numpy as np

from personabench.api.registry import load_class
from personabench.models.cache import Cache, request_key
from personabench.results.checksums import make_seal
from personabench.results.run_folder import Profile, RunFolder
from personabench.results.spec import RunSpec
from personabench.run.controls import apply_control
from personabench.types import (
    Call,
    Message,
    Prediction,
    Record,
    Request,
    Response,
    Sampling,
    Score,
    Usage,
    to_json,
)

MODEL = {"kind": "scripted", "name": "made-up"}


@dataclass(frozen=True)
class Method:
    """A method as its scores tell: `effect` on the mean, `spread` of what it does to different
    users.

    `asked`: the numbers of the users whose samples it has; else all.
    """

    name: str
    effect: float = 0.0
    spread: float = 0.05
    records: int = 0
    offline: int = 0
    history: str = "own"
    seed: int = 0
    params: Mapping[str, int] = field(default_factory=dict)
    asked: range | None = None


SUITE = (
    Method("none", 0.0, 0.0),
    Method("rag", 0.07, 0.05, records=4, params={"k": 4}),
    Method("rag", 0.05, 0.05, records=2, params={"k": 2}),
    Method("rag", 0.02, 0.05, records=1, params={"k": 1}),
    Method("recency", 0.04, 0.06, records=4),
    Method("summary", 0.03, 0.09, offline=900),
    Method("random", -0.03, 0.05, records=4),
    Method("rag", 0.01, 0.04, records=4, history="shuffled", params={"k": 4}),
    Method("rag", 0.02, 0.05, records=1, history="size=1", params={"k": 4}),
    Method("rag", 0.05, 0.05, records=3, history="size=3", params={"k": 4}),
)


NOUNS = (
    "harbour",
    "lantern",
    "gravel",
    "orchard",
    "thimble",
    "velvet",
    "kettle",
    "meadow",
    "compass",
    "ribbon",
)


def text(rng: random.Random, words: int, pool: int = 0) -> str:
    """Some words, of a vocabulary of `pool` numbers where given."""
    return " ".join(f"{rng.randrange(pool):x}" if pool else rng.choice(NOUNS) for _ in range(words))


def plain(_: str, sample: str) -> str:
    """An answer that says nothing special."""
    return text(random.Random(sample), 6)


def make(
    results: Path,
    methods: tuple[Method, ...] = SUITE,
    *,
    users: int = 40,
    each: int = 3,
    records: int = 6,
    words: int = 10,
    answer: Callable[[str, str], str] = plain,
    flags: Callable[[str, str], dict[str, float]] = lambda method, sample: {},
    model: Mapping[str, str] = MODEL,
) -> None:
    """Write a results folder of LaMP-4 runs.

    `answer(method, sample id)` is what the model said, `flags(method, sample id)` what was noted.
    """
    data = _questions(results / "data", users, each, records)
    task = load_class("task", "lamp4")()
    dataset = task.open("user/dev", data)
    cache = Cache(results / "cache.sqlite")
    # One transaction, since thousands of single ones take minutes.
    database = cache._db  # noqa: SLF001
    database.execute("BEGIN")
    rng = np.random.default_rng(5)
    index = dataset.index()
    codes = {user: at for at, user in enumerate(dict.fromkeys(user for _, user in index))}
    ability, luck = rng.normal(0.35, 0.09, len(codes)), rng.normal(0, 0.12, len(index))
    for method in methods:
        spec = RunSpec(
            task="lamp4",
            task_version=1,
            task_params={"dates": False, "length": None, "template": "chat"},
            separation="user",
            split="dev",
            sample=False,
            data_hash=dataset.hash,
            method=method.name,
            method_hash="0" * 64,
            params=dict(method.params),
            model=dict(model),
            sampling=Sampling(),
            seed=method.seed,
            history=method.history,
        )
        folder = RunFolder(RunFolder.path_of(results, spec))
        folder.start(spec)
        suits = rng.normal(method.effect, method.spread, len(codes))
        noise = rng.normal(0, 0.05 if method.effect else 0, len(index))
        scores = []
        spent = 0
        seen = apply_control(dataset, method.history, method.seed)
        for at, (sample_id, user) in enumerate(index):
            if method.asked is not None and codes[user] not in method.asked:
                continue
            sample = seen.load(at)
            if method.offline and at % each == 0:
                folder.append(folder.profiles_path, _profile(cache, method, user, model))
            shown = sample.history[: method.records]
            output = answer(method.name, sample_id)
            call = _call(cache, model, "predict", _prompt(sample.input, shown, words), output)
            spent += call.input_tokens
            line = Prediction(
                sample_id,
                user,
                output,
                output,
                flags(method.name, sample_id),
                (call,),
                Usage(call.input_tokens, call.output_tokens),
            )
            folder.append(folder.predictions_path, line)
            value = float(
                np.clip(
                    ability[codes[user]] + luck[at] + suits[codes[user]] + noise[at], 0, 1
                ).round(4)
            )
            values = {"rouge-1": value, "rouge-L": round(value * 0.9, 4)}
            scores.append(Score(sample_id, user, {"official": values, "lenient": values}))
        with folder.replacing(folder.scores_path) as file:
            file.writelines(to_json(score) + "\n" for score in scores)
        whole = {
            name: float(np.mean([s.values["official"][name] for s in scores]))
            for name in ("rouge-1", "rouge-L")
        }
        people = len({score.user_id for score in scores})
        usage = {"predict": _usage(len(scores), spent)}
        if method.offline:
            usage["profile"] = _usage(people, people * method.offline)
        summary = {
            "status": "complete",
            "task": "lamp4",
            "separation": "user",
            "split": "dev",
            "source": "made-up data",
            "sample": False,
            "data_hash": dataset.hash,
            "data": str(data),
            "method": method.name,
            "params": spec.params,
            "changed": dict(method.params),
            "history": method.history,
            "seed": method.seed,
            "model": model["name"],
            "sampling": {"temperature": 0.0, "top_p": 1.0, "max_tokens": None},
            "fingerprint": spec.fingerprint,
            "fit": "faithful",
            "privileged": False,
            "n": len(scores),
            "owed": 0,
            "users": people,
            "primary": "rouge-1",
            "higher_is_better": {"rouge-1": True, "rouge-L": True},
            "metrics": {"official": whole, "lenient": whole},
            "parse_failures": {"official": 0},
            "counters": {"parse_failures": 0},
            "usage": usage,
            "profiles": 0,
            "seconds": 1.0,
            "warnings": [],
            "time": "2026-01-01T00:00:00Z",
            "versions": {"python": "3.12"},
            "task_changed": {},
            "provenance": {},
            "extra_metrics": {},
            "files": {
                path.name: make_seal(path) for path in (folder.predictions_path, folder.scores_path)
            },
        }
        with folder.replacing(folder.summary_path) as file:
            file.write(to_json(summary) + "\n")
        folder.close()
    database.execute("COMMIT")
    cache.close()


def _questions(folder: Path, users: int, each: int, records: int) -> Path:
    """A LaMP-4 dev split: its question and output files in a folder."""
    rng = random.Random(11)
    questions, golds = [], []
    for user in range(users):
        profile = [
            {"id": f"{user}{at:02d}", "title": text(rng, 4), "text": f"{text(rng, 10)} {user}-{at}"}
            for at in range(records)
        ]
        for at in range(each):
            name = f"q{user:05d}-{at}"
            wording = f"Generate a headline for the following article: {text(rng, 12)} {name}"
            questions.append(
                {"id": name, "user_id": f"u{user:05d}", "input": wording, "profile": profile}
            )
            golds.append({"id": name, "output": text(rng, 4)})
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "dev_questions.json").write_text(json.dumps(questions), encoding="utf-8")
    (folder / "dev_outputs.json").write_text(
        json.dumps({"task": "LaMP_4", "golds": golds}), encoding="utf-8"
    )
    return folder


@lru_cache(maxsize=8192)
def _padding(seed: str, words: int) -> str:
    return text(random.Random(seed), words, 1 << 15)


def _prompt(question: str, shown: Sequence[Record], words: int) -> list[Message]:
    padding = _padding(question, words)
    turns = [Message("user", f"{record.stimulus}\n{record.response}") for record in shown]
    return [Message("system", f"Write a headline.\n{padding}"), *turns, Message("user", question)]


def _call(
    cache: Cache, model: Mapping[str, str], phase: str, messages: list[Message], output: str
) -> Call:
    request = Request(tuple(messages), 64)
    key = request_key(model, request)
    tokens = sum(len(message.content) for message in messages) // 4
    cache.put(key, model, request, Response(output, usage=Usage(tokens, 8)))
    return Call(key, phase, False, tokens, 8, 0.1)  # type: ignore[arg-type]


def _profile(cache: Cache, method: Method, user: str, model: Mapping[str, str]) -> Profile:
    call = _call(
        cache,
        model,
        "profile",
        [Message("user", f"Describe {user}.")],
        f"{user} likes short headlines.",
    )
    return Profile(
        user, f"{method.name}-{user}", {"about": f"{user} likes short headlines."}, (call,), {}
    )


def _usage(calls: int, tokens: int) -> dict[str, float]:
    return {
        "calls": calls,
        "cached": 0,
        "input_tokens": tokens,
        "output_tokens": 8 * calls,
        "seconds": 0.1 * calls,
    }
