"""First contact with a server: its dialect is learnt before runs are named, since it names them."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from personabench.models.backends.base import Backend
from personabench.models.roles import RoleName
from personabench.run.options import Options
from personabench.run.resolve import ResolvedRun
from personabench.run.session import Session

Resolve = Callable[[], list[ResolvedRun]]


async def learn_dialects(
    runs: list[ResolvedRun],
    resolve_again: Resolve,
    options: Options,
    session: Session,
    stack: contextlib.AsyncExitStack,
) -> tuple[list[ResolvedRun], dict[Path, Path]]:
    """Open the models of the first pending run, and learn their dialects if they are not known.

    Args:
        resolve_again: resolves the runs anew, with the models' new identities.
        stack: closes the folder that is started here.

    Returns:
        the runs, and by folder the log of the one that is started already.

    Raises:
        UsageError: a model does not load.
        BackendDown: a server does not answer, or refuses what only the user may change.
    """
    pending = _find_pending(runs, options, session)
    if pending is None:
        return runs, {}

    folder = pending.folder
    log = folder.start(pending.spec)
    stack.callback(folder.close)
    changed = False
    for backend in (session.model, *pending.roles.values()):
        changed |= await session.open_backend(backend, log)
    if not changed:
        return runs, {folder.path: log}

    # The run that was started has another name now; its log goes with it.
    folder.close()
    resolved = resolve_again()
    for run in resolved:
        if (run.spec.method, run.spec.task) == (pending.spec.method, pending.spec.task):
            folder.rename(run.folder.path)
            break
    return resolved, {}


def _find_pending(
    runs: Sequence[ResolvedRun], options: Options, session: Session
) -> ResolvedRun | None:
    """Return the first run with samples to do, if it needs a model whose dialect is not known."""
    for run in runs:
        models: Mapping[RoleName, Backend] = run.roles
        if not any(map(session.openings.is_new, (session.model, *models.values()))):
            continue
        # The engine is used for nothing else: the runs may get another name.
        if session.create_engine(run, options).owed(run.positions):
            return run
    return None
