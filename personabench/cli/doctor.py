"""`personabench doctor`: check the installation."""

from __future__ import annotations

import sys

import typer

from personabench.cli.options import RESULTS, Json, Results, emit


def doctor(results: Results = RESULTS, json: Json = False) -> None:
    """Look at the installation, model and results folder."""
    import os
    import tempfile

    from personabench.errors import PersonabenchError
    from personabench.models.backends.local import find_model
    from personabench.run.runner import versions

    rows: list[dict[str, str]] = [
        {"what": name, "state": "ok", "detail": version} for name, version in versions().items()
    ]
    try:
        rows.append({"what": "local model", "state": "ok", "detail": find_model(None).name})
    except PersonabenchError as error:
        rows.append({"what": "local model", "state": "missing", "detail": str(error)})
    for module, purpose in (
        ("xllamacpp", "local backend"),
        ("wordllama", "dense retrieval"),
        ("vllm", "vllm extra"),
    ):
        import importlib.util

        state = "ok" if importlib.util.find_spec(module) else "missing"
        rows.append({"what": module, "state": state, "detail": purpose})
    key = "set" if os.environ.get("OPENAI_API_KEY") else "not set; needed for remote APIs only"
    rows.append({"what": "OPENAI_API_KEY", "state": "ok", "detail": key})
    try:
        results.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=results):
            rows.append({"what": "results folder", "state": "ok", "detail": str(results)})
    except OSError as error:
        rows.append(
            {"what": "results folder", "state": "broken", "detail": f"{results}: {error.strerror}"}
        )
    if json:
        emit(rows)
    else:
        for row in rows:
            typer.echo(f"{row['state']:8} {row['what']:22} {row['detail']}")
    if any(row["state"] == "broken" for row in rows):
        sys.exit(1)
