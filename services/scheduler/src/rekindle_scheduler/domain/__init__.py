"""Decisions and records of the scheduler: pure, without clock, I/O, SQL or wire formats."""
