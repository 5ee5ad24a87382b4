"""Paid replies of unfinished work, so that an interrupted run does not pay for them again.

The response cache has no reply that its caller refused as unparsed, nor an empty or truncated one:
another run asks anew.  The run that paid keeps them, for the sample or the profile that they belong
to, until its line is on disk.  A run that refreshes the cache keeps all replies, because it reads
none of the cache.
"""

from __future__ import annotations

from personabench.models.cache import Cache
from personabench.types import Response


class Journal:
    """The replies of one run's unfinished work.

    Work is a sample, whose id names it, or anything else that makes calls before it is on disk.

    Args:
        run: the run's fingerprint.
    """

    def __init__(self, cache: Cache, run: str) -> None:
        self._cache = cache
        self._run = run
        # Most work has no such replies, and reads and deletes nothing.
        self._unfinished = cache.unfinished_work(run)

    def get(self, work: str, key: str) -> Response | None:
        """Return the reply that unfinished work got to a call, or None."""
        if work not in self._unfinished:
            return None
        return self._cache.unfinished(self._run, work, key)

    def put(self, work: str, key: str, response: Response) -> None:
        """Keep a reply until its work is finished."""
        self._unfinished.add(work)
        self._cache.put_unfinished(self._run, work, key, response)

    def finish(self, work: str) -> None:
        """Delete the replies of work that is on disk."""
        if work in self._unfinished:
            self._cache.delete_unfinished(self._run, work)
            self._unfinished.discard(work)

    def clear(self) -> None:
        """Delete all replies of the run."""
        self._cache.delete_unfinished(self._run)
        self._unfinished.clear()
