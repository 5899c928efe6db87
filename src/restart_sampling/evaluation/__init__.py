"""Metrics of images: detectors, distances, CLIP and aesthetic scores, and the results file."""
