"""The release's programs, which lie outside of any package."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

ROOT = Path(__file__).parents[2]


def load(name: str) -> ModuleType:
    """``release/NAME.py``; what its base class would be is hatchling's, which only a build has."""
    sys.modules.setdefault("hatchling.metadata.plugin.interface", SimpleNamespace(MetadataHookInterface=object))
    spec = importlib.util.spec_from_file_location(name, ROOT / "release" / f"{name}.py")
    module = sys.modules[name] = importlib.util.module_from_spec(spec)  # where dataclasses look themselves up
    spec.loader.exec_module(module)
    return module
