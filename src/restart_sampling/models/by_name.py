"""The models that have names, and where their files are."""

from pathlib import Path

_WEIGHTS = Path(__file__).parent / "weights"  # with a card of each model
BUNDLED = {
    name: _WEIGHTS / f"{name}.safetensors" for name in ("cifar10-small", "cifar10-vp-small", "cifar10-pfgmpp-small")
}
_EDM = "https://nvlabs-fi-cdn.nvidia.com/edm/pretrained"
PUBLISHED = {
    "baseline-cifar10-32x32-uncond-vp": f"{_EDM}/baseline/baseline-cifar10-32x32-uncond-vp.pkl",
    "edm-cifar10-32x32-uncond-vp": f"{_EDM}/edm-cifar10-32x32-uncond-vp.pkl",
    "edm-imagenet-64x64-cond-adm": f"{_EDM}/edm-imagenet-64x64-cond-adm.pkl",
}
BY_HAND = {
    "pfgmpp-cifar10-32x32-uncond-2048": (
        "https://drive.google.com/drive/folders/1sZ7vh7o8kuXfFjK8ROWXxtEZi8Srewgo",
        "pfgmpp-cifar10-32x32-uncond-2048.pt",
    ),
}
"""Files that only a browser can fetch: the page, and the name in the cache."""
