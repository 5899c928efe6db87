"""Plots and pages, from results files and batches of images."""
