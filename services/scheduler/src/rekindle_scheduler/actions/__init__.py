"""The reconciler's actions: each carries out one step, may be repeated, and may be cut off at any point."""
