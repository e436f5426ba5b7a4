"""One row of the table on one task: what is trained, how, and what came out."""
