"""One step along a noise path: the protocol, the integrals that solvers share, and the solvers by kind."""
