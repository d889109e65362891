"""Near & Far: representation learning, one notebook per paper.

Submodules load when they are first used, so that `import nearfar` costs next to nothing.
"""

from importlib import import_module

__version__ = "0.1.0"

HOMES = {  # names that notebooks and readers use, and where they live
    "start": "nearfar.runs.run.start",
    "method": "nearfar.chapters.notebooks.method",
    "data": "nearfar.data",
    "augment": "nearfar.augment",
    "nn": "nearfar.nn",
    "momentum": "nearfar.nn.momentum",
    "losses": "nearfar.losses",
    "train": "nearfar.train",
    "checkpoints": "nearfar.train.checkpoints",
    "evaluate": "nearfar.evaluate",
    "plots": "nearfar.plots",
    "run": "nearfar.runs.run",
    "results": "nearfar.runs.results",
    "study": "nearfar.runs.study",
    "execute": "nearfar.runs.execute",
    "papers": "nearfar.chapters.papers",
    "notebooks": "nearfar.chapters.notebooks",
    "comparison": "nearfar.press.comparison",
}
_FUNCTIONS = {"start", "method"}

__all__ = ["__version__", *HOMES]


def __getattr__(name: str):
    if name not in HOMES:
        raise AttributeError(f"module 'nearfar' has no attribute {name!r}")
    if name in _FUNCTIONS:
        module, _, name = HOMES[name].rpartition(".")
        return getattr(import_module(module), name)
    return import_module(HOMES[name])


def __dir__():
    return __all__
