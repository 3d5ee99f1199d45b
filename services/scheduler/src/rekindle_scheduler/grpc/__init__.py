"""The gRPC face of the scheduler: convert, call, convert."""
