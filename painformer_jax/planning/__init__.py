"""Programs for pods, compiled and priced ahead of time."""
