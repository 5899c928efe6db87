"""Image sets in and out: sources, decoding, datasets in EDM's format, prompts."""
