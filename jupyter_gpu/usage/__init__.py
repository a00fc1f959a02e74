"""What kernels really use: sampled, attributed, remembered."""
