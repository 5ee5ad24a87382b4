"""Stand-ins for what a reader of the docs has: a model, servers, official data, earlier runs.

A command of a page is run as it is typed, except that every model is a server on loopback, that
official data are the example data, and that runs are short.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from loopback import JsonHandler, LoopbackServer, serving

from personabench.models.backends.scripted import Scripted
from personabench.types import Message, Request

SAMPLES = 2
OFFICIAL_DATA = {"data", "DIR", "reviews", "my/headlines"}
MODEL_VERBS = {"run", "judge", "judge-panel", "judge-report", "generate", "show", "reproduce"}
ROLES = ("judge", "simulator", "profile")


def judge(messages: Sequence[Message]) -> str:
    """A reply with scores or a verdict, if the request is one to a judge that names their form."""
    instructions = messages[0].content
    answer = messages[-1].content
    scores = [
        f"{name}: {1 + (len(answer) + number) % 5}"
        for number, name in enumerate(re.findall(r"^(\w+): NUMBER$", instructions, re.MULTILINE))
    ]
    if scores:
        return "\n".join(["It says so.", *scores])
    questions = re.findall(r"^(\w+): .*\?$", answer.rpartition("Questions:")[2], re.MULTILINE)
    if "Relevant:" in instructions:
        return f"All matter.\nRelevant: {', '.join(questions)}"
    if questions:
        return "\n".join(f"{question}: yes" for question in questions)
    if "NUMBER: what it is about" in instructions:
        return "1: the whole text"
    if "A1: none" in instructions:
        return "A1: U1, content yes, style partly"
    if "Begin your reply with yes or no" in instructions:
        return "no"
    return "It says so.\nVerdict: right" if "Verdict:" in instructions else ""


class DocServer:
    """An OpenAI-compatible server of any model, whose replies are those of `--backend scripted`."""

    def __init__(self) -> None:
        self.model = "stand-in"
        scripted = Scripted()
        outer = self

        class Handler(JsonHandler):
            def do_GET(self) -> None:
                self.send_models(outer.model)

            def do_POST(self) -> None:
                body = self.read_json()
                if self.path.endswith("/embeddings"):
                    texts = body["input"]
                    vectors = [{"index": i, "embedding": [1.0, i]} for i in range(len(texts))]
                    self.send_json(
                        {"data": vectors, "usage": {"prompt_tokens": 1, "total_tokens": 1}}
                    )
                    return
                messages = tuple(
                    Message(message["role"], message["content"]) for message in body["messages"]
                )
                form = body.get("response_format", {}).get("json_schema", {}).get("schema")
                request = Request(messages, max_tokens=99, schema=form)
                response = asyncio.run(scripted.complete(request, ""))
                text = judge(messages) or response.text
                message = {"role": "assistant", "content": text}
                choice = {"index": 0, "message": message, "finish_reason": "stop"}
                usage = {
                    "prompt_tokens": response.usage.input_tokens,
                    "completion_tokens": response.usage.output_tokens,
                }
                self.send_json({"model": body["model"], "choices": [choice], "usage": usage})

        self.http = LoopbackServer(Handler)
        self.url = f"{self.http.url}/v1"


@contextmanager
def doc_server() -> Iterator[DocServer]:
    server = DocServer()
    with serving(server.http):
        yield server


def find_runs(folder: Path) -> list[str]:
    """Two runs that differ in their method only, the newest first."""
    summaries = sorted(
        folder.glob("results/runs/**/summary.json"),
        key=lambda file: file.stat().st_mtime_ns,
        reverse=True,
    )
    by_setting: dict[tuple[str, str], list[str]] = {}
    for file in summaries:
        summary = json.loads(file.read_text(encoding="utf-8"))
        runs = by_setting.setdefault((summary["task"], summary["model"]), [])
        runs.append(str(file.parent))
        if len(runs) == 2:
            return runs
    return []


def fill_in(words: Sequence[str], folder: Path) -> list[str]:
    """Put files and runs that exist in the place of those that a page only names."""
    runs = find_runs(folder)
    filled = []
    for before, word in zip(["", *words], words, strict=False):
        if word in ("RUN", "OTHER") and not before.startswith("-"):
            word = runs[["RUN", "OTHER"].index(word)]
        elif word.startswith("results/") and word.endswith("FILE.jsonl"):
            pattern = word.replace("...", "**").replace("FILE", "*")
            word = str(max(folder.glob(pattern), key=lambda file: file.stat().st_mtime_ns))
        elif word.startswith("results/runs/") and "*" in word:
            # A shell would replace it by all that match; pages mean one run.
            word = str(max(folder.glob(word), key=lambda file: file.stat().st_mtime_ns))
        elif "$SLURM_ARRAY_TASK_ID" in word:
            word = word.replace("$SLURM_ARRAY_TASK_ID", "1")
        filled.append(word)
    return filled


def stand_in(words: Sequence[str], server: DocServer, limit: bool = True) -> list[str]:
    """The words of a command, with loopback servers, the example data and few samples."""
    verb = words[0]
    options = _read_pairs(words)
    changed = {
        name: [server.url] for name in options if name.endswith("-base-url") or name == "--base-url"
    }
    if options.get("--data", [""])[0] in OFFICIAL_DATA:
        changed["--data"] = changed["--split"] = []
    if verb in MODEL_VERBS or words[:2] in (["check", "backend"], ["cache", "why"]):
        changed |= _point_at(server, verb, options)
    if verb == "reproduce" and len(words) > 1 and "--scale" not in options:
        changed["--scale"] = [str(SAMPLES)]
    backend = options.get("--backend", options.get("-b", [""]))[0]
    if verb == "run" and limit and backend != "scripted" and "--users" not in options:
        samples = min(SAMPLES, int(options.get("--limit", options.get("-n", [SAMPLES]))[0]))
        changed |= {"--limit": [str(samples)], "-n": []}
    return _change(words, changed)


def _point_at(server: DocServer, verb: str, options: dict[str, list[str]]) -> dict[str, list[str]]:
    """Options that send the calls of every model to the server."""
    changed: dict[str, list[str]] = {}
    backend = options.get("--backend", options.get("-b", ["local"]))[0]
    model = options.get("--model", [""])[0]
    tested = verb in ("run", "generate", "check", "cache", "reproduce")
    if tested and backend != "scripted":
        local = backend == "local"
        changed["--backend"] = ["openai" if local else backend]
        changed["-b"] = []
        changed["--base-url"] = [server.url]
        server.model = "stand-in" if local or not model else model.partition(",")[0]
        if local:
            changed["--model"] = []
    if "--judges" in options:
        changed["--judges"] = [options["--judges"][0].replace("local", "openai:another")]
        changed["--judge-base-url"] = [server.url]
    for role in ROLES:
        if f"--{role}-model" in options or f"--{role}-backend" in options:
            changed[f"--{role}-base-url"] = [server.url]
    return changed


def _read_pairs(words: Sequence[str]) -> dict[str, list[str]]:
    pairs: dict[str, list[str]] = {}
    for word, following in zip(words, [*words[1:], ""], strict=True):
        if word.startswith("-"):
            pairs.setdefault(word, []).append(following)
    return pairs


def _change(words: Sequence[str], changed: dict[str, list[str]]) -> list[str]:
    kept: list[str] = []
    skip = False
    for word in words:
        if not skip and word not in changed:
            kept.append(word)
        skip = not skip and word in changed
    for name, values in changed.items():
        for value in values:
            kept += [name, value]
    return kept
