"""Two processes on one machine, each with half of every batch, compute what one process does."""

import os
from datetime import timedelta

import pytest
import torch
from torch import distributed

import nearfar
from nearfar import augment, nn, parallel
from nearfar.losses import info_nce, nt_xent, supcon
from nearfar.nn.momentum import MomentumPair
from nearfar.parallel import gather
from nearfar.train import embed, fit

PROCESSES, STEPS = 2, 3


def drawn(*shape, seed):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def linear():
    layer = torch.nn.Linear(6, 4, bias=False, dtype=torch.float64)
    layer.weight.data = drawn(4, 6, seed=0)
    return layer


def own_loops(share):
    """Values and averaged gradients of a loop of one's own on `share` of a batch (all of it for one process)."""
    images = drawn(32, 6, seed=1)
    one, other, labels = images + 0.3 * drawn(32, 6, seed=2), images + 0.3 * drawn(32, 6, seed=3), torch.arange(32) % 5
    losses = {
        "nt_xent": lambda net, rows: nt_xent(gather(net(one[rows])), gather(net(other[rows])), 0.3),
        "supcon": lambda net, rows: supcon(gather(net(one[rows])), gather(labels[rows]), 0.3),
    }
    outcome = {}
    for name, loss in losses.items():
        for size in (10, 7):  # shares of 5 and 5, and of 4 and 3
            layer = linear()
            value = loss(layer, torch.arange(size)[share])
            value.backward()
            parallel.average_gradients(layer.parameters())
            outcome[f"{name} of {size}, own loop"] = value.detach(), layer.weight.grad
        trained = linear()
        batches = [torch.arange(7) + start for start in range(STEPS)]
        history = fit(lambda rows, _: loss(trained, rows), trained, batches=batches, lr=0.05, progress=False)  # noqa: B023
        values = torch.tensor(history["loss"], dtype=torch.float64)
        outcome[f"{name} in train.fit"] = values, trained.weight.detach()
    return outcome


# ---------------------------------------------------------------------------------------------- methods in train.fit
IMAGES = (drawn(24, 3, 16, 16, seed=4).sigmoid() * 255).to(torch.uint8)


def double(images):
    return images.double()


def encoder():
    backbone = nn.backbone("tiny", width=4, seed=0)
    return torch.nn.Sequential(backbone, nn.projector([backbone.dimension, 8, 6], seed=1)).double()


def simclr():
    """Random views of the same images, a network with batch norm, NT-Xent over the batch."""
    network, draws = encoder(), torch.Generator().manual_seed(5)
    recipe = augment.recipe("simclr", 16)

    def step(rows, number):
        views = [double(view) for view in augment.views(IMAGES[rows], recipe, 2, draws)]
        return nt_xent(network(views[0]), network(views[1]), 0.2)

    return step, {"network": network}, None


def swav():
    """Multi-crop, codes by Sinkhorn over the whole batch, prototypes with unit length: the chapter's own functions."""
    method, draws = nearfar.method("swav"), torch.Generator().manual_seed(6)
    network = method.SwAV(nn.backbone("tiny", width=4, seed=0), 8, 6, 5).double()

    def step(rows, number):
        with torch.no_grad():
            network.prototypes.weight.copy_(method.normalise_prototypes(network.prototypes.weight.T).T)
        crops = augment.multi_crop(IMAGES[rows], draws, large=(2, 16, (0.3, 1)), small=(2, 8, (0.1, 0.3)))
        _, scores = network([double(crop) for crop in crops])
        q = [method.codes(s, 0.05) for s in scores[:2]]
        return method.multi_crop_loss(scores, q, 0.1)

    return step, {"network": network}, None


def moco():
    """A copy that follows, a queue, and a network without gradient inside the step."""
    pair = MomentumPair(encoder(), 32, 6, 0.9, seed=3).double()
    draws, recipe = torch.Generator().manual_seed(7), augment.recipe("moco-v2", 16)

    def step(rows, number):
        views = [double(view) for view in augment.views(IMAGES[rows], recipe, 2, draws)]
        q = pair.queries(views[0])
        pair.follow()
        k = pair.keys(views[1])
        loss = info_nce(q, k, pair.queue.tensor, 0.2, normalise=False)
        pair.push(k, rows)
        return loss, {"queue": pair.queue.tensor[0, 0]}

    return step, {"pair": pair}, None


METHODS = {"SimCLR": simclr, "SwAV": swav, "MoCo": moco}


def in_fit(size):
    """Losses and all weights, buffers included, after some steps with batches of `size`."""
    outcome = {}
    for name, method in METHODS.items():
        torch.manual_seed(0)
        step, modules, _ = method()
        batches = torch.stack([torch.arange(size) + start for start in range(STEPS)])
        history = fit(step, modules, batches=batches, lr=0.05, optimiser="sgd", progress=False)
        (module,) = modules.values()
        state = {key: value for key, value in module.state_dict().items() if isinstance(value, torch.Tensor)}
        weights = torch.cat([value.flatten().double() for value in state.values()])
        outcome[f"{name}, batches of {size}"] = torch.tensor(history["loss"], dtype=torch.float64), weights
    features = embed(encoder(), IMAGES, 10, transform=double, progress=False)
    return outcome | {f"embed after batches of {size}": (features, features)}


def everything(share):
    return own_loops(share) | in_fit(16) | in_fit(13)


# ---------------------------------------------------------------------------------------------- two processes
def worker(rank, folder):
    torch.set_num_threads(1)
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(PROCESSES)}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "0"}  # accelerate asks for them, the meeting is a file
    distributed.init_process_group(
        "gloo",
        init_method=(folder / "meeting").as_uri(),
        rank=rank,
        world_size=PROCESSES,
        timeout=timedelta(seconds=30),
    )
    rows = torch.full((rank + 1, 2), float(rank), requires_grad=True)  # one row here, two there
    everyone = gather(rows)
    (everyone * torch.arange(1.0, 4.0)[:, None] * (rank + 1)).sum().backward()
    outcome = everything(slice(rank, None, PROCESSES)) | {"rows": (everyone.detach(), rows.grad)}
    with pytest.raises(RuntimeError, match="Summing was given 2 rows.*must return one row per sample"):
        with parallel.split([summing := Summing()]):
            summing(torch.ones(4, 2))
    with parallel.split([summing]):
        outcome["few rows"] = summing(torch.ones(1, 2)), torch.zeros(())
    torch.save(outcome, folder / f"{rank}.pt")
    distributed.destroy_process_group()


class Summing(torch.nn.Module):
    def forward(self, x):
        return x.sum()


@pytest.mark.timeout(180)
def test_two_processes_are_one(tmp_path):
    context = torch.multiprocessing.get_context("forkserver")  # the slow imports once, not once per process
    context.set_forkserver_preload(["torch._dynamo", "accelerate", "nearfar.train", "nearfar.losses"])
    workers = [context.Process(target=worker, args=(rank, tmp_path), daemon=True) for rank in range(PROCESSES)]
    for process in workers:
        process.start()
    alone = everything(slice(None))  # meanwhile
    for process in workers:
        process.join(timeout=120)
        process.kill()  # no more than a precaution
    assert [process.exitcode for process in workers] == [0] * PROCESSES
    for rank in range(PROCESSES):
        together = torch.load(tmp_path / f"{rank}.pt")
        everyone, slope = together.pop("rows")
        assert everyone[:, 0].tolist() == [0, 1, 1]  # in the order of ranks
        assert slope[:, 0].tolist() == [[3], [6, 9]][rank]  # 1 + 2 times the row's factor
        assert together.pop("few rows")[0] == 2, "a batch that cannot be divided is computed whole"
        assert together.keys() == alone.keys()
        for name, (value, weights) in alone.items():
            torch.testing.assert_close(together[name][0], value, rtol=1e-10, atol=0, msg=f"{name}, value")
            torch.testing.assert_close(together[name][1], weights, rtol=1e-8, atol=1e-10, msg=f"{name}, weights")


def test_one_process_keeps_its_rows_and_its_modules():
    z = drawn(3, 2, seed=0)
    assert gather(z) is z and parallel.processes() == 1 and parallel.rank() == 0
    module = Summing()
    with parallel.split([module]):
        assert "forward" not in vars(module) and module(z) == z.sum()
