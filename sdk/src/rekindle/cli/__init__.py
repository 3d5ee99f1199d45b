"""The `rekindle` command line. Needs the extra `cli`."""
