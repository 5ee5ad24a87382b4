"""The command line.

`main` is the entry point. It imports the commands itself, so that Ctrl-C before they are imported
ends the process without a traceback of an import.
"""

from __future__ import annotations

import signal


def main() -> None:
    """Run the `personabench` command."""
    handler = signal.getsignal(signal.SIGINT)
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    from personabench.cli.app import main as run

    signal.signal(signal.SIGINT, handler)
    run()
