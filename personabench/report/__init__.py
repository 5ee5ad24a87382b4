"""The report: every run of a results folder in one HTML file that opens offline.

`tables` collects the numbers, `words` puts them into sentences, `samples` packs prompts and
answers, `page` writes all of it into one file. The browser computes filters, ranks and costs per
query, and no other number.
"""

from personabench.report.page import write

__all__ = ["write"]
