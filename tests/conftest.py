"""Settings that all tests share."""

from hypothesis import settings

settings.register_profile("project", derandomize=True, deadline=None, print_blob=True)
settings.load_profile("project")


def pytest_report_header() -> str:
    """Says with which seeds a failure can be repeated."""
    return "seeds: written in each test; hypothesis derandomized"
