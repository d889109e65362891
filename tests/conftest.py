"""Fixtures of the whole suite."""

import copy
import signal

import pytest
import torch
from torch import Tensor, nn
from toybook import toybook  # noqa: F401 - a fixture

LONG = ("kills", "book", "sweep", "launch", "kernels", "elsewhere", "forked", "execute", "wheel", "cache")


def pytest_collection_modifyitems(items):
    """Files that start processes come first: one of them at the end would keep one of two workers busy alone."""
    rank = {f"test_{name}": place for place, name in enumerate(LONG)}
    items.sort(key=lambda item: rank.get(item.path.stem, len(LONG)))


@pytest.fixture(autouse=True, scope="session")
def heard_interrupts():
    """Ctrl-C is heard, also where a shell started the suite in the background: what is ignored is inherited."""
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def one_thread():
    """One thread, so that timings are comparable and sums come out in the same order everywhere."""
    torch.set_num_threads(1)


class FakeCuda:
    """A dry run on a CUDA device that need not exist: shapes, dtypes and devices are real, numbers are not.

        with fake_cuda as fake:            # or: with fake_cuda() as fake
            loss = info_nce(fake(queries), fake(keys))
            assert loss.device.type == "cuda"

    fake(x) turns a tensor, a module (a copy of it), or a list, tuple or dict of them into fake ones on "cuda".
    Mixing devices inside raises, and so does whatever has to look at a number (`.item()`, boolean indexing).
    Build modules with random weights outside the block.
    """

    def __enter__(self):
        from torch._subclasses.fake_tensor import FakeTensorMode

        self.mode = FakeTensorMode()
        self.mode.__enter__()
        return self.fake

    def __exit__(self, *exception):
        return self.mode.__exit__(*exception)

    def __call__(self):
        return self

    def fake(self, thing):
        if isinstance(thing, Tensor):
            moved = self.mode.from_tensor(thing).to("cuda").detach()
            return moved.requires_grad_(thing.requires_grad)
        if isinstance(thing, nn.Module):
            return self._fake_module(thing)
        if isinstance(thing, dict):
            return {key: self.fake(value) for key, value in thing.items()}
        if isinstance(thing, list | tuple):
            return type(thing)(self.fake(value) for value in thing)
        return thing

    def _fake_module(self, module: nn.Module) -> nn.Module:
        from torch._subclasses.fake_tensor import unset_fake_temporarily

        with unset_fake_temporarily():
            module = copy.deepcopy(module)
        for part in module.modules():
            for name, parameter in part._parameters.items():
                if parameter is not None:
                    part._parameters[name] = nn.Parameter(self.fake(parameter).detach(), parameter.requires_grad)
            for name, buffer in part._buffers.items():
                if buffer is not None:
                    part._buffers[name] = self.fake(buffer)
        return module


@pytest.fixture
def fake_cuda():
    return FakeCuda()
