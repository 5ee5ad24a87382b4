"""What the engine's tests run on: invented LaMP-4 data, a loopback model server that counts, an
engine put together."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import random
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from loopback import JsonHandler, LoopbackServer, serving

from personabench.api import registry
from personabench.api.method import Method
from personabench.hashing import digest
from personabench.models.backends.scripted import Scripted
from personabench.models.cache import Cache, Policy
from personabench.models.client import Client
from personabench.results.run_folder import RunFolder
from personabench.results.spec import RunSpec
from personabench.retrieval.embedders import Embedders
from personabench.run.engine import Engine
from personabench.run.options import Options
from personabench.run.selection import select
from personabench.types import Prediction, Request, Response, Sampling

WORDS = (
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
CLI = (sys.executable, "-c", "from personabench.cli.app import main; main()")


def headlines(folder: Path, users: int, each: int = 1, records: int = 2) -> Path:
    """A LaMP-4 dev split of `users` people with `each` questions, written to a folder."""
    rng = random.Random(11)
    questions, golds = [], []
    for user in range(users):
        profile = [
            {"id": f"{user}{number:02d}", "title": text(rng, 4), "text": text(rng, 10)}
            for number in range(records)
        ]
        for number in range(each):
            name = f"q{user:05d}-{number}"
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


def text(rng: random.Random, length: int) -> str:
    """Some words."""
    return " ".join(rng.choice(WORDS) for _ in range(length))


class Jittery(Scripted):
    """Scripted answers that come back in another order than asked, and requests that are counted,
    not kept."""

    def __init__(self, longest: float = 0.003, **options: Any) -> None:
        super().__init__(**options)
        self.longest = longest
        self.asked: Counter[str] = Counter()

    async def complete(self, request: Request, group: str) -> Response:
        name = digest(request)
        self.asked[name] += 1
        await asyncio.sleep(int(name[:4], 16) / 65536 * self.longest)
        response = await super().complete(request, group)
        self.requests.clear()
        return response


@dataclasses.dataclass
class EngineSetup:
    """An engine and its parts."""

    engine: Engine
    folder: RunFolder
    cache: Cache | None
    positions: Sequence[int]

    async def run(self) -> bool:
        """Do what is owed."""
        return await self.engine.run(self.engine.owed(self.positions))

    def predictions(self) -> dict[str, Prediction]:
        """The latest line of each sample."""
        return {line.sample_id: line for line in self.folder.iter_predictions()}

    def close(self) -> None:
        """Let go of the files."""
        self.folder.close()
        if self.cache is not None:
            self.cache.close()


def make_engine(
    place: Path,
    method: Method,
    data: Path | None = None,
    *,
    backend: Scripted | None = None,
    policy: Policy = "use",
    concurrency: int = 8,
    limit: int | None = None,
    deadline: float = 300.0,
    grace: float = 20.0,
    cache: Cache | None = None,
    dated: bool | None = None,
) -> EngineSetup:
    """An engine on the bundled LaMP-4 sample or on other data, with its folder under `place`."""
    task = registry.load_class("task", "lamp4")()
    dataset = task.open("user/dev", data)
    if dated is not None:
        dataset.dated = dated
    model = backend or Jittery()
    spec = RunSpec(
        task=task.name,
        task_version=task.version,
        task_params={},
        separation=dataset.separation,
        split=dataset.split,
        sample=dataset.sample,
        data_hash=dataset.hash,
        method=method.name,
        method_hash=registry.source_hash(type(method)),
        params=dataclasses.asdict(method.params),
        model=model.identity,
        sampling=Sampling(),
        seed=0,
    )
    folder = RunFolder(place / "run")
    folder.start(spec)
    if cache is None and policy != "off":
        cache = Cache(place / "cache.sqlite")
    engine = Engine(
        task=task,
        dataset=dataset,
        method=method,
        spec=spec,
        client=Client(model, cache, policy, concurrency, deadline),
        embedders=Embedders(),
        folder=folder,
        cache=cache,
        concurrency=concurrency,
        grace=grace,
    )
    return EngineSetup(engine, folder, cache, select(dataset, limit, 0))


def options(results: Path, methods: str = "none", tasks: str = "lamp4", **changes: Any) -> Options:
    """What the command line would make of a scripted run."""
    made: dict[str, Any] = {"backend": "scripted", "results": results, **changes}
    return Options(methods=methods.split(","), tasks=tasks.split(","), **made)


class ModelServer:
    """A loopback OpenAI-compatible server: deterministic answers after `latency` seconds, every
    request counted."""

    def __init__(self, latency: float) -> None:
        self.latency = latency
        self.asked: Counter[str] = Counter()
        self.lock = threading.Lock()
        outer = self

        class Handler(JsonHandler):
            def do_GET(self) -> None:
                self.send_models("tiny")

            def do_POST(self) -> None:
                body = self.read_json()
                name = digest(body["messages"])
                # The probe of a new server is no call of a run.
                if "tests the connection" not in json.dumps(body):
                    with outer.lock:
                        outer.asked[name] += 1
                time.sleep(outer.latency)
                self.send_answer(f"{' '.join(WORDS[:4])} {name[:6]}")

        self.http = LoopbackServer(Handler)
        self.url = f"{self.http.url}/v1"

    def wait_for(self, requests: int, process: subprocess.Popen[str]) -> None:
        """Block until that many requests came in; fails when the process ends before."""
        for _ in range(3000):
            if self.asked.total() >= requests:
                return
            assert process.poll() is None, process.communicate()
            time.sleep(0.01)
        raise AssertionError(f"only {self.asked.total()} requests came in")


@contextmanager
def model_server(latency: float = 0.05) -> Iterator[ModelServer]:
    """A running `ModelServer`."""
    server = ModelServer(latency)
    with serving(server.http):
        yield server
