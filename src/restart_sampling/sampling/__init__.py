"""Samplers as paths of noise levels. Needs only torch; the only file it reads is presets.csv."""
