"""The study that a configuration names: opening its folder and checking it."""
