"""The demonstration behind scripts/demo: convert, serve, boot, compare."""
