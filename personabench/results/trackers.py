"""Hand a finished run to an experiment tracker: Weights & Biases or MLflow.

Both get the same: the run's settings as parameters, its scores and counts as metrics, and a table
of its samples. Both write to this machine unless their own variables name a server.
"""

from __future__ import annotations

import logging
import os
import re
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from personabench.errors import RunError, UsageError
from personabench.models.environment import is_offline
from personabench.results.export import Source, rows
from personabench.results.index import SCORER, label
from personabench.results.summary import Number, Phase
from personabench.types import to_json

PROJECT = "personabench"

# Parameters of a run, which would be the same in every row; the messages of calls are in exports.
_NOT_IN_TABLE = (
    "run",
    "task",
    "separation",
    "split",
    "example_data",
    "method",
    "params",
    "history",
    "model",
    "seed",
    "calls",
)


def write_wandb(source: Source, folder: Path) -> Path:
    """Write a run for Weights & Biases, offline unless WANDB_MODE says otherwise.

    Returns:
        the folder of the run, which `wandb sync` uploads.

    Raises:
        UsageError: wandb is not installed.
        RunError: it cannot write the run.
    """
    try:
        import wandb
    except ImportError as error:
        raise _not_installed("wandb") from error

    content = _collect(source)
    mode: Any = "offline" if is_offline() else os.environ.get("WANDB_MODE", "offline")
    # Neither output nor code nor machine of this command belong to the run.
    settings = wandb.Settings(
        silent=True,
        console="off",
        disable_code=True,
        disable_git=True,
        x_disable_meta=True,
        x_disable_stats=True,
        x_save_requirements=False,
    )
    try:
        folder.mkdir(parents=True, exist_ok=True)
        run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", PROJECT),
            dir=str(folder),
            mode=mode,
            id=source.spec.fingerprint[:8],
            resume="allow",
            name=content.name,
            config=content.parameters,
            settings=settings,
        )
        table = wandb.Table(columns=content.columns, data=content.samples, allow_mixed_types=True)
        run.log({"samples": table})
        run.summary.update(content.metrics)
        run.finish()
    # The client raises errors of several libraries.
    except Exception as error:
        raise RunError(f"wandb could not write the run: {error}") from error
    return Path(run.dir).parent if mode == "offline" else folder


def write_mlflow(source: Source, database: Path | None) -> str:
    """Write a run for MLflow, into a database file or to the server of MLFLOW_TRACKING_URI.

    Args:
        database: a SQLite file, made if it does not exist, with the tables beside it; None for the
            server.

    Returns:
        the address for `mlflow ui --backend-store-uri`.

    Raises:
        UsageError: mlflow is not installed, or there is neither file nor server.
        RunError: it cannot write the run.
    """
    address = os.environ.get("MLFLOW_TRACKING_URI", "")
    if database is not None:
        address = f"sqlite:///{database.absolute()}"
    elif not address:
        raise UsageError("--to mlflow needs --output FILE.db, or a server in MLFLOW_TRACKING_URI")
    try:
        import mlflow
        import mlflow.entities
    except ImportError as error:
        raise _not_installed("mlflow") from error

    # Its notes on new tables would be lines of this command.
    logging.getLogger("mlflow").setLevel(logging.WARNING)
    content = _collect(source)
    cells = zip(*content.samples, strict=True)
    table = {name: list(column) for name, column in zip(content.columns, cells, strict=True)}
    now = int(time.time() * 1000)
    metrics = [
        mlflow.entities.Metric(_clean(name), number, now, step=0)
        for name, number in content.metrics.items()
    ]
    parameters = [
        mlflow.entities.Param(_clean(name), str(value))
        for name, value in content.parameters.items()
    ]
    try:
        if database is not None:
            database.parent.mkdir(parents=True, exist_ok=True)
        client = mlflow.MlflowClient(tracking_uri=address)
        run = client.create_run(
            _find_experiment(client, database),
            run_name=content.name,
            tags={"personabench.run": source.spec.fingerprint},
        )
        run_id = run.info.run_id
        client.log_batch(run_id, metrics=metrics, params=parameters)
        client.log_table(run_id, table, "samples.json")
        client.set_terminated(run_id)
    # The client raises errors of several libraries.
    except Exception as error:
        raise RunError(f"mlflow could not write the run to {address}: {error}") from error
    return address


def _find_experiment(client: Any, database: Path | None) -> str:
    experiment = client.get_experiment_by_name(PROJECT)
    if experiment is not None:
        return str(experiment.experiment_id)
    artifacts = None
    if database is not None:
        # Without it, tables would land in the folder of the command.
        artifacts = database.absolute().with_suffix(".artifacts").as_uri()
    return str(client.create_experiment(PROJECT, artifact_location=artifacts))


@dataclass(frozen=True)
class _Content:
    """A run as trackers take it.

    Attributes:
        columns, samples: a table with a list of cells for each sample.
    """

    name: str
    parameters: dict[str, Any]
    metrics: dict[str, Number]
    columns: list[str]
    samples: list[list[Any]]


def _collect(source: Source) -> _Content:
    columns, samples = _make_table(source)
    return _Content(
        name=f"{label(source.summary)} on {source.spec.task}",
        parameters=dict(_list_parameters(source)),
        metrics=dict(_list_metrics(source)),
        columns=columns,
        samples=samples,
    )


def _list_parameters(source: Source) -> Iterator[tuple[str, Any]]:
    """The settings of a run by name, those of method and task with a prefix."""
    spec, summary = source.spec, source.summary
    yield "run", spec.fingerprint[:8]
    yield "fingerprint", spec.fingerprint
    for name in ("task", "separation", "split", "data_hash", "method", "history", "seed"):
        yield name, getattr(spec, name)
    yield "example_data", spec.sample
    yield "model", spec.model["name"]
    yield from _flatten("method", spec.params)
    yield from _flatten("task", spec.task_params)
    yield from _flatten("sampling", msgspec.to_builtins(spec.sampling))
    yield from _flatten("harness", summary.harness)
    for role, player in summary.roles.items():
        yield f"{role}.model", player.model
    if summary.command:
        yield "command", summary.command


def _flatten(prefix: str, values: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        is_plain = value is None or isinstance(value, str | int | float)
        yield f"{prefix}.{name}", value if is_plain else to_json(value)


def _list_metrics(source: Source) -> Iterator[tuple[str, Number]]:
    """The numbers of a run: scores, counts and usage; those that it does not have are left out."""
    summary = source.summary
    for scorer, metrics in summary.metrics.items():
        for name, value in metrics.items():
            if value is not None:
                yield (name if scorer == SCORER else f"{name}/{scorer}"), value
    for name, value in summary.extra_metrics.items():
        if value is not None:
            yield name, value
    for name in ("n", "users", "owed", "seconds"):
        yield name, getattr(summary, name)
    if summary.spent is not None:
        yield "spent", summary.spent
    for name, number in summary.counters.items():
        yield f"counters/{name}", number
    for phase, usage in summary.usage.items():
        for name in Phase.__struct_fields__:
            number = getattr(usage, name)
            if isinstance(number, int | float):
                yield f"usage/{phase}/{name}", number


def _make_table(source: Source) -> tuple[list[str], list[list[Any]]]:
    """The samples of a run: names of columns, and a list of cells for each sample."""
    samples = [
        {name: value for name, value in row.items() if name not in _NOT_IN_TABLE}
        for row in rows(source)
    ]
    columns = list(samples[0])
    return columns, [[_to_cell(sample[name]) for name in columns] for sample in samples]


def _to_cell(value: Any) -> Any:
    return to_json(value) if isinstance(value, list | dict) else value


def _clean(name: str) -> str:
    """A name with the characters that MLflow takes."""
    return re.sub(r"[^\w./ -]", "_", name, flags=re.ASCII)


def _not_installed(package: str) -> UsageError:
    command = f"pip install 'personabench-harness[{package}]'"
    return UsageError(f"{package} is not installed; install it with `{command}`")
