"""Triton Inference Server as an engine: names, repository, configuration, calls, shared memory, and what is loaded."""
