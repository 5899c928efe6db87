"""Denoisers and their files."""
