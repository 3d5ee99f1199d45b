"""Real servers, started by the tests that need them: PostgreSQL, MinIO, SeaweedFS, a pooler, a line to cut."""
