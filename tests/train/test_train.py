import pytest
import torch

from nearfar import augment, losses, nn
from nearfar.train import checkpoints, embed, fit, index_batches


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


IMAGES = torch.randint(0, 256, (64, 1, 8, 8), dtype=torch.uint8, generator=generator(9))


# ------------------------------------------------------------------------------------- batches
def test_index_batches_are_epochs_of_whole_batches():
    batches = index_batches(10, 3, 7, generator())
    assert batches.shape == (7, 3) and batches.dtype == torch.int64
    for epoch in (batches[:3], batches[3:6]):
        assert len(epoch.flatten().unique()) == 9  # no row twice within an epoch
    assert not torch.equal(batches[:3], batches[3:6])
    assert torch.equal(batches, index_batches(10, 3, 7, generator()))
    assert torch.equal(batches[:4], index_batches(10, 3, 4, generator()))  # more steps: the same start
    assert index_batches(5, 8, 3, generator()).shape == (3, 5)
    counts = torch.bincount(index_batches(10, 3, 3000, generator()).flatten())
    assert counts.min() > 820 and counts.max() < 980  # 900 each on average
    with pytest.raises(ValueError, match="n, batch_size and steps"):
        index_batches(0, 3, 3, generator())


# ------------------------------------------------------------------------------------- the loop
def regression(seed=0):
    x = torch.randn(32, 3, generator=generator(1))
    y = x @ torch.tensor([1.0, -2.0, 0.5])
    model = nn.projector([3, 1], seed=seed)
    return model, lambda batch, number: (model(x[batch]).squeeze(1) - y[batch]).square().mean()


@pytest.mark.parametrize("optimiser", ["sgd", "adam", "adamw"])
def test_fit_is_torchs_own_loop(optimiser):
    batches = index_batches(32, 8, 20, generator())
    model, step = regression()
    history = fit(step, model, batches=batches, lr=0.05, optimiser=optimiser, weight_decay=0.01, warmup=5)

    reference, reference_step = regression()
    options = {"lr": 0.05, "weight_decay": 0.01, **({"momentum": 0.9} if optimiser == "sgd" else {})}
    torch_optimiser = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[optimiser](
        reference.parameters(), **options
    )
    cosine = torch.optim.lr_scheduler.CosineAnnealingLR(torch_optimiser, 15)
    expected = []
    for number, batch in enumerate(batches):
        if number < 5:
            torch_optimiser.param_groups[0]["lr"] = 0.05 * (number + 1) / 5
        elif number == 5:
            torch_optimiser.param_groups[0]["lr"] = 0.05
        loss = reference_step(batch, number)
        torch_optimiser.zero_grad()
        loss.backward()
        torch_optimiser.step()
        if number >= 5:
            cosine.step()
        expected.append(loss.item())
    assert history["loss"] == pytest.approx(expected, rel=1e-5)
    torch.testing.assert_close(model[0].weight, reference[0].weight, rtol=1e-4, atol=1e-6)


def test_fit_learns_and_keeps_what_step_returns():
    model, step = regression()
    seen = []
    history = fit(
        lambda batch, number: (step(batch, number), {"twice": 2 * number, "norm": model[0].weight.norm()}),
        {"model": model},
        batches=index_batches(32, 32, 200, generator()),
        lr=0.1,
        schedule="constant",
        after=seen.append,
    )
    assert history["loss"][-1] < 1e-3 < history["loss"][0]
    assert history["twice"] == [2 * i for i in range(200)] and len(history["norm"]) == 200
    assert seen == list(range(200))


def test_optimiser_as_a_function_and_frozen_parts():
    model, step = regression()
    model[0].bias.requires_grad_(False)
    before = model[0].bias.clone()
    fit(
        step,
        model,
        batches=[torch.arange(4), torch.arange(8)],
        schedule="constant",
        optimiser=lambda parameters: torch.optim.SGD(parameters, lr=0.1),
    )
    assert torch.equal(model[0].bias, before)
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    with pytest.raises(ValueError, match="nothing to train"):
        fit(step, model, batches=[torch.arange(4)])


def test_modes_and_the_global_random_state_are_put_back():
    model = torch.nn.Sequential(torch.nn.Linear(3, 3), torch.nn.Dropout(0.5))
    model.eval()
    x, modes = torch.rand(8, 3), []

    def step(batch, number):
        modes.append(model[1].training)
        return model(x[batch]).square().mean()

    before = torch.get_rng_state()
    start = {k: v.clone() for k, v in model.state_dict().items()}
    first = fit(step, model, batches=index_batches(8, 4, 5, generator()))
    assert all(modes) and not model.training and not model[1].training
    assert torch.equal(torch.get_rng_state(), before)
    model.load_state_dict(start)
    torch.rand(7)  # dropout does not depend on what happened outside
    assert fit(step, model, batches=index_batches(8, 4, 5, generator())) == first


def test_bfloat16_comes_close():
    histories = []
    for precision in ("no", "bf16", "no"):  # accelerate's settings change back and forth
        model, step = regression()
        histories.append(fit(step, model, batches=index_batches(32, 8, 10, generator()), precision=precision)["loss"])
    assert histories[0] == histories[2] != histories[1]
    assert histories[1] == pytest.approx(histories[0], rel=0.05)


# ------------------------------------------------------------------------------------- checkpoints
class Crash(Exception):
    pass


def encoder_of(seed):
    return torch.nn.Sequential(nn.backbone("tiny", 1, width=4, seed=seed), torch.nn.Dropout(0.1), nn.projector([16, 8]))


def contrastive(seed=0):
    """Everything that has a state: batch norm, dropout, a moving-average copy, a queue, views drawn by a generator."""
    encoder, target = encoder_of(seed), encoder_of(seed)
    target.requires_grad_(False)
    memory, views = nn.Queue(32, 8), generator(5)
    recipe = augment.recipe("simclr", 8)
    memory.push(torch.randn(32, 8, generator=generator(6)))

    def step(batch, number):
        a, b = augment.views(IMAGES[batch], recipe, 2, views)
        keys = target(b)
        loss = losses.info_nce(encoder(a), keys, memory.tensor)
        memory.push(keys)
        return loss, {"number": number}

    def after(number):
        nn.ema_update(target, encoder, 0.9)

    modules = {"encoder": encoder, "target": target, "memory": memory}
    return dict(
        step=step,
        modules=modules,
        generator=views,
        after=after,
        batches=index_batches(64, 16, 12, generator(7)),
        warmup=2,
        progress=False,
    )


def states(setting):
    return {
        f"{name}.{key}": value
        for name, module in setting["modules"].items()
        for key, value in module.state_dict().items()
    } | {"generator": setting["generator"].get_state()}


@pytest.mark.parametrize("crash_at", [1, 6, 11])
@pytest.mark.parametrize("optimiser", ["adamw", "sgd"])
def test_interrupted_and_resumed_is_uninterrupted(tmp_path, crash_at, optimiser):
    whole = contrastive()
    expected = fit(**whole, optimiser=optimiser)

    crashed = contrastive()

    def step(batch, number, inner=crashed["step"]):
        if number == crash_at:
            raise Crash
        return inner(batch, number)

    path = tmp_path / "deep" / "run.pt"
    with pytest.raises(Crash):
        fit(**{**crashed, "step": step}, optimiser=optimiser, checkpoint=path, checkpoint_seconds=0)
    resumed, numbers = contrastive(), []
    torch.rand(3)

    def counted(batch, number):
        numbers.append(number)
        return resumed["step"](batch, number)

    history = fit(**{**resumed, "step": counted}, optimiser=optimiser, checkpoint=path, checkpoint_seconds=1e9)
    assert numbers == list(range(crash_at, 12))
    assert history == expected  # bit for bit
    for key, value in states(whole).items():
        assert torch.equal(value, states(resumed)[key]), key
    assert {p.name for p in path.parent.iterdir()} <= {"run.pt", "run.previous.pt"}


def test_a_finished_checkpoint_is_not_trained_again(tmp_path):
    first = contrastive()
    expected = fit(**first, checkpoint=tmp_path / "run.pt")
    again = contrastive()
    never = {**again, "step": lambda batch, number: pytest.fail("trained again")}
    history = fit(**never, checkpoint=tmp_path / "run.pt")
    assert history == expected
    assert all(torch.equal(value, states(again)[key]) for key, value in states(first).items())


def test_a_foreign_or_broken_checkpoint_is_refused(tmp_path):
    path = tmp_path / "run.pt"
    fit(**contrastive(), checkpoint=path)
    for other in (
        dict(lr=2e-3),
        dict(label="other"),
        dict(schedule="constant"),
        dict(batches=index_batches(64, 16, 12, generator(8))),
    ):
        with pytest.raises(ValueError, match="another configuration") as caught:
            fit(**{**contrastive(), **other}, checkpoint=path)
        assert "\n" not in str(caught.value)
    with pytest.raises(ValueError, match="another configuration"):
        fit(**contrastive(seed=1), checkpoint=path)
    for content in (b"", b"rubbish", path.read_bytes()[:2000]):
        path.write_bytes(content)
        with pytest.raises(ValueError, match="run.pt cannot be read") as caught:
            fit(**contrastive(), checkpoint=path)
        assert "\n" not in str(caught.value)
    torch.save([1, 2], path)
    with pytest.raises(ValueError, match="holds no training state; delete it"):
        fit(**contrastive(), checkpoint=path)


def test_a_checkpoint_of_another_version_is_refused(tmp_path, monkeypatch):
    path = tmp_path / "run.pt"
    fit(**contrastive(), checkpoint=path)
    monkeypatch.setattr(checkpoints, "FORMAT", 2)
    with pytest.raises(
        ValueError, match=r"run.pt was written by another version of nearfar \(format 1, here 2\); delete"
    ):
        fit(**contrastive(), checkpoint=path)


def test_checkpoints_lie_where_the_caller_means(tmp_path, monkeypatch):
    (tmp_path / "home").mkdir()
    (tmp_path / "here").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path / "here")
    model, step = regression()

    def wandering(batch, number):
        monkeypatch.chdir(tmp_path)
        return step(batch, number)

    for name in ("~/run.pt", "run.pt"):
        fit(wandering, model, batches=index_batches(32, 8, 2, generator()), checkpoint=name)
        monkeypatch.chdir(tmp_path / "here")
    assert sorted(path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*.pt")) == [
        "here/run.pt",
        "home/run.pt",
    ]
    assert not list(tmp_path.rglob("~"))


@pytest.mark.parametrize("fate", ["broken", "lost"])
def test_the_checkpoint_before_steps_in(tmp_path, fate):
    """The newest is unreadable, or a kill came between the two moves of a save."""
    path, expected, setting = tmp_path / "run.pt", fit(**contrastive()), contrastive()

    def step(batch, number, inner=setting["step"]):
        if number == 8:
            raise Crash
        return inner(batch, number)

    with pytest.raises(Crash):
        fit(**{**setting, "step": step}, checkpoint=path, checkpoint_seconds=0)
    path.write_bytes(b"half a file") if fate == "broken" else path.unlink()
    numbers, again = [], contrastive()

    def counted(batch, number):
        numbers.append(number)
        return again["step"](batch, number)

    with pytest.warns(UserWarning, match="going on from the one before"):
        history = fit(**{**again, "step": counted}, checkpoint=path)
    assert history == expected and numbers[0] == 7, "steps 0 to 6 were done when the one before was written"


def test_a_failed_write_leaves_the_old_checkpoint(tmp_path, monkeypatch):
    path = tmp_path / "run.pt"
    setting = contrastive()

    def save(content, file):
        file.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    def step(batch, number):
        if number == 3:
            monkeypatch.setattr(torch, "save", save)
        return setting["step"](batch, number)

    with pytest.raises(
        OSError, match="could not write checkpoint .*: No space left on device; make room and start again"
    ):
        fit(**{**setting, "step": step}, checkpoint=path, checkpoint_seconds=0)
    monkeypatch.undo()
    assert {p.name for p in tmp_path.iterdir()} == {"run.pt", "run.previous.pt"}
    assert fit(**contrastive(), checkpoint=path) == fit(**contrastive())


# ------------------------------------------------------------------------------------- bad input
def test_a_loss_that_is_not_finite_names_its_step(tmp_path):
    model, step = regression()
    weights = []

    def broken(batch, number):
        weights.append(model[0].weight.detach().clone())
        return step(batch, number) * (float("nan") if number == 3 else 1)

    with pytest.raises(FloatingPointError, match="nan at step 3"):
        fit(broken, model, batches=index_batches(32, 8, 10, generator()))
    assert torch.equal(model[0].weight, weights[-1])  # the step that failed did not touch the weights


def test_bad_settings_are_named():
    model, step = regression()
    batches = index_batches(32, 8, 4, generator())
    for options, message in [
        (dict(optimiser="adamm"), "optimiser must be one of adamw, adam, sgd"),
        (dict(schedule="linear"), "schedule"),
        (dict(precision="fp8"), "precision"),
        (dict(precision="fp16"), "fp16 needs an accelerator"),
        (dict(warmup=4), "warmup"),
        (dict(batches=[]), "batches is empty"),
        (dict(modules={"model": 3}), r"modules\['model'\]"),
        (dict(step=lambda batch, number: model(torch.rand(2, 3))), "scalar loss"),
        (dict(step=lambda batch, number: step(batch, number).item()), "loss as a tensor, without .*got float"),
        (dict(step=lambda batch, number: (step(batch, number).item(), {})), "loss as a tensor, without .*got float"),
        (dict(step=lambda batch, number: None), "loss as a tensor, .*got NoneType"),
        (dict(step=lambda batch, number: (step(batch, number), 3)), "loss as a tensor, .*got tuple"),
        (dict(step=lambda batch, number: step(batch, number).detach()), "no gradient"),
        (
            dict(step=lambda batch, number: (step(batch, number), {"z": torch.ones(3)})),
            "numbers to keep.*'z', a tensor",
        ),
        (dict(step=lambda batch, number: (step(batch, number), {"name": "a"})), "numbers to keep.*'name', a str"),
    ]:
        with pytest.raises(ValueError, match=message) as caught:
            fit(**{**dict(step=step, modules=model, batches=batches), **options})
        assert "\n" not in str(caught.value)
    if not torch.cuda.is_available():
        with pytest.raises(ValueError, match="no CUDA device"):
            fit(step, model, batches=batches, device="cuda")


# ------------------------------------------------------------------------------------- features
def test_embed():
    network = nn.backbone("tiny", 1, width=4)
    network[1].eval()  # a part may have a mode of its own
    whole = embed(network, IMAGES)
    assert whole.shape == (64, 16) and not whole.requires_grad
    assert network.training and not network[1].training
    torch.testing.assert_close(embed(network, IMAGES, batch_size=10), whole)
    network.eval()
    torch.testing.assert_close(whole, network(IMAGES / 255))
    assert not network.training
    table = torch.rand(5, 16, dtype=torch.float64)
    torch.testing.assert_close(embed(torch.nn.Identity(), table, transform=None), table)
    with pytest.raises(ValueError, match="images is empty"):
        embed(network, IMAGES[:0])


def test_embed_puts_modes_back_after_an_error():
    network = nn.backbone("tiny", 3)
    with pytest.raises(RuntimeError):
        embed(network, IMAGES)
    assert all(module.training for module in network.modules())


# ------------------------------------------------------------------------------------- several processes
def _worker(rank, port, results):
    import os

    os.environ |= {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": "2",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "ACCELERATE_USE_CPU": "true",
        "OMP_NUM_THREADS": "1",
    }
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo")
    model, step = regression()
    fit(step, model, batches=index_batches(32, 8, 5, generator()), lr=0.05, progress=False)
    fit(step, model, batches=index_batches(32, 8, 5, generator()), lr=0.05, progress=False)
    results.put((rank, model[0].weight.detach().tolist()))
    torch.distributed.destroy_process_group()


def test_two_processes_share_the_batch():
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    context = torch.multiprocessing.get_context("forkserver")  # the slow imports once, not once per process
    context.set_forkserver_preload(["torch._dynamo", "accelerate", "nearfar.train", "nearfar.losses"])
    results = context.Queue()
    workers = [context.Process(target=_worker, args=(rank, port, results), daemon=True) for rank in range(2)]
    for worker in workers:
        worker.start()
    weights = dict(results.get(timeout=60) for _ in workers)
    for worker in workers:
        worker.join()
    model, step = regression()
    for _ in range(2):
        fit(step, model, batches=index_batches(32, 8, 5, generator()), lr=0.05)
    torch.testing.assert_close(torch.tensor(weights[0]), model[0].weight.detach(), rtol=1e-4, atol=1e-6)
    assert weights[0] == weights[1]
