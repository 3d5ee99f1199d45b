"""What a run does between its spec and its weights: data, sampling, augmentation, losses, the loop."""
