"""The command line: one file per group of verbs, heavy imports inside the verbs.

Errors meant for people end as one message on stderr and an exit code (2: usage and data, 1: a run that failed, 130:
interrupted); anything else is a defect and shows its traceback.
"""

from __future__ import annotations

import contextlib
import errno
import io
import os
import sys

import typer

from personabench import __version__
from personabench.cli import (
    cache,
    check,
    compare,
    doctor,
    download,
    export,
    generate,
    judge,
    leaderboard,
    merge,
    new,
    publish,
    report,
    run,
    score,
    show,
)
from personabench.cli import list as listing
from personabench.errors import PersonabenchError

app = typer.Typer(
    help="The benchmark harness for LLM personalization: does a method really know this user better?",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    add_completion=False,
)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"personabench {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: bool = typer.Option(
        False, "--version", callback=_version, is_eager=True, help="Show the version."
    ),
) -> None:
    """The benchmark harness for LLM personalization: does a method really know this user better?"""


app.command("run")(run.run)
app.command("merge")(merge.merge)
app.command("score")(score.score)
app.command("leaderboard")(leaderboard.leaderboard)
app.command("report")(report.report)
app.command("compare")(compare.compare)
app.command("judge")(judge.judge)
app.command("judge-report")(judge.judge_report)
app.command("publish")(publish.publish)
app.command("export")(export.export)
app.command("show")(show.show)
app.add_typer(listing.listing, name="list")
app.add_typer(check.app, name="check")
app.command("download")(download.download)
app.command("generate")(generate.generate)
app.add_typer(cache.app, name="cache")
app.add_typer(new.app, name="new")
app.command("doctor")(doctor.doctor)


def _leave(code: int) -> None:
    """End now: a model that still computes an abandoned answer in a thread is not waited for."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError):
            stream.flush()
    os._exit(code)


def main() -> None:
    """The `personabench` command.  What a terminal cannot show is shown as a question mark."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, io.StringIO())
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    try:
        try:
            app()
        finally:
            sys.stdout.flush()
    except PersonabenchError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        _leave(130)
    except SystemExit as end:
        if end.code == 130:
            _leave(130)
        raise
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(1)
    except OSError as error:
        if error.errno != errno.ENOSPC or error.filename is not None:
            raise
        print(f"error: the output cannot be written: {error.strerror}", file=sys.stderr)
        _leave(1)
