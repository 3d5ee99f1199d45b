"""The ports, by technology."""
