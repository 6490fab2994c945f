"""What makes logs get lost or late on this host: checks, each with what was found and what to do."""
