"""Images of seeds: drawings, and folders or zips of their images."""
