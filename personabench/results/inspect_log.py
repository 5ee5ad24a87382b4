"""Write a run as a log of inspect-ai (log format version 2), which `inspect view` opens.

The format is plain JSON, as one `.json` file or as the members of an `.eval` zip file, so it is
written without importing inspect-ai, sample by sample. A sample's conversation is its last call;
all its calls, those that made the user's state included, are events of its transcript. Scores have
the scorer's name and a value per metric; metrics whose per-sample value is more than a number are
in the metadata.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

from personabench import __version__
from personabench.errors import UsageError
from personabench.results.export import CallRecord, Line, Source, writing
from personabench.results.index import SCORER, label
from personabench.results.summary import Phase, to_dict
from personabench.types import Message, Usage, to_json

T = TypeVar("T")

VERSION = 2
_STOP_REASONS = {"length": "max_tokens", "refused": "content_filter"}

# Phases of calls that the benchmark makes, by the role that answers.
ROLES = {"simulate": "simulator", "judge": "judge"}

# Inspect's own ids are this long.
ID_LENGTH = 22

METADATA = (
    "fingerprint",
    "data_hash",
    "sample",
    "method",
    "params",
    "history",
    "seed",
    "n",
    "owed",
    "users",
    "counters",
    "usage",
    "seconds",
    "versions",
)


def write(source: Source, output: Path) -> None:
    """Write a run as an inspect-ai log, as `.eval` or `.json` by the suffix of the file.

    Raises:
        UsageError: the name ends otherwise, or the file cannot be written.
    """
    if output.suffix not in (".eval", ".json"):
        raise UsageError(f"--output {output}: an inspect log ends in .eval or .json")
    with writing(output) as path:
        (_write_eval if output.suffix == ".eval" else _write_json)(source, path)


def _write_json(source: Source, path: Path) -> None:
    with path.open("x", encoding="utf-8") as file:
        file.write(json.dumps(_header(source), ensure_ascii=False)[:-1] + ', "samples": [')
        for number, sample in enumerate(_samples(source)):
            file.write("," * bool(number) + "\n" + json.dumps(sample, ensure_ascii=False))
        file.write("\n]}\n")


def _write_eval(source: Source, path: Path) -> None:
    header = _header(source)
    summaries = []
    with zipfile.ZipFile(path, "x", zipfile.ZIP_DEFLATED) as archive:
        start = {"version": VERSION, "eval": header["eval"], "plan": header["plan"]}
        archive.writestr("_journal/start.json", json.dumps(start))
        for sample in _samples(source):
            archive.writestr(f"samples/{sample['id']}_epoch_1.json", json.dumps(sample))
            summaries.append(_summary(sample))
        archive.writestr("summaries.json", json.dumps(summaries))
        archive.writestr("header.json", json.dumps(header))


def _header(source: Source) -> dict[str, Any]:
    """The log without its samples."""
    summary, spec = source.summary, source.spec
    return {
        "version": VERSION,
        "status": "success" if summary.complete else "cancelled",
        "eval": _evaluation(source),
        "plan": {
            "name": "plan",
            "steps": [{"solver": spec.method, "params": dict(spec.params)}],
        },
        "results": {
            "total_samples": summary.n + summary.owed,
            "completed_samples": summary.n,
            "scores": [
                _score_summary(source, scorer, metrics)
                for scorer, metrics in _official_first(summary.metrics)
            ],
        },
        "stats": {
            "started_at": _time(summary.time),
            "completed_at": _time(summary.time),
            "model_usage": _usage_by_model(source),
        },
    }


def _evaluation(source: Source) -> dict[str, Any]:
    summary, spec = source.summary, source.spec
    name = f"{spec.task}/{spec.separation}/{spec.split}"
    decoding = {
        "temperature": spec.sampling.temperature,
        "top_p": spec.sampling.top_p,
        "seed": spec.seed,
    }
    if spec.sampling.max_tokens is not None:
        decoding["max_tokens"] = spec.sampling.max_tokens

    fields = to_dict(summary)
    return {
        "eval_id": spec.fingerprint[:ID_LENGTH],
        "run_id": spec.fingerprint[:ID_LENGTH],
        "created": _time(summary.time),
        "task": name,
        "task_id": spec.fingerprint[:ID_LENGTH],
        "task_version": spec.task_version,
        "task_display_name": f"{name}: {label(summary)}",
        "task_args": dict(spec.task_params),
        "dataset": {
            "name": summary.source,
            "samples": len(source.ids),
            "sample_ids": source.ids,
            "shuffled": False,
        },
        "solver": label(summary),
        "solver_args": dict(spec.params),
        "model": _model(source),
        "model_args": dict(spec.model),
        "model_generate_config": decoding,
        "config": {"epochs": 1},
        "packages": {"personabench": __version__},
        "scorers": [{"name": scorer} for scorer, _ in _official_first(summary.metrics)],
        "metadata": {name: fields[name] for name in METADATA},
    }


def _score_summary(
    source: Source, scorer: str, metrics: Mapping[str, float | None]
) -> dict[str, Any]:
    return {
        "name": scorer,
        "scorer": scorer,
        "scored_samples": len(source.scores),
        "unscored_samples": len(source.ids) - len(source.scores),
        "metrics": {metric: {"name": metric, "value": value} for metric, value in metrics.items()},
    }


def _usage_by_model(source: Source) -> dict[str, dict[str, int]]:
    """Tokens of the method's models, without those of simulated users and judges."""
    summary = source.summary
    usage = {_model(source): _usage(_sum_phases(summary.usage))}
    if summary.profiler_usage:
        usage[summary.roles["profiler"].model] = _usage(_sum_phases(summary.profiler_usage))
    return usage


def _sum_phases(usage: Mapping[str, Phase]) -> Usage:
    phases = [phase for name, phase in usage.items() if name not in ROLES]
    return Usage(
        sum(phase.input_tokens for phase in phases),
        sum(phase.output_tokens for phase in phases),
    )


def _samples(source: Source) -> Iterator[dict[str, Any]]:
    roles = {role: model.model for role, model in source.summary.roles.items()}
    for line in source.lines():
        yield _sample(source, line, roles)


def _sample(source: Source, line: Line, roles: Mapping[str, str]) -> dict[str, Any]:
    time = _time(source.summary.time)
    model = _model(source)
    prediction, sample = line.prediction, line.sample

    answer = next((call for call in reversed(line.calls) if call.call.phase == "predict"), None)
    messages = [_message(message) for message in (answer.messages or () if answer else ())]
    finish = answer.call.finish if answer else "stop"
    output = _output(model, prediction.output or "", finish, prediction.usage)
    content = {
        "id": prediction.sample_id,
        "epoch": 1,
        "input": sample.input if sample else "",
        "choices": list(sample.choices) or None if sample else None,
        "target": list(sample.references) if sample else "",
        "messages": [*messages, output["choices"][0]["message"]],
        "output": output,
        "scores": _scores(line),
        "metadata": _metadata(line),
        "model_usage": {model: _usage(prediction.usage)},
        "events": [
            _event(call, model, roles, time) for call in line.calls if call.messages is not None
        ],
    }
    if prediction.error:
        content["error"] = {
            "message": prediction.error,
            "traceback": "",
            "traceback_ansi": "",
        }
    return content


def _scores(line: Line) -> dict[str, Any]:
    values: Mapping[str, Mapping[str, Any]] = line.score.values if line.score else {}
    scores = {}
    for scorer, metrics in _official_first(values):
        answer = line.prediction.output if scorer == SCORER else line.prediction.parsed
        # Inspect shows numbers only; values of corpus metrics go into the metadata.
        numbers = {name: value for name, value in metrics.items() if not isinstance(value, list)}
        lists = {name: value for name, value in metrics.items() if isinstance(value, list)}
        scores[scorer] = {"value": numbers, "answer": answer, "metadata": lists}
    return scores


def _official_first(by_scorer: Mapping[str, T]) -> list[tuple[str, T]]:
    return sorted(by_scorer.items(), key=lambda item: item[0] != SCORER)


def _metadata(line: Line) -> dict[str, Any]:
    prediction, sample = line.prediction, line.sample
    metadata: dict[str, Any] = {
        "user_id": prediction.user_id,
        "flags": dict(prediction.flags),
    }
    if prediction.shown is not None:
        metadata["shown"] = list(prediction.shown)
    if sample is not None:
        metadata |= {"attributes": dict(sample.attributes), "history": len(sample.history)}
        if sample.evidence:
            metadata["evidence"] = list(sample.evidence)
    if line.profile is not None:
        state = line.profile.state
        metadata["profile"] = state if isinstance(state, str) else to_json(state)
    if prediction.interaction:
        metadata["interaction"] = prediction.interaction
    return metadata


def _event(record: CallRecord, model: str, roles: Mapping[str, str], time: str) -> dict[str, Any]:
    """A call as an event of the transcript; those of roles by their role and model."""
    call = record.call
    role = "profiler" if call.profiler else ROLES.get(call.phase)
    model = roles.get(role or "", model)
    usage = Usage(
        call.input_tokens,
        call.output_tokens,
        call.cached_tokens,
        call.reasoning_tokens,
        call.cache_write_tokens,
    )
    return {
        "event": "model",
        "timestamp": time,
        "working_start": 0.0,
        "working_time": call.seconds,
        "model": model,
        "role": role,
        "input": [_message(message) for message in record.messages or ()],
        "tools": [],
        "tool_choice": "none",
        "config": {},
        "output": _output(model, record.reply or "", call.finish, usage, record.thought or ""),
        "cache": "read" if call.cached else None,
        "metadata": {"phase": call.phase},
    }


def _output(model: str, text: str, finish: str, usage: Usage, thought: str = "") -> dict[str, Any]:
    parts = [{"type": "reasoning", "reasoning": thought}, {"type": "text", "text": text}]
    message = {
        "role": "assistant",
        "content": parts if thought else text,
        "source": "generate",
        "model": model,
    }
    return {
        "model": model,
        "choices": [{"message": message, "stop_reason": _STOP_REASONS.get(finish, "stop")}],
        "completion": text,
        "usage": _usage(usage),
    }


def _summary(sample: Mapping[str, Any]) -> dict[str, Any]:
    """The entry of a sample in the list of samples."""
    fields = ("id", "epoch", "input", "choices", "target", "scores", "model_usage")
    return {
        **{field: sample[field] for field in fields},
        "metadata": {"user_id": sample["metadata"]["user_id"]},
        "error": sample.get("error", {}).get("message"),
        "completed": "error" not in sample,
        "message_count": len(sample["messages"]),
    }


def _message(message: Message) -> dict[str, str]:
    return {"role": message.role, "content": message.content}


def _usage(usage: Usage) -> dict[str, int]:
    tokens = {
        "input_tokens": usage.input_tokens,
        "output_tokens": usage.output_tokens,
        "total_tokens": usage.input_tokens + usage.output_tokens,
    }
    if usage.cached_tokens:
        tokens["input_tokens_cache_read"] = usage.cached_tokens
    if usage.cache_write_tokens:
        tokens["input_tokens_cache_write"] = usage.cache_write_tokens
    if usage.reasoning_tokens:
        tokens["reasoning_tokens"] = usage.reasoning_tokens
    return tokens


def _model(source: Source) -> str:
    return f"{source.spec.model.get('kind', 'model')}/{source.spec.model['name']}"


def _time(stamp: str) -> str:
    return stamp.replace("Z", "+00:00")
