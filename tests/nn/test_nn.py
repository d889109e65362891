import copy

import pytest
import torch

from nearfar import nn


def images(n=4, channels=3, size=32):
    return torch.rand(n, channels, size, size, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(("name", "channels", "size", "options"), [
    ("tiny", 3, 32, {}), ("tiny", 1, 8, {"width": 8}), ("tiny", 3, 45, {"strides": (2, 2)}),
    ("tiny-mlp", 1, 8, {}), ("tiny-mlp", 3, 16, {"size": 16, "width": 32, "depth": 3}),
    ("vit-tiny", 3, 32, {"depth": 2}), ("vit-tiny", 1, 16, {"depth": 1, "width": 32}),
    ("resnet18", 3, 32, {"small_stem": True}), ("resnet18", 1, 32, {}),
])  # fmt: skip
def test_backbones_give_their_dimension(name, channels, size, options):
    network = nn.backbone(name, channels, **options)
    z = network(images(2, channels, size))
    assert z.shape == (2, network.dimension)
    z.sum().backward()
    assert all(p.grad is not None for p in network.parameters())


def test_table_backbone():
    network = nn.backbone("tiny-mlp", channels=5, size=1)
    assert network(torch.rand(6, 5)).shape == (6, 64)


def test_tiny_is_what_it_says():
    network = nn.backbone("tiny", width=16)
    assert network.dimension == 64
    assert nn.parameters_count(network) == 9 * (3 * 16 + 16 * 32 + 32 * 64) + 2 * (16 + 32 + 64)
    x = images(1, 3, 32)
    network.eval()
    y = x
    for layer in list(network)[:-2]:
        y = layer(y)
    assert y.shape == (1, 64, 4, 4)
    torch.testing.assert_close(network(x), y.mean(dim=(2, 3)))


def test_vit_starts_each_block_afresh():
    blocks = nn.backbone("vit-tiny", depth=2).blocks.layers
    assert not torch.equal(blocks[0].linear1.weight, blocks[1].linear1.weight)


def test_weights_come_from_the_seed_alone():
    torch.manual_seed(3)
    before = torch.get_rng_state()
    one = nn.backbone("tiny", seed=1).state_dict()
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(4)
    same, other = nn.backbone("tiny", seed=1).state_dict(), nn.backbone("tiny", seed=2).state_dict()
    assert all(torch.equal(one[k], same[k]) for k in one)
    assert not torch.equal(one["0.weight"], other["0.weight"])
    generator = torch.Generator().manual_seed(0)
    first, second = (nn.projector([4, 3], generator=generator) for _ in range(2))
    again = nn.projector([4, 3], generator=torch.Generator().manual_seed(0))
    assert torch.equal(first[0].weight, again[0].weight) and not torch.equal(first[0].weight, second[0].weight)


def test_unknown_names_get_suggestions():
    for wrong, right in (("tinny", "tiny"), ("resnet-18", "resnet18"), ("vit_tiny", "vit-tiny")):
        with pytest.raises(ValueError, match=f"no backbone '{wrong}'.*Did you mean .*{right}"):
            nn.backbone(wrong)
    with pytest.raises(ValueError, match="options of backbone 'tiny'.*colour"):
        nn.backbone("tiny", colour=3)
    with pytest.raises(ValueError, match="width"):
        nn.backbone("resnet18", width=8)
    with pytest.raises(ValueError, match="multiple of patch"):
        nn.backbone("vit-tiny", size=30)


def test_projector():
    head = nn.projector([8, 16, 4], last_bias=False)
    assert [type(layer).__name__ for layer in head] == ["Linear", "BatchNorm1d", "ReLU", "Linear"]
    assert head[0].bias is None and head[3].bias is None
    assert head(torch.rand(3, 8)).shape == (3, 4)
    plain = nn.projector([8, 16, 16, 4], batch_norm=False)
    assert [type(layer).__name__ for layer in plain] == ["Linear", "ReLU", "Linear", "ReLU", "Linear"]
    assert plain[0].bias is not None and plain[4].bias is not None
    with pytest.raises(ValueError, match="dimensions"):
        nn.projector([8])


def test_normalise():
    z = torch.tensor([[3.0, 4.0], [0.0, 0.0]], dtype=torch.float64)
    torch.testing.assert_close(nn.normalise(z), torch.tensor([[0.6, 0.8], [0.0, 0.0]], dtype=torch.float64))
    torch.testing.assert_close(nn.normalise(z, dim=0)[:, 0], torch.tensor([1.0, 0.0], dtype=torch.float64))


def test_ema_update_by_hand():
    online = torch.nn.Sequential(torch.nn.Linear(2, 1), torch.nn.BatchNorm1d(1))
    target = copy.deepcopy(online)
    with torch.no_grad():
        target[0].weight.fill_(1.0)
        online[0].weight.fill_(3.0)
    online[1].running_mean.fill_(7.0)
    nn.ema_update(target, online, 0.75)
    assert target[0].weight.tolist() == [[1.5, 1.5]] and target[1].running_mean.item() == 0
    nn.ema_update(target, online, 0.0, buffers=True)
    assert torch.equal(target[0].weight, online[0].weight) and target[1].running_mean.item() == 7
    assert not target[0].weight.grad_fn
    with pytest.raises(ValueError, match="momentum"):
        nn.ema_update(target, online, 1.5)
    with pytest.raises(ValueError, match="same parameters"):
        nn.ema_update(target, torch.nn.Linear(3, 1), 0.5)


def test_queue_is_a_fifo():
    queue = nn.Queue(5, 2)
    assert queue.tensor.shape == (0, 2) and not queue.full
    rows = torch.arange(14.0).view(7, 2)
    queue.push(rows[:3])
    assert torch.equal(queue.tensor, rows[:3])
    queue.push(rows[3:6].requires_grad_())
    assert torch.equal(queue.tensor, torch.cat([rows[3:6], rows[:2]])) and queue.full
    assert not queue.tensor.requires_grad
    copied = nn.Queue(5, 2)
    copied.load_state_dict(queue.state_dict())
    assert torch.equal(copied.tensor, queue.tensor) and copied.full
    queue.push(torch.zeros(9, 2))
    assert not queue.tensor.any() and queue.tensor.shape == (5, 2)
    with pytest.raises(ValueError, match=r"z must have shape \(N, 2\)"):
        queue.push(torch.zeros(2, 3))
    with pytest.raises(ValueError, match="size"):
        nn.Queue(0, 2)


def test_a_push_leaves_the_loss_before_it_differentiable():
    queue, w = nn.Queue(4, 2), torch.ones(2, 2, requires_grad=True)
    queue.push(torch.rand(4, 2))
    loss = (queue.tensor @ w).square().sum()
    queue.push(torch.rand(2, 2))
    loss.backward()
    assert w.grad is not None


def test_parameters_count():
    module = torch.nn.Linear(3, 2)
    module.bias.requires_grad_(False)
    assert nn.parameters_count(module) == 8 and nn.parameters_count(module, trainable=True) == 6


def test_checks_name_the_argument():
    for call, message in [
        (lambda: nn.check_features(z=torch.zeros(3)), "z must have shape"),
        (lambda: nn.check_features(z=torch.zeros(3, 0)), "z must have shape"),
        (lambda: nn.check_features(z=torch.tensor([[float("inf")]])), "z holds NaN or infinity, first in row 0"),
        (lambda: nn.check_labels("y", torch.tensor([0, 5]), 2, 3), "y must lie in 0 .. 2"),
        (lambda: nn.check_labels("y", torch.tensor([0.0]), 1), "y must be integers"),
        (lambda: nn.check_labels("y", torch.tensor([0]), 2), r"y must have shape \(2,\)"),
    ]:
        with pytest.raises(ValueError, match=message):
            call()
    nn.check_features(z=torch.full((2, 2), 1e30))  # squares overflow, the numbers do not
    nn.check_features(nonzero=True, z=torch.full((2, 2), 1e-30))


def test_runs_on_cuda(fake_cuda):
    networks = [
        nn.backbone("tiny"),
        nn.backbone("tiny-mlp", channels=3, size=32),
        nn.backbone("vit-tiny", depth=1),
        nn.backbone("resnet18", small_stem=True),
    ]
    head, queue, x = nn.projector([64, 8]), nn.Queue(6, 8), images()
    with fake_cuda as fake:
        for network in networks:
            assert fake(network)(fake(x)).device.type == "cuda"
        z = fake(head)(fake(networks[0])(fake(x)))
        queue = fake(queue)
        queue.push(nn.normalise(z))
        assert queue.tensor.device.type == "cuda" and queue.tensor.shape == (4, 8)
        nn.ema_update(fake(head), fake(head), 0.9)
