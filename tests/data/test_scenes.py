import colorsys
import math
import time

import pytest
import torch

from nearfar import data
from nearfar.data import scenes
from nearfar.data.scenes.language import TEXTURE_WORDS
from nearfar.data.scenes.shapes import DISTANCES
from nearfar.data.scenes.styles import STYLE_STEPS

PLAIN = {"texture": "plain", "background": "plain", "angle": 0.0, "position": (0.5, 0.5)}


def hue_of(image):
    """Hue of the middle pixel."""
    side = image.shape[-1]
    return colorsys.rgb_to_hsv(*(image[:, side // 2, side // 2].double() / 255).tolist())[0]


def apart(a, b):
    return min((a - b) % 1, (b - a) % 1)


def test_what_draw_returns():
    drawn = scenes.draw(20, size=24, seed=3)
    assert drawn.inputs.shape == (20, 3, 24, 24) and drawn.inputs.dtype == torch.uint8
    assert drawn.classes == scenes.SHAPES and torch.equal(drawn.labels, drawn.attributes["shape"])
    assert drawn.attributes["position"].shape == (20, 2) and drawn.attributes["boxes"].shape == (20, 4)
    assert all(len(column) == 20 for column in drawn.attributes.values()) and len(drawn.captions) == 20
    assert drawn.name == "scenes/train" and len(drawn.identity) == 64


def test_the_world_is_as_large_as_promised():
    assert len(scenes.SHAPES) >= 8 and len(scenes.TEXTURES) >= 5 and len(scenes.BACKGROUNDS) >= 4
    assert len(scenes.STYLES) == 3 == len(STYLE_STEPS)
    varied = scenes.draw(600, size=16, style=None, group=None).attributes
    for name, names in (("shape", scenes.SHAPES), ("texture", scenes.TEXTURES), ("style", scenes.STYLES),
                        ("background", scenes.BACKGROUNDS), ("group", scenes.GROUPS)):  # fmt: skip
        assert varied[name].bincount(minlength=len(names)).min() > 300 / len(names)


@pytest.mark.parametrize("settings", [{}, {"objects": (1, 3), "style": None, "blur": None, "noise": None}])
def test_one_seed_one_world(settings):
    torch.manual_seed(0)
    before = torch.get_rng_state()
    a, b = (scenes.draw(30, seed=7, masks=True, **settings) for _ in range(2))
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(a.inputs, b.inputs) and a.identity == b.identity and a.captions == b.captions
    assert all(torch.equal(a.attributes[k], b.attributes[k]) for k in a.attributes)
    for other in (scenes.draw(30, seed=8, **settings), scenes.draw(30, seed=7, split="test", **settings)):
        assert other.identity != a.identity and not torch.equal(other.inputs, a.inputs)


def test_the_first_rows_do_not_depend_on_how_many():
    few, many = scenes.draw(5, seed=1, objects=2, style=None), scenes.draw(400, seed=1, objects=2, style=None)
    assert all(torch.equal(few.attributes[k], many.attributes[k][:5]) for k in few.attributes)
    assert (few.inputs.int() - many.inputs[:5].int()).abs().max() <= 1


def test_setting_one_factor_leaves_the_others():
    free, red = scenes.factors(50, seed=2), scenes.factors(50, seed=2, hue="red")
    assert (red["hue"] == 0).all()
    assert all(torch.equal(free[k], red[k]) for k in free if k != "hue")


def test_every_row_depends_on_its_own_factors_only():
    table = scenes.factors(60, objects=2, style=None, blur=None, noise=None, contrast=None, group=None)
    order = torch.randperm(60, generator=torch.Generator().manual_seed(0))[:17]
    some = scenes.render({k: v[order] for k, v in table.items()})
    assert (some.inputs.int() - scenes.render(table).inputs[order].int()).abs().max() <= 1


def test_pairs_and_clips_are_edits_of_the_table():
    before = scenes.draw(8, **PLAIN, scale=0.2, noise=0.1)
    moved = before.attributes["position"] + torch.tensor([0.25, 0.0])
    after = scenes.render({**before.attributes, "position": moved})
    assert torch.allclose(
        after.attributes["boxes"] - before.attributes["boxes"], torch.tensor([8.0, 0, 8, 0]), atol=1.01
    )
    same = (after.inputs == before.inputs).all(1)
    assert same[:, :8].all() and not same.all()  # above the object nothing changed, not even the noise

    clip = {k: v[:1].repeat_interleave(5, 0) for k, v in before.attributes.items()}
    clip["position"] = torch.stack([torch.linspace(0.2, 0.8, 5), torch.full((5,), 0.5)], 1)
    middles = scenes.render(clip).attributes["boxes"][:, ::2].mean(1)
    assert torch.allclose(middles, torch.linspace(0.2, 0.8, 5) * 32, atol=0.8)


@pytest.mark.parametrize("shape", scenes.AREAS)
@pytest.mark.parametrize("angle", [0.0, 33.0])
def test_areas_are_those_of_the_formulas(shape, angle):
    scale, size = 0.4, 128
    drawn = scenes.draw(1, size=size, shape=shape, scale=scale, masks=True, **{**PLAIN, "angle": angle})
    area = drawn.attributes["masks"].sum().item() / size**2
    assert area == pytest.approx(scenes.AREAS[shape] * scale**2, rel=0.02)


@pytest.mark.parametrize("shape", scenes.SHAPES)
def test_distances_are_distances(shape):
    """Crossing the outline, the signed distance changes by as much as the place does: no faster anywhere."""
    grid = torch.linspace(-1.3, 1.3, 400, dtype=torch.float64)
    y, x = torch.meshgrid(grid, grid, indexing="ij")
    d, step = DISTANCES[shape](x, y), (grid[1] - grid[0]).item()
    slope = torch.hypot(*torch.gradient(d, spacing=step))
    near = (d.abs() < 0.1)[1:-1, 1:-1]
    assert slope[1:-1, 1:-1][near].quantile(0.9) < 1.02 and slope[1:-1, 1:-1][near].median() > 0.98
    assert d[0].min() > 0 and d[:, 0].min() > 0 and d[-1].min() > 0  # within the frame
    assert d.min() < -0.15


@pytest.mark.parametrize("shape", scenes.SHAPES)
def test_shapes_are_symmetric_and_upright(shape):
    x, y = torch.rand(2, 500, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * 2 - 1
    distance = DISTANCES[shape]
    if shape == "crescent":
        assert torch.allclose(distance(x, y), distance(x, -y))
    else:
        assert torch.allclose(distance(x, y), distance(-x, y), atol=1e-9)


def test_angles_turn_counter_clockwise():
    up, left = (scenes.draw(1, 64, shape="arrow", scale=0.4, masks=True, **{**PLAIN, "angle": a}) for a in (0.0, 90.0))
    assert torch.equal(up.attributes["masks"][0].rot90(1), left.attributes["masks"][0])


@pytest.mark.parametrize("style", scenes.STYLES)
@pytest.mark.parametrize("hue", [0.0, 0.12, 0.33, 0.5, 0.68, 0.9])
def test_the_hue_is_the_one_asked_for(style, hue):
    drawn = scenes.draw(4, size=48, shape="circle", hue=hue, scale=0.35, style=style, **PLAIN)
    assert all(apart(hue_of(image), hue) < 0.03 + 0.04 * (style == "sketch") for image in drawn.inputs)


@pytest.mark.parametrize("texture", scenes.TEXTURES)
def test_textures_keep_the_hue_and_differ(texture):
    table = scenes.factors(3, shape="square", hue=0.6, scale=0.4, **{**PLAIN, "texture": texture})
    drawn = scenes.render(table, 64)
    inside = drawn.inputs[:, :, 22:42, 22:42].flatten(2).double() / 255
    hues = [colorsys.rgb_to_hsv(*pixel)[0] for pixel in inside[0].T.tolist()]
    assert max(apart(h, 0.6) for h in hues) < 0.06
    spread = inside.std(-1).mean()
    assert spread < 0.09 if texture == "plain" else spread > 0.06


def test_boxes_are_tight_and_masks_fill_them():
    drawn = scenes.draw(40, size=48, objects=2, masks=True)
    masks, boxes = drawn.attributes["masks"], drawn.attributes["boxes"]
    assert masks.shape == (40, 2, 48, 48) and masks.dtype == torch.bool and boxes.shape == (40, 2, 4)
    for mask, box in zip(masks.flatten(0, 1), boxes.flatten(0, 1), strict=True):
        x0, y0, x1, y1 = box.int().tolist()
        assert mask[y0:y1, x0:x1].sum() == mask.sum() > 0
        assert mask[y0, :].any() and mask[y1 - 1, :].any() and mask[:, x0].any() and mask[:, x1 - 1].any()
        assert mask.sum() > 0.2 * (x1 - x0) * (y1 - y0)


def test_masks_lie_where_the_object_is_seen():
    table = scenes.factors(30, texture="plain", background="plain", seed=4)
    seen = scenes.render(table, 48, masks=True)
    gone = scenes.render({**table, "present": torch.zeros(30, dtype=torch.bool)}, 48)
    changed = (seen.inputs.int() - gone.inputs.int()).abs().amax(1) > 40
    overlap = (changed & seen.attributes["masks"]).sum() / (changed | seen.attributes["masks"]).sum()
    assert overlap > 0.7  # shadows change pixels, too
    assert (gone.attributes["boxes"] == 0).all() and (gone.attributes["count"] == 0).all()
    assert gone.captions[0].startswith("nothing on a plain")


def test_absent_objects():
    drawn = scenes.draw(60, objects=(1, 4), masks=True).attributes
    present = drawn["present"]
    assert drawn["count"].unique().tolist() == [1, 2, 3, 4] and torch.equal(drawn["count"], present.sum(1))
    assert not drawn["masks"][~present].any() and (drawn["boxes"][~present] == 0).all()
    assert drawn["masks"].any(-1).any(-1)[present].all()
    assert not drawn["left_of"][~present].any() and not drawn["larger"].transpose(1, 2)[~present].any()


@pytest.mark.parametrize("objects", [2, 3])
def test_objects_keep_clear_of_each_other_and_of_the_edge(objects):
    drawn = scenes.draw(200, size=64, objects=objects, masks=True).attributes
    covered = drawn["masks"].sum(1)
    assert ((covered > 1).flatten(1).sum(1) > 0).float().mean() < 0.1
    assert drawn["boxes"].min() >= 0 and drawn["boxes"].max() <= 64
    assert (drawn["masks"][..., 0, :].any() | drawn["masks"][..., :, 0].any()).item() is False


def test_relations():
    table = scenes.factors(1, objects=3, shape="square", angle=0.0, texture="plain")
    table["position"] = torch.tensor([[[0.25, 0.3], [0.7, 0.3], [0.7, 0.7]]])
    table["scale"] = torch.tensor([[0.05, 0.2, 0.1]])
    found = scenes.render(table, 64).attributes
    assert found["left_of"][0].tolist() == [[False, True, True], [False] * 3, [False] * 3]
    assert found["above"][0].tolist() == [[False, False, True], [False, False, True], [False] * 3]
    assert found["larger"][0].tolist() == [[False] * 3, [True, False, True], [True, False, False]]
    assert not found["overlaps"].any() and not found["inside"].any()

    table["position"] = torch.tensor([[[0.7, 0.3], [0.7, 0.3], [0.7, 0.45]]])
    found = scenes.render(table, 64).attributes
    assert found["inside"][0].nonzero().tolist() == [[0, 1]]
    assert found["overlaps"][0].tolist() == [[False, True, False], [True, False, True], [False, True, False]]


def test_captions_say_what_is_there():
    drawn = scenes.draw(
        1, objects=2, shape=torch.tensor([[3, 0]]), hue=torch.tensor([[0.0, 0.61]]), scale=torch.tensor([[0.16, 0.26]]),
        texture=torch.tensor([[0, 1]]), position=torch.tensor([[0.2, 0.5], [0.7, 0.5]]), background="waves",
        background_hue="green",
    )  # fmt: skip
    assert drawn.captions == ("a small red star left of a large striped blue circle on a wavy green background",)
    for style, start in (("sketch", "a sketch of a "), ("painting", "a painting of a ")):
        assert scenes.draw(1, style=style, hue="red").captions[0].startswith(start)
    assert " grey " in scenes.draw(1, saturation=0.05).captions[0]
    assert scenes.draw(3, caption=False).captions == ()


def test_captions_agree_with_the_table():
    drawn = scenes.draw(200, objects=(1, 3), seed=5)
    colours = list(scenes.COLOURS)
    for i, caption in enumerate(drawn.captions):
        for k in range(int(drawn.attributes["count"][i])):
            row = {name: int(drawn.attributes[name][i, k]) for name in ("shape", "colour", "texture")}
            words = [
                TEXTURE_WORDS[scenes.TEXTURES[row["texture"]]],
                colours[row["colour"]],
                scenes.SHAPES[row["shape"]],
            ]
            assert " ".join(filter(None, words)) in caption
    assert all(" an o" in c or " a o" not in c for c in drawn.captions)


def test_colour_names():
    assert torch.equal(
        scenes.colour_index(torch.tensor(list(scenes.COLOURS.values()))), torch.arange(len(scenes.COLOURS))
    )
    assert scenes.colour_index(torch.tensor([0.98, 1.02, -0.01])).tolist() == [0, 0, 0]


def test_hsv_agrees_with_the_standard_library():
    colours = torch.rand(50, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    found = scenes.hsv_to_rgb(*colours.unbind(1))
    expected = torch.tensor([colorsys.hsv_to_rgb(*colour) for colour in colours.tolist()], dtype=torch.float64)
    assert torch.allclose(found, expected, atol=1e-12)


def test_labels():
    chosen = scenes.draw(50, shape=["star", "circle"])
    assert chosen.classes == ("star", "circle") and chosen.labels.unique().tolist() == [0, 1]
    names = [scenes.SHAPES[s] for s in chosen.attributes["shape"]]
    assert [chosen.classes[y] for y in chosen.labels] == names
    by_colour = scenes.draw(50, label="colour")
    assert by_colour.classes == tuple(scenes.COLOURS) and torch.equal(by_colour.labels, by_colour.attributes["colour"])
    assert scenes.draw(5, label="hue").labels.is_floating_point() and scenes.draw(5, label="hue").classes == ()
    several = scenes.draw(50, objects=(1, 3), label="count")
    assert torch.equal(several.labels, several.attributes["count"]) and several.classes == ("0", "1", "2", "3")
    assert torch.equal(scenes.draw(9, objects=2).labels, scenes.draw(9, objects=2).attributes["shape"][:, 0])


def test_ways_to_set_a_factor():
    n = 40
    values = torch.linspace(0, 0.9, n)
    assert (scenes.factors(n, hue=0.25)["hue"] == 0.25).all()
    assert torch.equal(scenes.factors(n, hue=values)["hue"], values)
    low_high = scenes.factors(n, scale=(0.1, 0.2))["scale"]
    assert low_high.min() >= 0.1 and low_high.max() <= 0.2 and low_high.std() > 0.01
    assert scenes.factors(n, hue=["red", "blue"])["hue"].unique().tolist() == pytest.approx([0.0, 0.61])
    assert set(scenes.factors(n, shape=["heart", 0])["shape"].tolist()) == {0, scenes.SHAPES.index("heart")}
    assert scenes.factors(n, objects=2, hue=values)["hue"].shape == (n, 2)
    assert torch.equal(scenes.factors(n, objects=2, hue=values[:, None])["hue"][:, 1], values)
    points = torch.rand(n, 2, generator=torch.Generator().manual_seed(0))
    assert torch.equal(scenes.factors(n, position=points)["position"], points)
    assert torch.equal(scenes.factors(n, objects=2, position=points)["position"][:, 1], points)
    assert scenes.factors(1, shape="star")["shape"].tolist() == [3]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"shape": "sta"}, "shape: unknown 'sta'. Did you mean star"),
        ({"shape": 99}, "shape: 99 is not between 0 and"),
        ({"texture": "hairy"}, "texture: unknown 'hairy'"),
        ({"style": ["photo", "film"]}, "style: unknown 'film'"),
        ({"hue": "reddish"}, "hue: unknown 'reddish'; names are red"),
        ({"scale": "big"}, "scale: unknown 'big'; expected a number"),
        ({"scale": 3.0}, "scale: values must lie between 0 and 1"),
        ({"noise": -0.1}, "noise: values must lie"),
        ({"saturation": float("nan")}, "saturation: values must lie"),
        ({"group": torch.full((4,), 7)}, "group: values must lie between 0 and 3"),
        ({"hue": torch.zeros(3)}, r"hue: a tensor of shape \(3,\); expected \(4,\)"),
        ({"position": torch.zeros(4, 3)}, r"position: expected \(x, y\)"),
        ({"position": torch.zeros(3, 2)}, "position: a tensor of shape"),
        ({"sahpe": "star"}, "unknown factor 'sahpe'. Did you mean shape"),
        ({"objects": 0}, "objects: 0 is neither"),
        ({"objects": (3, 1)}, r"objects: \(3, 1\) is neither"),
        ({"n": 0}, "n: 0 is not a positive"),
        ({"size": 4}, "size: 4 pixels"),
        ({"label": "mood"}, "label: 'mood' is none of"),
        ({"split": "half"}, "split: 'half' is none of train, val, test"),
    ],
)
def test_bad_settings(settings, message):
    with pytest.raises(ValueError, match=message) as caught:
        scenes.draw(**{"n": 4, **settings})
    assert "\n" not in str(caught.value)


def test_bad_tables():
    table = scenes.factors(4)
    for changed, message in (
        ({**table, "hu": table["hue"]}, "unknown factor 'hu'. Did you mean hue"),
        ({k: v for k, v in table.items() if k != "hue"}, "'hue' is missing"),
        ({**table, "hue": table["hue"][:3]}, "hue: a tensor of shape"),
        ({**table, "scale": table["scale"] * 9}, "scale: values must lie"),
    ):
        with pytest.raises(ValueError, match=message):
            scenes.render(changed)


def test_quality():
    clean = scenes.draw(20, size=32, seed=1)
    table = clean.attributes

    def distorted(**factors):
        changed = {name: torch.full((20,), float(value)) for name, value in factors.items()}
        return scenes.render({**table, **changed}).inputs.float()

    sharpness = [distorted(blur=b).diff(dim=-1).abs().mean() for b in (0, 0.7, 1.5, 3)]
    assert sharpness == sorted(sharpness, reverse=True) and sharpness[-1] < 0.5 * sharpness[0]
    assert torch.allclose(distorted(blur=2).mean((2, 3)), clean.inputs.float().mean((2, 3)), atol=4)
    for share in (0.5, 0.0):
        faded = distorted(contrast=share)
        assert torch.allclose(faded - 127.5, share * (clean.inputs.float() - 127.5), atol=1.01)
    grain = distorted(contrast=0, noise=0.1) - 127.5
    assert grain.std() == pytest.approx(25.5, rel=0.05) and abs(grain.mean()) < 1


def test_groups_are_tags_in_corners():
    table = scenes.factors(5, scale=0.2, position=(0.5, 0.5))
    bare = scenes.render(table).inputs
    for number, corner in ((1, (3, 3)), (2, (3, 28)), (3, (28, 28))):
        tagged = scenes.render({**table, "group": torch.full((5,), number)}).inputs
        assert (tagged[:, :, corner[0], corner[1]] > 235).all()
        changed = (tagged != bare).any(1)
        assert changed.any(0).sum() < 45 and changed[:, 8:24].sum() == 0


def test_styles_change_the_picture_and_not_the_scene():
    photos, sketches = (scenes.draw(30, seed=2, style=s, masks=True) for s in ("photo", "sketch"))
    assert torch.equal(photos.labels, sketches.labels)
    a, b = photos.attributes["masks"], sketches.attributes["masks"]
    assert (a & b).sum() / (a | b).sum() > 0.9
    background = ~(a | b)[:, None].expand(-1, 3, -1, -1)
    assert sketches.inputs[background].float().mean() > photos.inputs[background].float().mean() + 20


def test_identity_names_the_scene():
    base = scenes.draw(6, seed=1)
    assert scenes.render(base.attributes).identity == base.identity
    assert scenes.render(base.attributes, 48).identity != base.identity
    assert scenes.render({**base.attributes, "hue": base.attributes["hue"] + 0.01}).identity != base.identity
    assert scenes.render(base.attributes, label="colour").identity != base.identity


@pytest.mark.parametrize("size", [16, 33, 64, 128])
def test_sizes_show_the_same_scene(size):
    small, large = scenes.draw(6, size=size, seed=9), scenes.draw(6, size=128, seed=9)
    shrunk = torch.nn.functional.interpolate(large.inputs.float(), size=(size, size), mode="area")
    assert (small.inputs.float() - shrunk).abs().mean() < 14
    boxes = small.attributes["boxes"] / size - large.attributes["boxes"] / 128
    assert boxes.abs().max() <= 1.5 / size + 1e-6


def test_a_drawn_set_is_a_data_set_like_any_other():
    drawn = scenes.draw(300, shape=["star", "heart"])
    rows = data.subsets(drawn.labels, [20], attribute=(drawn.attributes["hue"] > 0.5).long(), correlation=0.9)[20]
    part = drawn[rows]
    assert part.labels.bincount().tolist() == [10, 10] and len(part.captions) == 20
    again = scenes.render(part.attributes)
    assert (again.inputs.int() - part.inputs.int()).abs().max() <= 1


def test_ten_thousand_in_seconds():
    scenes.draw(50)
    began = time.process_time()
    scenes.draw(10_000)
    assert time.process_time() - began < 6  # about one second on an idle core


def test_denormal_numbers_do_not_slow_the_blur():
    table = scenes.factors(600, blur=(1.0, 3.0))
    began = time.process_time()
    scenes.render(table, caption=False)
    blurred = time.process_time() - began
    began = time.process_time()
    scenes.render({**table, "blur": torch.zeros(600)}, caption=False)
    assert blurred < 5 * (time.process_time() - began) + 0.2


def test_area_of_the_hexagon_by_hand():
    assert scenes.AREAS["hexagon"] == pytest.approx(1.5 * math.sqrt(3) * (0.8 / math.sqrt(0.75)) ** 2)
