"""What runs inside a kernel. Standard library only."""
