"""What the trainer does for its callers, one function each."""
