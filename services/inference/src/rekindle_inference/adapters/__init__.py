"""The ports' other sides, by technology."""
