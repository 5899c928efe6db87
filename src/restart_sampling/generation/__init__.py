"""Seeds to batches of uint8 images."""
