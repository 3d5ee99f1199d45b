"""Servicers: convert, call, convert."""
