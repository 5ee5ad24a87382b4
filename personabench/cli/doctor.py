"""`personabench doctor`: check the installation."""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path

import typer

from personabench.cli.console import emit
from personabench.cli.options import RESULTS, Json, Results

_OPTIONAL_MODULES = {
    "xllamacpp": "local backend",
    "wordllama": "dense retrieval",
    "vllm": "vllm extra",
}


def doctor(results: Results = RESULTS, json: Json = False) -> None:
    """Check the installation, local model and results folder."""
    from personabench.run.run_facts import versions

    rows = [_row(name, "ok", version) for name, version in versions().items()]
    rows.append(_check_local_model())
    for module, purpose in _OPTIONAL_MODULES.items():
        # Looked up without importing, which takes seconds for vllm.
        state = "ok" if importlib.util.find_spec(module) else "missing"
        rows.append(_row(module, state, purpose))

    key = "set" if os.environ.get("OPENAI_API_KEY") else "not set; needed for remote APIs only"
    rows.append(_row("OPENAI_API_KEY", "ok", key))
    rows.append(_check_results(results))

    if json:
        emit(rows)
    else:
        for row in rows:
            typer.echo(f"{row['state']:8} {row['what']:22} {row['detail']}")
    # A missing optional part is no failure: other backends and methods work without it.
    if any(row["state"] == "broken" for row in rows):
        sys.exit(1)


def _row(what: str, state: str, detail: str) -> dict[str, str]:
    return {"what": what, "state": state, "detail": detail}


def _check_local_model() -> dict[str, str]:
    """Check that a model file for the local backend exists."""
    from personabench.errors import PersonabenchError
    from personabench.models.backends.local import find_model

    try:
        return _row("local model", "ok", find_model(None).name)
    except PersonabenchError as error:
        return _row("local model", "missing", str(error))


def _check_results(results: Path) -> dict[str, str]:
    """Check that the results folder can be written."""
    import tempfile

    try:
        results.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=results):
            return _row("results folder", "ok", str(results))
    except OSError as error:
        return _row("results folder", "broken", f"{results}: {error.strerror}")
