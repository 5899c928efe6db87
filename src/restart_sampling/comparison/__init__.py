"""Rows of samplers, measured alike: rows, results files, what the paper prints."""
