"""Processes: the keeper, the shims, the OCI runtime, root file systems and cgroups."""
