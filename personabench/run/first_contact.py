"""First contact with a server: its dialect is learnt before runs are named, since it names them."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import msgspec

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

    # The run that was started has another name now: its log moves, and its folder goes.
    folder.close()
    resolved = resolve_again()
    new_log = _restart(pending, resolved, stack)
    if new_log is None:
        return resolved, {}
    # The dialect of a judge does not name a run: its folder is the same one.
    if new_log.parents[1] == folder.path:
        return resolved, {folder.path: log}
    if log.exists():
        log.replace(new_log)
    folder.discard()
    for backend in (session.model, *pending.roles.values()):
        backend.move_log(new_log)
    return resolved, {new_log.parents[1]: new_log}


def _restart(
    pending: ResolvedRun, resolved: Sequence[ResolvedRun], stack: contextlib.AsyncExitStack
) -> Path | None:
    """Start the folder of a run under its new name; return the path of its log."""
    for run in resolved:
        spec = msgspec.structs.replace(
            run.spec,
            model=pending.spec.model,
            simulator=pending.spec.simulator,
            profiler=pending.spec.profiler,
        )
        if spec == pending.spec:
            stack.callback(run.folder.close)
            return run.folder.start(run.spec)
    return None


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
