"""Judges: scores given by a model, and the metrics made of them.

`ask` queries a judge and decides what happens if a reply cannot be parsed.  Each other module
holds one protocol: its wording, the parser of its replies, and its metrics as pure functions of the
parsed replies.  A judge knows nothing of runs and tasks.  Pairwise verdicts, which `personabench
judge` writes to disk, are defined in `verdict`, and the figures that they give about the judge
itself in `reliability`; comparing two runs is a workflow, in `personabench.run.pairwise_judging`.
"""
