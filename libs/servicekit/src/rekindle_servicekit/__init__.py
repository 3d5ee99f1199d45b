"""What every Rekindle service needs: server, interceptors, identity, logs, settings, objects, database."""
