"""Samplers for diffusion models: a sampler is a path of noise levels.

The public names are those of `__init__.pyi`. Each is loaded when it is first used, so that importing the package does
not import torch.
"""

import sys
from itertools import pairwise

# `python -m restart_sampling` looks for modules in the current folder first, where files of others may lie. (While
# Python looks for a program, its name is "-m".)
if sys.argv[:1] == ["-m"] and ("-m", __name__) in pairwise(sys.orig_argv) and not sys.flags.safe_path:
    del sys.path[0]

import lazy_loader

__version__ = "0.2.0"
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
# A star import must not ask for diffusers.
__all__ = [name for name in __all__ if name not in ("FlowMatchRestartScheduler", "RestartScheduler")]
