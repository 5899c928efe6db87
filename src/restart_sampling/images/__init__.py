"""Image sets in and out."""
