"""Statistics of a table of scores: differences between rows and their uncertainty.

Users are the unit of chance everywhere: a user's samples stay together in every resample and every
sign flip, since they are not independent of each other.  The package handles numbers only; it reads
no files and knows no runs.  `Scores` holds the rows of one table on the same samples and draws its
resamples once for all of them; `multiple_testing` handles the p-values of a whole table.
"""

from personabench.leaderboard.estimates import Comparison, Count, Estimate
from personabench.leaderboard.stats.multiple_testing import holm, leaders, letters, wins
from personabench.leaderboard.stats.scores import Scores

__all__ = [
    "Comparison",
    "Count",
    "Estimate",
    "Scores",
    "holm",
    "leaders",
    "letters",
    "wins",
]
