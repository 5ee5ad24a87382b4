"""Retrieval from a history: BM25, embeddings, dates, random choice, and precomputed rankings."""
