"""The idea: a sampler is a path of noise levels. Needs torch only; no files, no command line."""
