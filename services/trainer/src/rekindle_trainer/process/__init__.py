"""The training process: networks, training, evaluation, export. Only this wing needs torch."""
