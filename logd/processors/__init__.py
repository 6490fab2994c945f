"""What happens to a line between the store and a driver: one step a file."""
