"""Scores given by a model, and the numbers that are made of them.

A judge is asked through `asking`, which says what happens when a reply cannot be read; each other module holds one
protocol: its wording, the reading of its replies, and its metrics as pure functions of what was read.  A judge knows no
run and no task.  The verdicts on two answers that `personabench judge` writes down are in `verdicts`, what they say of
the judge itself in `reliability_report`, and two runs put before a judge in `duel`.
"""
