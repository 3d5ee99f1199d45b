"""The gRPC side: convert, call, convert."""
