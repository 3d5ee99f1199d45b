"""Adapters, by technology."""
