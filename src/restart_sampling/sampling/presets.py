"""Published plans by name, each with the checkpoint it was made for and the figure to reproduce."""

from dataclasses import dataclass

_VP = "baseline-cifar10-32x32-uncond-vp"
_EDM = "edm-cifar10-32x32-uncond-vp"
_PFGMPP = "PFGM++ D=2048 unconditional"
_IMAGENET = "edm-imagenet-64x64-cond-adm"
_ADM = "baseline-imagenet-64x64-cond-adm"
_CHURN = "gamma=0.05 s_min=0.01 s_max=1"
_SDE_VP = "churn=30 s_min=0.01 s_max=1 s_noise=1.007"
_SDE_IMAGENET = "churn=40 s_min=0.05 s_max=50 s_noise=1.003"
_SDE_ADM = "churn=80 s_min=0.05 s_max=50 s_noise=1.003"
"""EDM's stochastic sampler for each checkpoint: Karras et al. 2022 (arXiv 2206.00364), table 5."""
_DPM3 = f"{_CHURN} s_noise=1.003 solver=dpm3 sigma_min=0.010486 sigma_max=152.167"
"""Of the VP schedule from t = 1 to 1e-3; t_min snaps to the last positive level."""


@dataclass(frozen=True)
class Preset:
    """A name for a plan.

    Attributes:
        name: for the command line.
        plan: in the grammar of `Plan.parse`.
        checkpoint: the model that it suits; on another it may do harm.
        nfe: calls of the denoiser.
        fid: published for 50,000 images, minimum of three draws (arXiv 2306.14878, tables 1 to 5); None: not published.
    """

    name: str
    plan: str
    checkpoint: str
    nfe: int
    fid: float | None


# "-sde": EDM's stochastic sampler.
# "-code": with the churn inside the restarts that the authors' sweep script leaves on, and the paper does not mention.
_ALL = (
    Preset("cifar10-small-20", "16 [5,1,1.09,3.2] solver=ab", "cifar10-small", 20, None),
    Preset("cifar10-small-43", "18 [3,2,1.09,3.2]", "cifar10-small", 43, None),
    Preset("cifar10-vp-43", "18 [3,2,0.06,0.30]", _VP, 43, 2.7),
    Preset("cifar10-vp-55", "18 [3,5,0.06,0.30]", _VP, 55, 2.45),
    Preset("cifar10-vp-75", "18 [3,10,0.06,0.30]", _VP, 75, 2.27),
    Preset("cifar10-vp-115", "18 [3,20,0.06,0.30]", _VP, 115, 2.21),
    Preset("cifar10-vp-519", "20 [9,30,0.06,0.20]", _VP, 519, 2.11),
    Preset("cifar10-edm-43", "18 [3,2,0.14,0.30]", _EDM, 43, 1.9),
    Preset("cifar10-pfgmpp-43", "18 [3,2,0.14,0.30]", _PFGMPP, 43, 1.88),
    Preset(
        "imagenet64-edm-39",
        f"14 [3,1,19.35,40.79] [3,1,1.09,1.92] [3,1,0.06,0.30] {_CHURN} s_noise=1.003",
        _IMAGENET,
        39,
        2.38,
    ),
    Preset(
        "imagenet64-edm-67",
        f"18 [5,1,19.35,40.79] [5,1,1.09,1.92] [5,1,0.59,1.09] [5,1,0.06,0.30] {_CHURN} s_noise=1.003",
        _IMAGENET,
        67,
        1.95,
    ),
    Preset(
        "imagenet64-edm-99",
        f"18 [3,1,19.35,40.79] [4,1,1.09,1.92] [4,4,0.59,1.09] [4,1,0.30,0.59] [4,4,0.06,0.30] {_CHURN} s_noise=1.003",
        _IMAGENET,
        99,
        1.71,
    ),
    Preset(
        "imagenet64-edm-165",
        f"18 [3,1,19.35,40.79] [4,1,1.09,1.92] [4,5,0.59,1.09] [4,5,0.30,0.59] [4,10,0.06,0.30] {_CHURN} s_noise=1.003",
        _IMAGENET,
        165,
        1.51,
    ),
    Preset(
        "imagenet64-edm-203",
        f"36 [4,1,19.35,40.79] [4,1,1.09,1.92] [4,5,0.59,1.09] [4,5,0.30,0.59] [6,6,0.06,0.30] {_CHURN} s_noise=1.003",
        _IMAGENET,
        203,
        1.46,
    ),
    Preset(
        "imagenet64-edm-385",
        f"36 [3,1,19.35,40.79] [6,1,1.09,1.92] [6,5,0.59,1.09] [6,5,0.30,0.59] [6,20,0.06,0.30] {_CHURN} s_noise=1.003",
        _IMAGENET,
        385,
        1.41,
    ),
    Preset(
        "imagenet64-edm-535",
        f"36 [6,1,19.35,40.79] [6,1,1.09,1.92] [7,6,0.59,1.09] [7,6,0.30,0.59] [7,25,0.06,0.30] {_CHURN} s_noise=1.003",
        _IMAGENET,
        535,
        1.39,
    ),
    Preset(
        "imagenet64-edm-623",
        f"36 [10,3,19.35,40.79] [10,3,1.09,1.92] [7,6,0.59,1.09] [7,6,0.30,0.59] [7,25,0.06,0.30] "
        f"{_CHURN} s_noise=1.003",
        _IMAGENET,
        623,
        1.36,
    ),
    Preset("cifar10-vp-43-code", f"18 [3,2,0.06,0.30] {_CHURN}", _VP, 43, 2.7),
    Preset("cifar10-vp-55-code", f"18 [3,5,0.06,0.30] {_CHURN}", _VP, 55, 2.45),
    Preset("cifar10-vp-75-code", f"18 [3,10,0.06,0.30] {_CHURN}", _VP, 75, 2.27),
    Preset("cifar10-vp-115-code", f"18 [3,20,0.06,0.30] {_CHURN}", _VP, 115, 2.21),
    Preset("cifar10-vp-519-code", f"20 [9,30,0.06,0.20] {_CHURN}", _VP, 519, 2.11),
    Preset("cifar10-edm-43-code", f"18 [3,2,0.14,0.30] {_CHURN}", _EDM, 43, 1.9),
    Preset("cifar10-pfgmpp-43-code", f"18 [3,2,0.14,0.30] {_CHURN}", _PFGMPP, 43, 1.88),
    Preset("cifar10-vp-dpm3-18", f"5 [3,1,0.06,1] {_DPM3}", _VP, 18, 2.4),
    Preset("cifar10-vp-dpm3-21", f"6 [3,1,0.06,1] {_DPM3}", _VP, 21, 2.28),
    Preset("cifar10-vp-dpm3-24", f"7 [3,1,0.06,1] {_DPM3}", _VP, 24, 2.15),
    Preset("cifar10-vp-dpm3-27", f"8 [3,1,0.06,0.3] {_DPM3}", _VP, 27, 2.11),
    *(
        Preset(f"cifar10-vp-sde-{nfe}", f"{(nfe + 1) // 2} {_SDE_VP}", _VP, nfe, fid)
        for nfe, fid in ((35, 3.45), (63, 2.88), (127, 2.58), (255, 2.4), (511, 2.37), (1023, 2.35))
    ),
    *(
        Preset(f"imagenet64-edm-sde-{nfe}", f"{(nfe + 1) // 2} {_SDE_IMAGENET}", _IMAGENET, nfe, fid)
        for nfe, fid in ((35, 2.97), (63, 2.24), (127, 1.75), (255, 1.5), (511, 1.45), (1023, 1.4))
    ),
    Preset("imagenet64-adm-sde-511", f"256 {_SDE_ADM}", _ADM, 511, None),
)

PRESETS: dict[str, Preset] = {preset.name: preset for preset in _ALL}
