"""Commands for a person at a terminal; they talk to the daemon over HTTP only."""
