"""The command line: one module per command, with heavy imports inside the commands.

Expected errors end as one message on stderr and an exit code (2: usage and data, 1: a failed run,
130: interrupted). `crash` explains any other exception.
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
    audit,
    cache,
    check,
    compare,
    crash,
    doctor,
    download,
    export,
    generate,
    import_answers,
    init,
    inspect,
    judge,
    judge_panel,
    judge_report,
    leaderboard,
    merge,
    new,
    pack,
    plot,
    publish,
    report,
    reproduce,
    run,
    score,
    show,
    table,
    train,
)
from personabench.cli import list as listing
from personabench.cli.console import echo
from personabench.cli.help import OFFLINE_HELP, PanelCommand, PlainCommand
from personabench.cli.run_command import RunCommand
from personabench.errors import PersonabenchError, visible
from personabench.models import environment

_HELP = "The benchmark harness for LLM personalization: does a method really know this user better?"

app = typer.Typer(
    help=_HELP,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    # Importing rich takes longer than a help page should; see `PanelCommand`.
    rich_markup_mode=None,
)


def _print_version(requested: bool) -> None:
    if requested:
        echo(f"personabench {__version__}")
        raise typer.Exit


@app.callback(help=_HELP)
def _root(
    version: bool = typer.Option(
        False, "--version", callback=_print_version, is_eager=True, help="Show the version."
    ),
    offline: bool = typer.Option(False, "--offline", help=OFFLINE_HELP),
) -> None:
    pass


app.command("run", cls=RunCommand)(run.run)
app.command("train", cls=PlainCommand)(train.train)
app.command("init", cls=PlainCommand)(init.init)
app.command("reproduce", cls=PanelCommand)(reproduce.reproduce)
app.command("merge", cls=PlainCommand)(merge.merge)
app.command("score", cls=PlainCommand)(score.score)
app.command("import", cls=PanelCommand)(import_answers.import_answers)
app.command("leaderboard", cls=PlainCommand)(leaderboard.leaderboard)
app.command("table", cls=PlainCommand)(table.table)
app.command("plot", cls=PlainCommand)(plot.plot)
app.command("report", cls=PlainCommand)(report.report)
app.command("compare", cls=PlainCommand)(compare.compare)
app.command("judge", cls=PlainCommand)(judge.judge)
app.command("judge-panel", cls=PlainCommand)(judge_panel.judge_panel)
app.command("judge-report", cls=PlainCommand)(judge_report.judge_report)
app.command("publish", cls=PlainCommand)(publish.publish)
app.command("pack", cls=PlainCommand)(pack.pack)
app.command("export", cls=PlainCommand)(export.export)
app.command("show", cls=PlainCommand)(show.show)
app.add_typer(inspect.app, name="inspect")
app.add_typer(listing.listing, name="list")
app.add_typer(check.app, name="check")
app.command("audit", cls=PlainCommand)(audit.audit)
app.command("download", cls=PlainCommand)(download.download)
app.command("generate", cls=PlainCommand)(generate.generate)
app.add_typer(cache.app, name="cache")
app.add_typer(new.app, name="new")
app.command("doctor", cls=PlainCommand)(doctor.doctor)


def _leave(code: int) -> None:
    """Exit at once."""
    # A normal exit would wait for threads, in which a local model may still generate.
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError):
            stream.flush()
    os._exit(code)


def _has_abandoned_tasks() -> bool:
    """Whether plugin code is still running that cannot be stopped."""
    # Not imported here: commands without runs do not need the module.
    interrupts = sys.modules.get("personabench.run.interrupts")
    return bool(interrupts and interrupts.abandoned)


def main() -> None:
    """Run the `personabench` command."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, io.StringIO())
        elif isinstance(stream, io.TextIOWrapper):
            # A terminal that cannot show a character shows a question mark instead of a traceback.
            stream.reconfigure(errors="replace")
    try:
        try:
            _prepare()
            app()
        finally:
            sys.stdout.flush()
    except PersonabenchError as error:
        print(f"error: {visible(str(error))}", file=sys.stderr)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        _leave(130)
    except SystemExit as end:
        if end.code == 130 or _has_abandoned_tasks():
            _leave(end.code if isinstance(end.code, int) else int(end.code is not None))
        raise
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(1)
    except Exception as error:
        message, code = crash.explain(error)
        print(f"error: {message}", file=sys.stderr)
        _end(code, error)


def _prepare() -> None:
    environment.check_words(sys.argv[1:])
    # Before or after the name of the command, so that it is no option of a single one.
    is_offline = "--offline" in sys.argv or environment.is_offline()
    sys.argv = [word for word in sys.argv if word != "--offline"]
    environment.disable_telemetry()
    environment.encode_proxies()
    environment.refuse_pipes()
    if is_offline:
        environment.go_offline()


def _end(code: int, error: Exception) -> None:
    # A normal exit would try to flush the output again to a full disk.
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        _leave(code)
    sys.exit(code)
