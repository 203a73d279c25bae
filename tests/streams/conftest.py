"""Hugging Face datasets without a network, and without a trace in the home folder."""

import datasets
import pytest


@pytest.fixture
def data_dir(tmp_path, monkeypatch):
    """The folder that ``RWALK_DATA_DIR`` names."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    root = tmp_path / "data"
    root.mkdir()
    monkeypatch.setenv("RWALK_DATA_DIR", str(root))
    return root
