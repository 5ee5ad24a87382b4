"""Metrics that are independent of any task: text overlap, labels, ratings, edits and judges."""
