"""The inference service: volumes in and out, model versions, predictions and what they say of themselves."""
