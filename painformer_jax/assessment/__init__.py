"""Pain assessment on embeddings: datasets, protocols, training of all folds, results."""
