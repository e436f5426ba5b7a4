"""What a study found: tables, figures, the literature beside it."""
