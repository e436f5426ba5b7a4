"""Every sample of a study to embeddings, kept on disk."""
