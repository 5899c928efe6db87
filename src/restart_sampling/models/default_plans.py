"""A plan for each model that comes with the package: a plan suits a model."""

DEFAULT_PLANS = {
    "cifar10-small": "cifar10-small-20",
    "cifar10-vp-small": "20 solver=unipc:p=3",
    "cifar10-pfgmpp-small": "20 solver=unipc:p=3",
}
