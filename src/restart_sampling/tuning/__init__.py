"""The plan that suits a model: search, race, confirmation, and what they say."""
