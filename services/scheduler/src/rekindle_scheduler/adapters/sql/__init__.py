"""The scheduler's state in SQL."""
