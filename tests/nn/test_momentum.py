"""MoCo's frame: the copy follows, keys carry no gradient, the queue is a FIFO with a stated start."""

import pytest
import torch

from nearfar import losses, nn, train
from nearfar.nn import momentum


def network(seed=0, d=4):
    return torch.nn.Sequential(nn.backbone("tiny", width=4, seed=seed), nn.projector([16, 8, d], seed=seed))


def pair(size=12, d=4, **options):
    return momentum.MomentumPair(network(d=d), size, d, **options)


def images(n=6, seed=0):
    return torch.rand(n, 3, 8, 8, generator=torch.Generator().manual_seed(seed))


def step(made, rows, number=0):
    q = made.queries(images(8)[rows])
    made.follow()
    k = made.keys(images(8, seed=1)[rows])
    loss = losses.info_nce(q, k, negatives=made.queue.tensor, temperature=0.2, normalise=False)
    made.push(k, rows)
    return loss


def test_starts_as_an_exact_copy_that_is_not_trained():
    made = pair()
    assert torch.equal(made.queries(images()), made.keys(images()))
    assert all(p.requires_grad for p in made.online.parameters())
    assert not any(p.requires_grad for p in made.average.parameters())
    step(made, torch.arange(4)).backward()  # also after a push
    assert all(p.grad is not None for p in made.online.parameters())
    assert all(p.grad is None for p in made.average.parameters())
    assert not made.keys(images()).requires_grad and made.queries(images()).requires_grad


def test_features_have_unit_length_in_the_networks_precision():
    for dtype in (torch.float32, torch.float64):
        made = pair().to(dtype)
        for z in (made.queries(images().to(dtype)), made.keys(images().to(dtype)), made.queue.tensor):
            assert z.dtype == dtype and torch.allclose(z.norm(dim=1), torch.ones(len(z), dtype=dtype))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert pair().keys(images()).dtype == torch.float32


def test_follow_is_the_moving_average():
    made = pair(momentum=0.9)
    with torch.no_grad():
        made.online[1][0].weight.add_(1.0)
    before = made.average[1][0].weight.clone()
    made.follow()
    assert torch.allclose(made.average[1][0].weight, 0.9 * before + 0.1 * made.online[1][0].weight)
    made.queries(10 * images())
    assert not torch.equal(made.online[0][1].running_mean, made.average[0][1].running_mean)  # statistics are its own


def test_the_queue_starts_random_and_says_when_it_is_filled():
    made, same, other = pair(), pair(), pair(seed=1)
    assert made.queue.tensor.shape == (12, 4) and torch.equal(made.queue.tensor, same.queue.tensor)
    assert not torch.equal(made.queue.tensor, other.queue.tensor)
    assert not made.filled and (made.tags == -1).all()
    start, rows = made.queue.tensor.clone(), torch.nn.functional.one_hot(torch.arange(15) % 4, 4).float()
    made.push(rows[:5], torch.arange(5))
    assert torch.equal(made.queue.tensor, torch.cat([rows[:5], start[:7]])) and not made.filled
    assert made.tags.tolist() == [0, 1, 2, 3, 4] + [-1] * 7
    made.push(rows[5:10])
    assert not made.filled
    made.push(rows[10:12], torch.tensor([7, 8]))
    assert made.filled and torch.equal(made.queue.tensor, torch.cat([rows[10:12], rows[5:10], rows[:5]]))
    assert made.tags.tolist() == [7, 8, -1, -1, -1, -1, -1, 0, 1, 2, 3, 4]
    drawn = pair(generator=torch.Generator().manual_seed(3)), pair(generator=torch.Generator().manual_seed(3))
    assert torch.equal(drawn[0].queue.tensor, drawn[1].queue.tensor)


def test_global_randomness_is_left_alone():
    torch.manual_seed(0)
    state = torch.get_rng_state()
    pair()
    assert torch.equal(torch.get_rng_state(), state)


def test_without_a_queue():
    made = momentum.MomentumPair(network())
    assert made.filled and made.queue is None and made.keys(images()).shape == (6, 4)
    with pytest.raises(ValueError, match="no queue"):
        made.push(torch.zeros(2, 4))
    made.load_state_dict(made.state_dict())


def test_checkpoints_hold_everything(tmp_path):
    batches = train.index_batches(8, 4, 6, torch.Generator().manual_seed(0))

    def run(stop=None):
        made = pair(momentum=0.9)

        def watched(rows, number):
            if number == stop:
                raise KeyboardInterrupt
            return step(made, rows)

        history = train.fit(watched, made, batches=batches, checkpoint=tmp_path / f"{stop or 'x'}", progress=False,
                            checkpoint_seconds=0)  # fmt: skip
        return made, history["loss"]

    whole, losses_whole = run()
    with pytest.raises(KeyboardInterrupt):
        run(stop=4)
    (tmp_path / "4").rename(tmp_path / "x2")
    (tmp_path / "x").unlink()
    (tmp_path / "x2").rename(tmp_path / "x")
    resumed, losses_resumed = run()
    assert losses_resumed == losses_whole and resumed.filled and whole.filled
    for key, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[key]), key


def test_info_nce_on_the_queue_is_mocos_loss():
    made = pair().double()
    q, k = made.queries(images().double()), made.keys(images(seed=1).double())
    logits = torch.cat([(q * k).sum(1, keepdim=True), q @ made.queue.tensor.T], dim=1) / 0.2
    moco = torch.nn.functional.cross_entropy(logits, torch.zeros(6, dtype=torch.long))
    ours = losses.info_nce(q, k, negatives=made.queue.tensor, temperature=0.2, normalise=False)
    assert torch.allclose(ours, moco, rtol=1e-12)


def test_runs_on_a_fake_gpu(fake_cuda):
    made, x = pair(), images(8)
    with fake_cuda as fake:
        moved, x = fake(made), fake(x)
        q = moved.queries(x)
        moved.follow()
        k = moved.keys(x)
        moved.push(k, fake(torch.arange(8)))
        assert {t.device.type for t in (q, k, moved.queue.tensor, moved.tags)} == {"cuda"} and not moved.filled
        moved.push(k)
        assert moved.filled


def test_bad_input():
    for options, name in (
        ({"momentum": 1.5}, "momentum"),
        ({"size": -1, "dimension": 4}, "size"),
        ({"size": 3}, "dimension"),
        ({"size": 3, "dimension": 0}, "dimension"),
    ):
        with pytest.raises(ValueError, match=name):
            momentum.MomentumPair(network(), **options)
    made = pair()
    with pytest.raises(ValueError, match="tags"):
        made.push(torch.zeros(2, 4), torch.zeros(3, dtype=torch.long))
    with pytest.raises(ValueError, match=r"z must have shape \(N, 4\)"):
        made.push(torch.zeros(2, 3))
    assert made.pushed == 0 and (made.tags == -1).all()
