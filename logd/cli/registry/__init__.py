"""Images of registries, and builds: what the command line does for them that the daemon can't."""
