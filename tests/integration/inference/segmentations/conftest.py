"""A service whose engine can be held, and whose project has an active model."""

import pytest
from hooked_engine import HookedEngine


@pytest.fixture
def engine(settings):
    return HookedEngine(settings.objects_directory)


@pytest.fixture
def active(start, engine, package):
    """A running service whose project has an active model."""
    running = start(engine)
    running.activate(running.register(running.upload_package(*package)))
    engine.batches.clear()
    return running
