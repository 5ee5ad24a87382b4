"""Statistics of a table of scores: what differs, by how much, and how sure that is.

Users are the unit of chance everywhere: a user's samples stay together in every resample and every sign flip, since
they are not independent of each other.  The package owns numbers only; it reads no files and knows no runs.
`Scores` holds the rows of one table on the same samples and draws its resamples once for all of them; `families` is
what is done with the p-values of a whole table.
"""

from personabench.leaderboard.estimates import Comparison, Count, Estimate
from personabench.leaderboard.stats.multiple_testing import holm, leaders, letters, wins
from personabench.leaderboard.stats.scores import Scores

__all__ = ["Comparison", "Count", "Estimate", "Scores", "holm", "leaders", "letters", "wins"]
