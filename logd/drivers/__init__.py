"""Log destinations, a file each."""
