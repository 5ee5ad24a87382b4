"""Measures that know no task: labels, ratings, text, ids, external metrics, and scoring of prediction files."""
