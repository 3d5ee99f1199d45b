"""Volumes: reading, geometry, resampling, intensity and masks, the same code in training and in serving."""
