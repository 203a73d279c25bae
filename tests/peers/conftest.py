"""Tests beside the real Avalanche; they run in an environment of their own (`make test-peers`)."""

import warnings

import pytest
import torch

collect_ignore = ["torchvision_schemas.py"]  # its declarations can be made once only
try:
    import peers.torchvision_schemas  # noqa: F401 - before avalanche imports torchvision

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import avalanche.training  # noqa: F401
except ImportError:
    collect_ignore += ["test_beside_avalanche.py", "test_equivalence.py", "test_faults.py", "test_hook_order.py"]
    collect_ignore += ["test_inside_avalanche.py"]

WORST: dict[str, dict[str, float]] = {}


@pytest.fixture(autouse=True)
def _one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def report():
    """Keep a comparison's figures for the summary."""

    def keep(case: str, figures: dict[str, float]) -> None:
        WORST[case] = figures

    return keep


def pytest_terminal_summary(terminalreporter):
    if WORST:
        terminalreporter.section("worst relative difference to Avalanche's own RWalkPlugin")
        for case, figures in WORST.items():
            values = "  ".join(f"{name} {value:.1e}" for name, value in figures.items())
            terminalreporter.write_line(f"{case:<58} {values}")
