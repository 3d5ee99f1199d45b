"""The schema of the scheduler, revision by revision."""
