"""Networks as denoisers: one's own networks, guidance, U-Nets, checkpoint files.

Three ways for what is new. A network of one's own: `from_network`. A new preconditioning of a checkpoint:
`preconditionings.DENOISERS`, and for training `losses.PARAMETRIZATIONS`. A new mixing of data and noise:
`sampling.process`.
"""
