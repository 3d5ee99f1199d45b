"""Training: the igniter and sustainer networks, training runs, their evaluation, export and launching."""
