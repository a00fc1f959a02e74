"""What GPUs there are: real ones through NVML, or simulated ones where there are none."""
