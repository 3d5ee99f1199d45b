"""Suites of tests that more than one test module runs, each on its own implementations of a port."""
