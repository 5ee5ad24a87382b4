"""Calls to language models: backends, response cache, rate limits, budgets and roles."""
