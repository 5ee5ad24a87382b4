"""Export a run: a `datasets` folder, a CSV, or (in `inspect_log`) an inspect-ai log.

A run folder holds answers and scores, the cache holds messages and replies, the data holds inputs
and references: an export joins them, sample by sample, so that memory stays flat. Missing parts are
left out with a remark. Unlike `publish`, an export carries the texts of the data and of its users.
"""

from __future__ import annotations

import contextlib
import re
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

from personabench.errors import UsageError
from personabench.models.cache import Cache
from personabench.results.csv_rows import write_csv
from personabench.results.files import replacing
from personabench.results.index import SCORER
from personabench.results.locate import explain_missing_data, find_dataset, find_task
from personabench.results.run_folder import Profile, RunFolder
from personabench.types import Call, Message, Prediction, Sample, Score, to_json


@dataclass(frozen=True)
class CallRecord:
    """A model call of a sample; messages, reply and thought are None if the cache has lost them."""

    call: Call
    messages: Sequence[Message] | None
    reply: str | None
    thought: str | None


@dataclass(frozen=True)
class Line:
    """One sample of a run with its answer, score and calls.

    Attributes:
        sample: input and references; None if the data has changed or moved.
        profile: the user's state behind the answer, if the method keeps one.
        calls: those of the profile, which the user's samples share, then those of the sample.
    """

    prediction: Prediction
    sample: Sample | None
    score: Score | None
    profile: Profile | None
    calls: Sequence[CallRecord]


class Source:
    """A run to export.

    Args:
        folder: the run.
        results: the results folder with the cache.

    Raises:
        UsageError: it has no answers yet.
        DataError: a file of the run is damaged.
    """

    def __init__(self, folder: RunFolder, results: Path) -> None:
        self.folder = folder
        self.summary = folder.summary()
        self.spec = folder.spec()
        folder.verify(folder.predictions_path)
        self.scores = {line.sample_id: line for line in folder.scores()}
        self.task = find_task(self.spec.task, self.spec.task_params, self.spec.task_hash)
        self.data = None
        if self.task is not None:
            self.data = find_dataset(self.task, self.summary, self.summary.data)
        self.cache_path = results / "cache.sqlite"

        index = self.data.index() if self.data else ()
        self._positions = {sample: position for position, (sample, _) in enumerate(index)}
        answered = dict.fromkeys(line.sample_id for line in folder.iter_predictions())
        # Samples that the data no longer has come last.
        last = len(self._positions)
        self.ids = sorted(answered, key=lambda sample: self._positions.get(sample, last))
        if not self.ids:
            raise UsageError(f"{folder.path} has no answers to export; repeat the run's command")

    def lines(self) -> Iterator[Line]:
        """Read every sample with an answer or an error, in the order of the data."""
        profiles = self.folder.profiles()
        cache = Cache(self.cache_path) if self.cache_path.exists() else None
        with contextlib.closing(cache) if cache else contextlib.nullcontext():
            for prediction in self.folder.ordered_predictions(self.ids):
                if prediction is None:
                    continue
                profile = profiles.get(prediction.profile or "-")
                calls = [*(profile.calls if profile else ()), *prediction.calls]
                yield Line(
                    prediction=prediction,
                    sample=self._load(prediction.sample_id),
                    score=self.scores.get(prediction.sample_id),
                    profile=profile,
                    calls=[_look_up(call, cache) for call in calls],
                )

    def _load(self, sample_id: str) -> Sample | None:
        position = self._positions.get(sample_id)
        if self.data is None or position is None:
            return None
        return self.data.load(position)

    def remarks(self) -> list[str]:
        """Describe the parts that an export of the run will lack."""
        remarks = []
        if self.data is None:
            reason = explain_missing_data(self.task, self.summary)
            remarks.append(f"{reason}; inputs and references are left out{self.spec.version_note}")
        if not self.cache_path.exists():
            remarks.append(f"{self.cache_path} is not there: messages and replies are left out")
        if self.summary.owed:
            remarks.append(f"{self.summary.owed} samples have no answer")
        return remarks


def _look_up(call: Call, cache: Cache | None) -> CallRecord:
    request = cache.request(call.key) if cache else None
    response = cache.get(call.key) if cache else None
    return CallRecord(
        call,
        messages=request.messages if request else None,
        reply=response.text if response else None,
        thought=response.thought if response else None,
    )


def rows(source: Source) -> Iterator[dict[str, Any]]:
    """Flatten samples into rows; docs/files.md describes the columns."""
    spec = source.spec
    shared = {
        "run": spec.fingerprint[:8],
        "task": spec.task,
        "separation": spec.separation,
        "split": spec.split,
        "example_data": spec.sample,
        "method": spec.method,
        "params": to_json(spec.params),
        "history": spec.history,
        "model": spec.model["name"],
        "seed": spec.seed,
    }
    metrics = _metrics(source)
    for line in source.lines():
        prediction, sample, profile = line.prediction, line.sample, line.profile
        yield {
            **shared,
            "sample_id": prediction.sample_id,
            "user_id": prediction.user_id,
            "input": sample and sample.input,
            "choices": list(sample.choices) if sample else [],
            "attributes": to_json(sample.attributes) if sample else None,
            "references": list(sample.references) if sample else [],
            "profile": None if profile is None else _to_text(profile.state),
            "output": prediction.output,
            "parsed": prediction.parsed,
            "interaction": to_json(prediction.interaction),
            "shown": list(prediction.shown or ()),
            "evidence": list(sample.evidence) if sample else [],
            "flags": to_json(prediction.flags),
            "error": prediction.error,
            "attempts": prediction.attempts,
            "input_tokens": prediction.usage.input_tokens,
            "output_tokens": prediction.usage.output_tokens,
            "cached_tokens": prediction.usage.cached_tokens,
            "calls": [_call_fields(call) for call in line.calls],
            **{
                column: line.score and line.score.values.get(scorer, {}).get(metric)
                for column, (scorer, metric) in metrics.items()
            },
        }


def _metrics(source: Source) -> dict[str, tuple[str, str]]:
    """Columns of scores: `<metric>` of the official scorer, else `<metric>/<scorer>`."""
    columns = {}
    # All scores: samples that a judge left unjudged lack some metrics.
    for score in source.scores.values():
        for scorer, metrics in score.values.items():
            for metric in metrics:
                column = metric if scorer == SCORER else f"{metric}/{scorer}"
                columns[column] = scorer, metric
    return columns


def _call_fields(record: CallRecord) -> dict[str, Any]:
    call = record.call
    return {
        "phase": call.phase,
        "cached": call.cached,
        "input_tokens": call.input_tokens,
        "output_tokens": call.output_tokens,
        "seconds": call.seconds,
        "finish": call.finish,
        "messages": [
            {"role": message.role, "content": message.content} for message in record.messages or ()
        ],
        "reply": record.reply,
        "thought": record.thought,
    }


def _to_text(state: Any) -> str:
    return state if isinstance(state, str) else to_json(state)


def write_csv_file(source: Source, output: Path, escape: bool = True) -> None:
    """Write a run's rows as CSV; lists and objects are JSON text.

    Args:
        escape: put an apostrophe before text that a spreadsheet would compute.

    Raises:
        UsageError: the file cannot be written.
    """
    samples = rows(source)
    with (
        writing(output) as path,
        path.open("x", encoding="utf-8", errors="backslashreplace", newline="") as file,
    ):
        first = next(samples, None)
        if first is not None:
            write_csv(file, first, chain([first], samples), escape=escape)


def write_dataset(source: Source, output: Path) -> None:
    """Write a run's rows as a folder for `datasets.load_from_disk`, every column typed.

    Raises:
        UsageError: the folder holds something already, or cannot be written.
    """
    is_empty_folder = output.is_dir() and not any(output.iterdir())
    if output.exists() and not is_empty_folder:
        raise UsageError(
            f"{output} exists; a dataset is a folder of its own: choose another --output"
        )
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        with building_dataset(source, output.parent) as dataset:
            dataset.save_to_disk(output)
    except OSError as error:
        raise UsageError(f"{output} cannot be written: {error.strerror or error}") from error


@contextlib.contextmanager
def building_dataset(source: Source, folder: Path | None = None) -> Iterator[Any]:
    """Provide a run's rows as a `datasets.Dataset`, whose files last as long as the block.

    Args:
        folder: where these files are, in a folder of their own; None for the system's.

    Raises:
        OSError: they cannot be written.
    """
    import datasets

    features = _features(source, datasets)
    # Progress bars of the library would garble the output of the command.
    bars_enabled = datasets.is_progress_bar_enabled()
    datasets.disable_progress_bars()
    try:
        with tempfile.TemporaryDirectory(dir=folder) as scratch:
            yield datasets.Dataset.from_generator(
                rows,
                features=datasets.Features(features),
                gen_kwargs={"source": source},
                cache_dir=scratch,
                fingerprint=source.spec.fingerprint[:16],
                split=datasets.NamedSplit(_name_split(source.spec.split)),
            )
    finally:
        if bars_enabled:
            datasets.enable_progress_bars()


def _name_split(split: str) -> str:
    """Return a split's name as `datasets` takes it, which keeps "all" for itself."""
    name = re.sub(r"\W", "_", split)
    return "all_samples" if name == "all" else name


def _features(source: Source, datasets: Any) -> dict[str, Any]:
    """The type of every column: those of the first row, but for lists and scores."""
    type_names: dict[type, str] = {str: "string", bool: "bool", int: "int64", float: "float64"}
    types = {kind: datasets.Value(name) for kind, name in type_names.items()}
    text, integer, number = types[str], types[int], types[float]

    first = next(rows(source))
    # Columns that are empty in the first row hold text.
    features = {name: types.get(type(value), text) for name, value in first.items()}
    lists = ("choices", "references", "shown", "evidence")
    features |= {name: [text] for name in lists}
    features["calls"] = [
        {
            "phase": text,
            "cached": types[bool],
            "input_tokens": integer,
            "output_tokens": integer,
            "seconds": number,
            "finish": text,
            "messages": [{"role": text, "content": text}],
            "reply": text,
            "thought": text,
        }
    ]
    for column, (scorer, metric) in _metrics(source).items():
        values = [score.values.get(scorer, {}).get(metric) for score in source.scores.values()]
        is_list = any(isinstance(value, list) for value in values)
        features[column] = [number] if is_list else number
    return features


@contextlib.contextmanager
def writing(output: Path) -> Iterator[Path]:
    """Provide the name of a file to create, which replaces `output` if the block does not raise.

    Raises:
        UsageError: it cannot be written.
    """
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        with replacing(output) as temporary:
            yield temporary
    except OSError as error:
        raise UsageError(f"{output} cannot be written: {error.strerror or error}") from error
