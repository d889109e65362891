"""Losses over the batch of all processes: two of them, on one machine."""

import os
from datetime import timedelta

import pytest
import torch
from torch import distributed, nn

from nearfar.losses import gather, nt_xent, supcon
from nearfar.train import fit

PROCESSES, STEPS = 2, 4


def drawn(*shape, seed):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def network():
    linear = nn.Linear(6, 4, bias=False, dtype=torch.float64)
    linear.weight.data = drawn(4, 6, seed=0)
    return linear


def views():
    images = drawn(32, 6, seed=1)
    return images + 0.3 * drawn(32, 6, seed=2), images + 0.3 * drawn(32, 6, seed=3)


def results_of(share):
    """Values and averaged gradients on `share` of a batch (all of it for one process), and weights after training."""
    (one, other), labels, outcome = views(), torch.arange(32) % 5, {}
    losses = {
        "nt_xent": lambda net, rows: nt_xent(gather(net(one[rows])), gather(net(other[rows])), 0.3),
        "supcon": lambda net, rows: supcon(gather(net(one[rows])), gather(labels[rows]), 0.3),
    }
    for name, loss in losses.items():
        for size in (10, 7):  # shares of 5 and 5, and of 4 and 3
            linear = network()
            value = loss(linear, torch.arange(size)[share])
            value.backward()
            if distributed.is_initialized():  # as train.fit does
                distributed.all_reduce(linear.weight.grad)
                linear.weight.grad /= PROCESSES
            outcome[f"{name} of {size}"] = value.detach(), linear.weight.grad
        trained = network()
        batches = [torch.arange(7) + start for start in range(STEPS)]
        history = fit(lambda rows, _: loss(trained, rows), trained, batches=batches, lr=0.05, progress=False)  # noqa: B023
        outcome[f"{name} in train.fit"] = torch.tensor(history["loss"]), trained.weight.detach()
    return outcome


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
    outcome = results_of(slice(rank, None, PROCESSES)) | {"rows": (everyone.detach(), rows.grad)}
    torch.save(outcome, folder / f"{rank}.pt")
    distributed.destroy_process_group()


@pytest.mark.timeout(120)
def test_two_processes_with_gathered_features_are_one(tmp_path):
    context = torch.multiprocessing.get_context("forkserver")  # the slow imports once, not once per process
    context.set_forkserver_preload(["torch._dynamo", "accelerate", "nearfar.train", "nearfar.losses"])
    workers = [context.Process(target=worker, args=(rank, tmp_path), daemon=True) for rank in range(PROCESSES)]
    for process in workers:
        process.start()
    alone = results_of(slice(None))  # meanwhile
    for process in workers:
        process.join(timeout=60)
        process.kill()  # no more than a precaution
    assert [process.exitcode for process in workers] == [0] * PROCESSES
    for rank in range(PROCESSES):
        together = torch.load(tmp_path / f"{rank}.pt")
        everyone, slope = together.pop("rows")
        assert everyone[:, 0].tolist() == [0, 1, 1]  # in the order of ranks
        assert slope[:, 0].tolist() == [[3], [6, 9]][rank]  # 1 + 2 times the row's factor
        assert together.keys() == alone.keys()
        for name, (value, gradient) in alone.items():
            torch.testing.assert_close(together[name][0], value, rtol=1e-10, atol=0, msg=f"{name}, value")
            torch.testing.assert_close(together[name][1], gradient, rtol=1e-10, atol=1e-10, msg=f"{name}, gradient")


def test_one_process_keeps_its_rows():
    z = drawn(3, 2, seed=0)
    assert gather(z) is z
