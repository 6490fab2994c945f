"""Bytes at rest: one folder for each container, one writer, many readers. Standard library only."""
