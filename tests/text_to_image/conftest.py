"""diffusers warns of its own ways."""

import pytest


def pytest_collection_modifyitems(items):
    for item in items:
        if item.path.parent.name == "text_to_image":
            for warning in (
                "ignore:__array__ implementation:DeprecationWarning",
                "ignore:.*(diffusers|deprecated|torchvision).*",
            ):
                item.add_marker(pytest.mark.filterwarnings(warning))
