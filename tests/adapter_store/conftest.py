"""A store of adapters in a fixed minute, and an adapter to publish in it."""

from __future__ import annotations

import pytest
from stored import NOW, adapter

from hyperlora.adapters.store import AdapterStore


@pytest.fixture
def source(tmp_path):
    return adapter(tmp_path / "source")


@pytest.fixture
def store(tmp_path):
    return AdapterStore(tmp_path / "store", clock=lambda: NOW)
