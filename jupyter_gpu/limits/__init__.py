"""What holds a kernel to its lease."""
