"""From the store to the drivers: worker processes that deliver, and the daemon's side that keeps them going."""
