"""The same questions through other evaluation harnesses, for `throughput.py --peer-python`.

    python benchmarks/peers.py inspect-ai URL DATA CONCURRENCY

Each harness loads the questions, calls a chat-completions server with the given number of calls in
flight, scores answers by exact match and writes its log, as in normal use; printed are seconds of
wall time and of CPU and peak MiB.  Nothing of personabench is imported, so any interpreter that has
the harness will do.
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


def read_questions(data: Path) -> list[dict[str, str]]:
    """Read id, input and output of every question."""
    outputs = json.loads((data / "dev_outputs.json").read_bytes())
    output_of = {gold["id"]: gold["output"] for gold in outputs["golds"]}

    questions = []
    for record in json.loads((data / "dev_questions.json").read_bytes()):
        question = {
            "id": record["id"],
            "input": record["input"],
            "output": output_of[record["id"]],
        }
        questions.append(question)
    return questions


def inspect_ai(
    url: str,
    data: Path,
    concurrency: int,
    folder: Path,
) -> None:
    from inspect_ai import Task, eval
    from inspect_ai.dataset import MemoryDataset, Sample
    from inspect_ai.model import GenerateConfig, get_model
    from inspect_ai.scorer import exact
    from inspect_ai.solver import generate

    samples = []
    for question in read_questions(data):
        sample = Sample(
            input=question["input"],
            target=question["output"],
            id=question["id"],
        )
        samples.append(sample)
    config = GenerateConfig(
        max_connections=concurrency,
        max_tokens=MAX_TOKENS,
        temperature=0.0,
        seed=0,
    )
    # The server of the benchmark speaks chat completions only.
    model = get_model(
        f"openai/{MODEL}",
        base_url=url,
        api_key="none",
        config=config,
        responses_api=False,
    )
    task = Task(
        dataset=MemoryDataset(samples),
        solver=generate(),
        scorer=exact(),
    )
    (log,) = eval(
        task,
        model=model,
        max_samples=concurrency,
        log_dir=str(folder),
        display="none",
    )
    assert log.status == "success", log.error


def lm_eval(
    url: str,
    data: Path,
    concurrency: int,
    folder: Path,
) -> None:
    from lm_eval import simple_evaluate
    from lm_eval.tasks import TaskManager

    path = folder / "questions.jsonl"
    with path.open("w") as file:
        for question in read_questions(data):
            file.write(json.dumps(question) + "\n")
    task = {
        "task": "headlines",
        "dataset_path": "json",
        "dataset_kwargs": {
            "data_files": {"test": str(path)},
            "cache_dir": str(folder),
        },
        "test_split": "test",
        "output_type": "generate_until",
        "doc_to_text": "{{input}}",
        "doc_to_target": "{{output}}",
        "generation_kwargs": {
            "max_gen_toks": MAX_TOKENS,
            "until": [],
            "temperature": 0.0,
        },
        "metric_list": [
            {
                "metric": "exact_match",
                "aggregation": "mean",
                "higher_is_better": True,
            }
        ],
    }
    results = simple_evaluate(
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
    (folder / "results.json").write_text(json.dumps(results, default=str))


def main() -> None:
    name, url, data, concurrency = sys.argv[1:]
    started = time.perf_counter()
    evaluate = lm_eval if name == "lm-eval" else inspect_ai
    with tempfile.TemporaryDirectory() as folder:
        evaluate(url, Path(data), int(concurrency), Path(folder))

    wall = time.perf_counter() - started
    usage = resource.getrusage(resource.RUSAGE_SELF)
    cpu = usage.ru_utime + usage.ru_stime
    # Linux counts the peak in KiB.
    print(json.dumps([wall, cpu, usage.ru_maxrss / 1024]))


if __name__ == "__main__":
    main()
