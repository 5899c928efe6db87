"""Batches of images to numbers: detectors, running statistics, distances, and the results file."""
