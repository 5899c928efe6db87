"""Which weights a network has."""

import hashlib

import torch


def weights_sha256(network: torch.nn.Module) -> str:
    """SHA-256 of the names and the bytes of all weights, in the order of the names."""
    weights = hashlib.sha256()
    for key, tensor in sorted(network.state_dict().items()):
        weights.update(key.encode())
        weights.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return weights.hexdigest()
