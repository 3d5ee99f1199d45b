"""Rekindle on one machine: the stack with embedded defaults, a demo campaign and its report."""
