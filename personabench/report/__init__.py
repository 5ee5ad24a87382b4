"""The report: every run of a results folder in one HTML file that opens offline, for readers who have only that file.

`tables` computes what is compared, `words` says it in sentences, `samples` packs what the models saw and said, `page`
puts all of it into one file.  The browser only shows: no number is computed there but filters, ranks and costs per
query.
"""

from personabench.report.page import write

__all__ = ["write"]
