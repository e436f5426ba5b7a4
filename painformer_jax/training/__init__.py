"""Multi-task pre-training: losses, one compiled step, the loop around it."""
