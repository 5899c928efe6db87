"""Comparisons of samplers: rows measured alike, their results, and the paper's values."""
