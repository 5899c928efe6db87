"""What knows nothing of diffusion: errors, files, downloads, processes, numerics."""
