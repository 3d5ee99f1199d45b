"""What the scheduler does, one function for each thing, over the ports."""
