"""Wrappers: changes that can be put around any method, as in `rag+remind`."""
