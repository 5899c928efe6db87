"""A plan for each model that comes with the package: a plan suits a model."""

# Found for the first model, and the best that is measured at 20 evaluations for the others too.
DEFAULT_PLANS = dict.fromkeys(("cifar10-small", "cifar10-vp-small", "cifar10-pfgmpp-small"), "cifar10-small-tuned-20")
