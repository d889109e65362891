"""Near & Far: representation learning, one notebook per paper.

Submodules load when they are first used, so that `import nearfar` costs next to nothing.
"""

from importlib import import_module

__version__ = "0.1.0"

_MODULES = {
    "data", "augment", "nn", "losses", "train", "evaluate", "run", "checkpoints", "momentum", "plots", "results",
    "papers", "notebooks", "execute", "book", "offline", "student", "slides", "cli",
}  # fmt: skip
_FUNCTIONS = {"start": "run", "method": "notebooks"}

__all__ = ["__version__", *sorted(_MODULES), *_FUNCTIONS]


def __getattr__(name: str):
    if name in _MODULES:
        return import_module(f"nearfar.{name}")
    if name in _FUNCTIONS:
        return getattr(import_module(f"nearfar.{_FUNCTIONS[name]}"), name)
    raise AttributeError(f"module 'nearfar' has no attribute {name!r}")


def __dir__():
    return __all__
