"""Checkpoints of other projects, read as networks of ours: one file for each kind."""
