"""Looking things up in a history: BM25, vectors, dates, chance, and rankings made elsewhere."""
