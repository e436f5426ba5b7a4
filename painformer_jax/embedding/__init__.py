"""Files to embeddings: a model, readers, rows of a table."""
