"""How the emoji model is made: variants of one emoji, the split, the data file, the network, the training run."""

from __future__ import annotations

import io
import json
import tarfile

import pytest
import torch

from fewstep.demo.emoji.data import (
    CLASS_NAMES,
    MIRRORED,
    PACKAGES,
    STYLES,
    EmojiPictures,
    build,
    find_archive,
    load_pictures,
    to_unit_range,
)
from fewstep.demo.emoji.groups import CATEGORIES, base_of, categories_of, code_points, is_held_out, members
from fewstep.demo.emoji.network import NUM_CLASSES, EmojiTransformer, FlowPrecond
from fewstep.demo.emoji.train import batches, draw_levels, train, velocity_loss
from fewstep.demo.training_run import Amount, learning_rate
from fewstep.tensor_files import load_tensors, save_tensors

TONES = ("1F3FB", "1F3FD", "1F3FF")


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def entry(unified, category, variations=()):
    return {
        "unified": unified,
        "category": category,
        "skin_variations": {tone: {"unified": unified.split("-")[0] + "-" + tone} for tone in variations},
    }


EMOJI = [
    entry("0023-FE0F-20E3", "Symbols"),
    entry("1F44B", "People & Body", TONES),
    entry("1F468-200D-1F33E", "People & Body"),
    entry("1F469-200D-1F33E", "People & Body"),
    entry("1F9D1-200D-1F33E", "People & Body"),
    entry("1F436", "Animals & Nature"),
    entry("1F34E", "Food & Drink"),
    entry("1F3FB", "Component"),
]


# --- Variants ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("1f44b", "1f44b-1f3fd"),  # waving hand in a skin tone
        ("1f3c3", "1f3c3-1f3fb-200d-2640-fe0f-200d-27a1-fe0f"),  # running; a woman running to the right
        ("1f468-200d-1f33e", "1f469-1f3ff-200d-1f33e"),  # man and woman farmer
        ("1f9d1", "1f469-1f3fe-200d-1f9b0"),  # person; woman with red hair
        ("1f934", "1f478-1f3fb"),  # prince and princess
        ("1f46a", "1f468-200d-1f469-200d-1f467-200d-1f466"),  # families
        ("1f46d", "1f469-1f3fb-200d-1f91d-200d-1f468-1f3fc"),  # two people holding hands
        ("1f48f", "1f468-200d-2764-fe0f-200d-1f48b-200d-1f468"),  # kisses
        ("1f491", "1f9d1-1f3fb-200d-2764-fe0f-200d-1f9d1-1f3fc"),  # couples with a heart
        ("1f467", "1f9d2-1f3fd"),  # children
        ("0023-fe0f-20e3", "0023-20e3"),
    ],
)
def test_variants_share_a_base(one, other):
    assert base_of(code_points(one)) == base_of(code_points(other))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("1f44b", "1f44c"),
        ("1f468-200d-1f33e", "1f468-200d-1f373"),  # farmer, cook
        ("1f9d1", "1f9d2"),  # grown-up, child
        ("1f469", "1f469-200d-1f9af"),  # with a cane
        ("1f48f", "1f491"),
        ("0023-fe0f-20e3", "002a-fe0f-20e3"),
        ("1f1e9-1f1ea", "1f1eb-1f1f7"),  # flags
        ("1f415", "1f415-200d-1f9ba"),  # dog, service dog
    ],
)
def test_different_emoji_have_different_bases(one, other):
    assert base_of(code_points(one)) != base_of(code_points(other))


def test_file_names_of_both_packages_mean_the_same():
    assert code_points("1f3f4_e0067_e0062") == code_points("1F3F4-E0067-E0062")
    assert code_points("00a9-fe0f") == code_points("A9")


def test_categories_of_all_forms_without_components():
    known = categories_of(EMOJI)
    assert known["1f44b", "1f3fd"] == known["1f44b",] == "People & Body"
    assert ("1f3fb",) not in known
    with pytest.raises(ValueError, match=r"'Weather'.*Smileys"):
        categories_of([entry("1F324", "Weather")])


def test_all_variants_fall_on_one_side():
    stems = [f"1f{400 + k:x}-1f3f{tone}" for k in range(200) for tone in "bcdef"]
    emoji = [entry(f"1F{400 + k:X}", "People & Body", [f"1F3F{tone}" for tone in "BCDEF"]) for k in range(200)]
    found = members(stems, emoji, 0.3)
    assert len(found) == 1000
    sides: dict = {}
    for member in found:
        sides.setdefault(member.base, set()).add(member.held_out)
    assert all(len(side) == 1 for side in sides.values())
    assert 35 <= sum(side == {True} for side in sides.values()) <= 85


def test_the_side_depends_on_nothing_but_the_base():
    assert is_held_out(("1f44b",), 1.0) and not is_held_out(("1f44b",), 0.0)
    few, many = members(["1f44b", "1f436"], EMOJI, 0.5), members(["1f34e", "1f44b", "1f436", "1f44b-1f3fb"], EMOJI, 0.5)
    assert {m.stem: m.held_out for m in few}.items() <= {m.stem: m.held_out for m in many}.items()


def test_unknown_pictures_and_components_are_left_out():
    assert [m.stem for m in members(["1f3fb", "1f436", "1f9ff", "0001f436"], EMOJI, 0.5)] == ["0001f436"]


# --- The data file ----------------------------------------------------------------------------------------------------


def archive(path, files):
    with tarfile.open(path, "w:gz") as tar:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return path


def picture(colour, kind, size=64):
    from PIL import Image

    canvas = Image.new("RGBA", (size, size), (0, 0, 0, 0))
    canvas.paste((*colour, 255), (0, 0, size // 2, size))  # the left half; the right one is transparent black
    file = io.BytesIO()
    canvas.save(file, kind, lossless=True)
    return file.getvalue()


@pytest.fixture(scope="module")
def data_file(tmp_path_factory):
    folder = tmp_path_factory.mktemp("emoji")
    flat = {f"package/img/google/64/{stem}.png": picture((255, 0, 0), "PNG") for stem in ("1f44b", "1f44b-1f3fb", "1f436", "1f3fb")}
    flat |= {"package/emoji.json": json.dumps(EMOJI).encode(), "package/img/google/sheets/64.png": b"no picture is read here"}
    solid = {f"package/assets/{stem}.webp": picture((0, 0, 255), "WEBP", 256) for stem in ("1f44b", "1f34e", "0023-fe0f-20e3")}
    tensors = build({"3D": archive(folder / "solid.tgz", solid), "flat": archive(folder / "flat.tgz", flat)}, 0.5)
    save_tensors(folder / "emoji.safetensors", tensors, {})
    return folder / "emoji.safetensors"


def test_pictures_lie_on_white_with_a_margin(data_file):
    tensors, _ = load_tensors(data_file)
    images = tensors["images"]
    assert images.shape == (6, 3, 32, 32) and images.dtype == torch.uint8
    for edge in (images[..., 0, :], images[..., -1, :], images[..., 0], images[..., -1]):
        assert (edge == 255).all()
    assert (images[:, :, :, 17:] > 250).all(), "transparent black must not darken what is beside it"
    solid = tensors["labels"] % len(STYLES) == STYLES.index("3D")
    inside = images[:, :, 2:30, 2:14].float().mean(dim=(2, 3))
    assert (inside[solid] - torch.tensor([0.0, 0, 255])).abs().max() < 3
    assert (inside[~solid] - torch.tensor([255.0, 0, 0])).abs().max() < 3


def test_classes_are_category_and_style(data_file):
    tensors, _ = load_tensors(data_file)
    names = sorted(CLASS_NAMES[label] for label in tensors["labels"])
    assert names == sorted(
        ["person 3D", "food 3D", "symbol 3D", "person flat", "person flat", "nature flat"]
    )
    assert len(CLASS_NAMES) == NUM_CLASSES == len(CATEGORIES) * len(STYLES)


def test_splits_are_the_parts_of_the_file(data_file):
    train_part, test_part = load_pictures("train", data_file), load_pictures("test", data_file)
    assert len(train_part.images) + len(test_part.images) == 6
    assert not set(train_part.variants.tolist()) & set(test_part.variants.tolist())
    with pytest.raises(ValueError, match="'validation'"):
        load_pictures("validation", data_file)
    with pytest.raises(FileNotFoundError, match=r"fewstep\.demo\.emoji\.data"):
        load_pictures("train", data_file.with_name("elsewhere.safetensors"))


def test_packages_that_are_not_there_are_asked_for(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"npm pack @lobehub/fluent-emoji-3d@1\.1\.0 emoji-datasource-google@16\.0\.0"):
        find_archive(PACKAGES["3D"], tmp_path)
    (tmp_path / "lobehub-fluent-emoji-3d-1.1.0.tgz").touch()
    assert find_archive(PACKAGES["3D"], tmp_path).name == "lobehub-fluent-emoji-3d-1.1.0.tgz"


def test_an_epoch_has_one_variant_of_each_base():
    variants = torch.tensor([0] * 30 + [1] * 5 + [2, 3, 4])
    pictures = EmojiPictures(torch.zeros(38, 3, 32, 32, dtype=torch.uint8), torch.zeros(38, dtype=torch.long), variants)
    generator = torch.Generator().manual_seed(0)
    epochs = [pictures.epoch(generator) for _ in range(60)]
    assert all(sorted(variants[epoch].tolist()) == [0, 1, 2, 3, 4] for epoch in epochs)
    assert len({int(epoch[variants[epoch] == 0]) for epoch in epochs}) > 20, "the variant must be drawn anew"
    assert len({tuple(variants[epoch].tolist()) for epoch in epochs}) > 30, "the order must be drawn anew"


# --- The network ------------------------------------------------------------------------------------------------------


def test_size_and_shape():
    net = EmojiTransformer()
    assert sum(p.numel() for p in net.parameters()) <= 2_400_000
    x = torch.randn(3, 3, 32, 32)
    assert net(x, torch.tensor([0.0, 0.5, 1.0]), torch.tensor([0, 5, NUM_CLASSES])).shape == x.shape


def test_time_and_class_reach_every_image():
    torch.manual_seed(0)
    net = EmojiTransformer(width=64, depth=1, stage=16)
    torch.nn.init.normal_(net.head_out.weight, std=0.1)
    torch.nn.init.normal_(net.class_embedding.weight)
    x = torch.randn(1, 3, 32, 32).expand(3, -1, -1, -1)
    out = net(x, torch.tensor([0.2, 0.3, 0.2]), torch.tensor([1, 1, 2]))
    assert (out[0] - out[1]).abs().mean() > 1e-3 and (out[0] - out[2]).abs().mean() > 1e-3


def test_neighbouring_tokens_share_pixels():
    """With the transformer left out, a pixel beside the border of two tokens still sees both."""
    torch.manual_seed(1)
    net = EmojiTransformer(width=64, depth=0, stage=16)
    torch.nn.init.normal_(net.head_out.weight, std=0.1)
    x = torch.randn(1, 3, 32, 32, requires_grad=True)
    net(x, torch.tensor([0.5]), torch.tensor([0]))[0, :, 15, 16].sum().backward()
    seen = x.grad[0].abs().sum(dim=0) > 0
    assert seen[8:24, 8:24].all(), "both tokens beside the pixel, and those around them"


def test_an_untrained_network_knows_gaussian_data():
    """Without the network's share the velocity is the exact one of Gaussian data with this mean and deviation."""
    mean, deviation = (0.5, -0.2, 0.1), 0.4
    model = FlowPrecond(EmojiTransformer(width=32, depth=1, stage=16), mean, deviation)  # the last layer starts at zero
    m = torch.tensor(mean)[:, None, None]
    x = torch.randn(5, 3, 32, 32)
    s = torch.tensor([0.0, 0.1, 0.5, 0.9, 1.0])
    at = s[:, None, None, None]
    gain = (1 - at) * deviation**2 / (at**2 + ((1 - at) * deviation) ** 2)
    posterior_mean = m + gain * (x - (1 - at) * m)
    velocity = model(x, s, torch.zeros(5, dtype=torch.long))
    torch.testing.assert_close(x - at * velocity, posterior_mean, rtol=1e-5, atol=1e-5)


def test_half_precision_round_trip(tmp_path):
    torch.manual_seed(2)
    net = EmojiTransformer()
    torch.nn.init.normal_(net.head_out.weight, std=0.1)
    save_tensors(tmp_path / "net.safetensors", {k: v.half() for k, v in net.state_dict().items()}, {"config": net.config})
    assert (tmp_path / "net.safetensors").stat().st_size <= 5e6
    tensors, record = load_tensors(tmp_path / "net.safetensors")
    again = EmojiTransformer(**record["config"])
    again.load_state_dict({k: v.float() for k, v in tensors.items()})
    x, s, y = torch.randn(2, 3, 32, 32), torch.tensor([0.3, 0.9]), torch.tensor([3, 7])
    assert (net(x, s, y) - again(x, s, y)).abs().max() < 0.01 * net(x, s, y).abs().max()


# --- The training run -------------------------------------------------------------------------------------------------


def test_levels_cover_both_ends():
    s = draw_levels(20_000, torch.Generator().manual_seed(0))
    assert 0 <= s.min() < 0.001 and 0.999 < s.max() <= 1
    assert s.median() == pytest.approx(0.5, abs=0.02)


def test_batches_are_scaled_mirrored_and_partly_without_label():
    images = torch.full((40, 3, 32, 32), 255, dtype=torch.uint8)
    images[..., :16] = 0  # the left half is black
    labels = torch.arange(40) % NUM_CLASSES
    source = batches(EmojiPictures(images, labels, torch.arange(40)), 1000, torch.Generator().manual_seed(3))
    x, y = next(source)
    assert x.shape == (1000, 3, 32, 32) and x.min() == -1 and x.max() == 1
    assert 0.05 < (y == NUM_CLASSES).float().mean() < 0.15
    mirrored, named = x[:, 0, 0, 0] == 1, y < NUM_CLASSES
    read = ~torch.isin(y, torch.tensor(MIRRORED)) & named
    assert read.any() and not mirrored[read].any(), "signs and flags are never mirrored"
    assert 0.4 < mirrored[named & ~read].float().mean() < 0.6


def test_the_loss_is_least_for_the_true_velocity():
    class Oracle(torch.nn.Module):
        def __init__(self, x0):
            super().__init__()
            self.x0 = x0

        def forward(self, x, s, labels):
            return (x - self.x0) / s[:, None, None, None]  # n - x0 along this path

    x0, noise = torch.randn(8, 3, 32, 32), torch.randn(8, 3, 32, 32)
    s, labels = torch.linspace(0.1, 1, 8), torch.zeros(8, dtype=torch.long)
    assert velocity_loss(Oracle(x0), x0, labels, s, noise) < 1e-9
    assert velocity_loss(Oracle(x0 + 0.1), x0, labels, s, noise) > 1e-3


def test_learning_rate_warms_up_and_falls_on_a_cosine():
    assert learning_rate(0, 0.0, 1.0) < 0.01
    assert learning_rate(1000, 0.5, 1.0) == pytest.approx(0.505)
    assert learning_rate(9000, 1.0, 1.0) == pytest.approx(0.01)


def test_the_first_limit_ends_a_run():
    budget = Amount(iterations=100, minutes=10)
    assert Amount(10, 2, 500).share_of(budget) == pytest.approx(0.2)
    assert Amount(70, 2, 500).share_of(budget) == pytest.approx(0.7)
    assert Amount(70, 20, 500).share_of(budget) == 1.0


def test_an_interrupted_run_goes_on_where_it_stopped(tmp_path):
    images = torch.randint(0, 256, (24, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(5))
    pictures = EmojiPictures(images, torch.arange(24) % NUM_CLASSES, torch.arange(24))

    def run(folder, interrupted=lambda: False):
        net = {"width": 32, "depth": 1, "stage": 16}
        # batches of an epoch's size, because a run resumed in the middle of an epoch begins a new one
        return train(tmp_path / folder, Amount(iterations=6), pictures, net, batch=24, peak_rate=1e-3, ema_decay=0.99, save_minutes=9,
                     device="cpu", seed=3, interrupted=interrupted)  # fmt: skip

    whole, record = load_tensors(run("whole"))
    assert record["iterations"] == 6
    answers = iter([False, False, True])
    run("parts", lambda: next(answers))
    assert load_tensors(tmp_path / "parts" / "state.safetensors")[1]["iterations"] == 2
    parts, record = load_tensors(run("parts"))
    assert record["iterations"] == 6 and 0 < record["minutes"] < 5
    assert {value.dtype for value in parts.values()} == {torch.float16}
    for name, value in whole.items():
        torch.testing.assert_close(parts[name], value, rtol=1e-3, atol=1e-4)


def test_pixels_are_scaled_to_the_unit_range():
    assert to_unit_range(torch.tensor([0, 255], dtype=torch.uint8)).tolist() == [-1, 1]
