"""What keeps containers from running well and logs from arriving: checks, each with what was found and what to do."""
