"""The same questions asked through other evaluation harnesses; run by `throughput.py --peer-python`, not by hand.

    python benchmarks/peers.py inspect-ai URL DATA CONCURRENCY

Each loads the questions, asks a chat-completions server with so many calls in flight, scores answers by exact match and
writes its log, as its users would have it do, and prints seconds of wall time and of CPU and peak MiB.  Nothing of
personabench is imported, so any interpreter that has the peer will do.
"""

from __future__ import annotations

import json
import resource
import sys
import tempfile
import time
from pathlib import Path

MODEL = "fixed-latency"
MAX_TOKENS = 64
MODULES = {"lm-eval": "lm_eval", "inspect-ai": "inspect_ai"}


def questions(data: Path) -> list[dict[str, str]]:
    """Id, input and output of every question."""
    golds = {
        gold["id"]: gold["output"]
        for gold in json.loads((data / "dev_outputs.json").read_bytes())["golds"]
    }
    records = json.loads((data / "dev_questions.json").read_bytes())
    return [
        {"id": record["id"], "input": record["input"], "output": golds[record["id"]]}
        for record in records
    ]


def inspect_ai(url: str, data: Path, concurrency: int, folder: Path) -> None:
    from inspect_ai import Task, eval
    from inspect_ai.dataset import MemoryDataset, Sample
    from inspect_ai.model import GenerateConfig, get_model
    from inspect_ai.scorer import exact
    from inspect_ai.solver import generate

    samples = [
        Sample(input=each["input"], target=each["output"], id=each["id"])
        for each in questions(data)
    ]
    config = GenerateConfig(
        max_connections=concurrency, max_tokens=MAX_TOKENS, temperature=0.0, seed=0
    )
    model = get_model(
        f"openai/{MODEL}", base_url=url, api_key="none", config=config, responses_api=False
    )
    task = Task(dataset=MemoryDataset(samples), solver=generate(), scorer=exact())
    (log,) = eval(task, model=model, max_samples=concurrency, log_dir=str(folder), display="none")
    assert log.status == "success", log.error


def lm_eval(url: str, data: Path, concurrency: int, folder: Path) -> None:
    from lm_eval import simple_evaluate
    from lm_eval.tasks import TaskManager

    lines = folder / "questions.jsonl"
    lines.write_text("".join(json.dumps(each) + "\n" for each in questions(data)))
    task = {
        "task": "headlines",
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(lines)}, "cache_dir": str(folder)},
        "test_split": "test",
        "output_type": "generate_until",
        "doc_to_text": "{{input}}",
        "doc_to_target": "{{output}}",
        "generation_kwargs": {"max_gen_toks": MAX_TOKENS, "until": [], "temperature": 0.0},
        "metric_list": [{"metric": "exact_match", "aggregation": "mean", "higher_is_better": True}],
    }
    found = simple_evaluate(
        model="local-chat-completions",
        model_args={
            "model": MODEL,
            "base_url": f"{url}/chat/completions",
            "num_concurrent": concurrency,
            "tokenizer_backend": None,
            "max_retries": 1,
        },
        tasks=[task],
        task_manager=TaskManager(include_defaults=False),
        apply_chat_template=True,
        bootstrap_iters=0,
    )
    (folder / "results.json").write_text(json.dumps(found, default=str))


def main() -> None:
    name, url, data, concurrency = sys.argv[1:]
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        {"lm-eval": lm_eval, "inspect-ai": inspect_ai}[name](
            url, Path(data), int(concurrency), Path(folder)
        )
    wall, used = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_SELF)
    print(json.dumps([wall, used.ru_utime + used.ru_stime, used.ru_maxrss / 1024]))


if __name__ == "__main__":
    main()
