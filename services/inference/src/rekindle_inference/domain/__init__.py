"""Records and pure decisions: no transport, no database, no clock."""
