"""One function per thing that the service does, over ports."""
