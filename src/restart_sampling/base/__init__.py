"""Errors, files, downloads, parallel work, numerics: what knows nothing of diffusion."""
