"""Registries: the OCI distribution protocol, spoken by a process of its own; knows nothing of images and the store."""
