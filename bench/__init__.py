"""Measures Rekindle beside what a user would take instead; `python -m bench --help`."""
