"""What containers use, read from the kernel's files."""
