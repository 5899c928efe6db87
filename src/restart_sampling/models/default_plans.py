"""A plan for each model that comes with the package: a plan suits a model."""

# What `tune` found at 20 evaluations.
DEFAULT_PLANS = {name: f"{name}-tuned-20" for name in ("cifar10-small", "cifar10-vp-small", "cifar10-pfgmpp-small")}
