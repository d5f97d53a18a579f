import pytest
from tests.simulate.simulated import simulate

from calcamp.config.lookup import load_detector


@pytest.fixture(scope="session")
def mini():
    return load_detector("ccd273-mini")


@pytest.fixture(scope="session")
def session(tmp_path_factory):
    """A clean session: (what was made, folder of the session file)."""
    folder = tmp_path_factory.mktemp("clean")
    return simulate(folder, seed=5), folder
