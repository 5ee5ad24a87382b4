"""A run as a log of inspect-ai (log format version 2), which `inspect view` opens.

The format is plain JSON, as one `.json` file or as the members of an `.eval` zip file, so it is written without
importing inspect-ai, sample by sample.  A sample's conversation is its last call; all its calls, those that made the
user's state included, are events of its transcript.  Scores have the scorer's name and a value per metric; metrics
whose per-sample value is more than a number are in the metadata.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from personabench import __version__
from personabench.errors import UsageError
from personabench.results.export import CallRecord, Line, Source, replacing
from personabench.results.index import SCORER, label
from personabench.results.summary import to_dict
from personabench.types import Message, Usage, to_json

VERSION = 2
_STOP_REASONS = {"length": "max_tokens", "refused": "content_filter"}
ROLES = {"simulate": "simulator", "judge": "judge"}


def write(source: Source, output: Path) -> None:
    """Write a run as an inspect-ai log, `.eval` or `.json` as the name of the file says.

    Raises:
        UsageError: the name ends otherwise, or the file cannot be written.
    """
    if output.suffix not in (".eval", ".json"):
        raise UsageError(f"--output {output}: an inspect log ends in .eval or .json")
    with replacing(output) as path:
        (_write_eval if output.suffix == ".eval" else _write_json)(source, path)


def _write_json(source: Source, path: Path) -> None:
    with path.open("w", encoding="utf-8") as file:
        file.write(json.dumps(_header(source), ensure_ascii=False)[:-1] + ', "samples": [')
        for number, sample in enumerate(_samples(source)):
            file.write("," * bool(number) + "\n" + json.dumps(sample, ensure_ascii=False))
        file.write("\n]}\n")


def _write_eval(source: Source, path: Path) -> None:
    header = _header(source)
    summaries = []
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
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
    facts = to_dict(summary)
    name = f"{spec.task}/{spec.separation}/{spec.split}"
    sampling = spec.sampling
    decoding = {"temperature": sampling.temperature, "top_p": sampling.top_p, "seed": spec.seed}
    if sampling.max_tokens is not None:
        decoding["max_tokens"] = sampling.max_tokens
    results = sorted(summary.metrics.items(), key=_official_first)
    about = {
        "eval_id": spec.fingerprint[:22],
        "run_id": spec.fingerprint[:22],
        "created": _time(summary.time),
        "task": name,
        "task_id": spec.fingerprint[:22],
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
        "scorers": [{"name": scorer} for scorer, _ in results],
        "metadata": {
            **{
                key: facts[key]
                for key in (
                    "fingerprint",
                    "data_hash",
                    "sample",
                    "method",
                    "params",
                    "history",
                    "seed",
                )
            },
            **{
                key: facts[key]
                for key in ("n", "owed", "users", "counters", "usage", "seconds", "versions")
            },
        },
    }
    scores = [
        {
            "name": scorer,
            "scorer": scorer,
            "scored_samples": len(source.scores),
            "unscored_samples": len(source.ids) - len(source.scores),
            "metrics": {
                metric: {"name": metric, "value": value} for metric, value in metrics.items()
            },
        }
        for scorer, metrics in results
    ]
    phases = [phase for name, phase in summary.usage.items() if name not in ROLES]
    used = Usage(
        sum(phase.input_tokens for phase in phases), sum(phase.output_tokens for phase in phases)
    )
    return {
        "version": VERSION,
        "status": "success" if summary.complete else "cancelled",
        "eval": about,
        "plan": {"name": "plan", "steps": [{"solver": spec.method, "params": dict(spec.params)}]},
        "results": {
            "total_samples": summary.n + summary.owed,
            "completed_samples": summary.n,
            "scores": scores,
        },
        "stats": {
            "started_at": _time(summary.time),
            "completed_at": _time(summary.time),
            "model_usage": {_model(source): _usage(used)},
        },
    }


def _samples(source: Source) -> Iterator[dict[str, Any]]:
    time, model = _time(source.summary.time), _model(source)
    players = {role: about.model for role, about in source.summary.roles.items()}
    for line in source.lines():
        prediction, sample = line.prediction, line.sample
        last = next(
            (asked for asked in reversed(line.calls) if asked.call.phase == "predict"), None
        )
        messages = [_message(message) for message in (last.messages or () if last else ())]
        finish = "stop" if last is None else last.call.finish
        output = _output(model, prediction.output or "", finish, prediction.usage)
        yield {
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
                _event(asked, model, players, time)
                for asked in line.calls
                if asked.messages is not None
            ],
            **(
                {"error": {"message": prediction.error, "traceback": "", "traceback_ansi": ""}}
                if prediction.error
                else {}
            ),
        }


def _scores(line: Line) -> dict[str, Any]:
    values: Mapping[str, Mapping[str, Any]] = line.score.values if line.score else {}
    return {
        scorer: {
            "value": {
                metric: value for metric, value in metrics.items() if not isinstance(value, list)
            },
            "answer": line.prediction.output if scorer == SCORER else line.prediction.parsed,
            "metadata": {
                metric: value for metric, value in metrics.items() if isinstance(value, list)
            },
        }
        for scorer, metrics in sorted(values.items(), key=_official_first)
    }


def _official_first(item: tuple[str, Any]) -> bool:
    return item[0] != SCORER


def _metadata(line: Line) -> dict[str, Any]:
    prediction, sample = line.prediction, line.sample
    found: dict[str, Any] = {"user_id": prediction.user_id, "flags": dict(prediction.flags)}
    if sample is not None:
        found |= {"attributes": dict(sample.attributes), "history": len(sample.history)}
    if line.profile is not None:
        state = line.profile.state
        found["profile"] = state if isinstance(state, str) else to_json(state)
    return found | ({"record": prediction.record} if prediction.record else {})


def _event(asked: CallRecord, model: str, players: Mapping[str, str], time: str) -> dict[str, Any]:
    """A call as an event of the transcript; simulated users and judges by their role and model."""
    call, role = asked.call, ROLES.get(asked.call.phase)
    model = players.get(role or "", model)
    usage = Usage(call.input_tokens, call.output_tokens, call.cached_tokens)
    return {
        "event": "model",
        "timestamp": time,
        "working_start": 0.0,
        "working_time": call.seconds,
        "model": model,
        "role": role,
        "input": [_message(message) for message in asked.messages or ()],
        "tools": [],
        "tool_choice": "none",
        "config": {},
        "output": _output(model, asked.reply or "", call.finish, usage, asked.thought or ""),
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
    """What the list of samples shows of one."""
    kept = ("id", "epoch", "input", "choices", "target", "scores", "model_usage")
    return {
        **{key: sample[key] for key in kept},
        "metadata": {"user_id": sample["metadata"]["user_id"]},
        "error": sample.get("error", {}).get("message"),
        "completed": "error" not in sample,
        "message_count": len(sample["messages"]),
    }


def _message(message: Message) -> dict[str, str]:
    return {"role": message.role, "content": message.content}


def _usage(usage: Usage) -> dict[str, int]:
    found = {"input_tokens": usage.input_tokens, "output_tokens": usage.output_tokens}
    found["total_tokens"] = sum(found.values())
    return found | ({"input_tokens_cache_read": usage.cached_tokens} if usage.cached_tokens else {})


def _model(source: Source) -> str:
    return f"{source.spec.model.get('kind', 'model')}/{source.spec.model['name']}"


def _time(stamp: str) -> str:
    return stamp.replace("Z", "+00:00")
