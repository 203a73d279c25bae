"""The networks: published sizes, shapes, and what they refuse."""

import pickle
from copy import deepcopy

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from rwalk.models import MODELS, Features, build_model, mlp, paper_cnn, resnet18, resnet32, slim_resnet18, text_mlp

IMAGE = (3, 32, 32)
INPUTS = {
    "mlp": torch.randn(4, 3, 5),
    "paper-cnn": torch.randn(4, *IMAGE),
    "resnet18": torch.randn(4, *IMAGE),
    "slim-resnet18": torch.randn(4, *IMAGE),
    "resnet32": torch.randn(4, *IMAGE),
    "text-mlp": torch.randint(0, 50, (4, 7)),
}
OPTIONS = {"text-mlp": {"vocabulary": 50}, "resnet18": {"width": 4}}


def size(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def built(name: str, n_classes: int = 6, **options) -> nn.Module:
    torch.manual_seed(0)
    return MODELS[name](tuple(INPUTS[name].shape[1:]), n_classes, **OPTIONS.get(name, {}), **options)


@pytest.mark.parametrize(
    ("model", "published"),
    [
        (lambda: resnet18(IMAGE, 10), "11.17M"),  # pytorch-cifar's and the GEM code's width 64
        (lambda: slim_resnet18(IMAGE, 10), "1.09M"),  # GEM's, 20 channels
        (lambda: resnet32(IMAGE, 10), "0.46M"),  # He et al., Table 6
        (lambda: mlp((1, 28, 28), 10), "0.27M"),  # the paper's MNIST network, 256-256
    ],
)
def test_sizes_are_those_published(model, published):
    assert f"{size(model()) / 1e6:.2f}M" == published


def test_sizes_by_hand():
    convolutions = (3 * 32 + 32 * 32 + 32 * 64 + 64 * 64) * 9 + 32 + 32 + 64 + 64
    assert size(paper_cnn(IMAGE, 100)) == convolutions + 64 * 8 * 8 * 100 + 100
    fifth = paper_cnn(IMAGE, 100, channels=(32, 32, 64, 64, 512))
    assert size(fifth) == convolutions + 64 * 512 * 9 + 512 + 512 * 8 * 8 * 100 + 100
    text = text_mlp((9,), 4, vocabulary=100, width=10, hidden=(7,))
    assert size(text) == 100 * 10 + (10 * 7 + 7) + (7 * 4 + 4)


def test_depth_and_order_of_the_layers():
    kinds = [type(layer).__name__ for layer in paper_cnn(IMAGE, 10).features]
    pair = ["Conv2d", "ReLU", "Conv2d", "ReLU", "MaxPool2d", "Dropout"]
    assert kinds == [*pair, *pair, "Flatten"]
    kinds = [type(layer).__name__ for layer in paper_cnn(IMAGE, 10, channels=(2, 2, 3), mean=(0.5, 0.5, 0.5)).features]
    assert kinds == ["Centred", *pair, "Conv2d", "ReLU", "Flatten"]
    for network, layers in ((resnet32, 32), (resnet18, 18)):
        weighted = [m for m in network(IMAGE, 10).modules() if isinstance(m, (nn.Conv2d, nn.Linear))]
        assert len([m for m in weighted if getattr(m, "kernel_size", None) != (1, 1)]) == layers


@pytest.mark.parametrize("name", MODELS)
def test_every_network_gives_scores_on_features_of_the_width_it_names(name):
    network, x = built(name).eval(), INPUTS[name]
    features = network.features(x)
    assert features.shape == (4, network.features.num_features)
    assert torch.equal(network(x), network.classifier(features))
    assert network(x).shape == (4, 6)


@pytest.mark.parametrize("name", MODELS)
def test_without_classes_it_is_the_same_features(name):
    torch.manual_seed(0)
    bare, x = built(name, 0).eval(), INPUTS[name]
    assert isinstance(bare, Features)
    assert torch.equal(bare(x), built(name).eval().features(x))


@pytest.mark.parametrize("name", MODELS)
def test_every_parameter_learns(name):
    network = built(name)
    nn.functional.cross_entropy(network(INPUTS[name]), torch.tensor([0, 1, 2, 3])).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in network.parameters())
    assert all(p.grad.any() for p in network.classifier.parameters())


@pytest.mark.parametrize("name", MODELS)
def test_copies_and_pickles_are_the_same_network(name):
    network, x = built(name).eval(), INPUTS[name]
    for twin in (deepcopy(network), pickle.loads(pickle.dumps(network))):
        assert torch.equal(twin(x), network(x))


def test_a_slice_of_features_works_and_does_not_claim_a_width():
    features = built("mlp", 0)
    assert features[:2](INPUTS["mlp"]).shape == (4, 256)
    assert features[:2].num_features is None


def test_text_is_the_mean_of_its_tokens_without_padding():
    network = text_mlp((4,), 2, vocabulary=9, width=3, hidden=())
    table = network.features[0].weight
    tokens = torch.tensor([[5, 2, 0, 0], [1, 1, 8, 3]])
    by_hand = torch.stack([(table[5] + table[2]) / 2, (2 * table[1] + table[8] + table[3]) / 4])
    torch.testing.assert_close(network.features(tokens), by_hand)
    assert table[0].count_nonzero() == 0


def test_a_resnet32_shortcut_without_parameters_is_every_second_pixel_and_zeros():
    block = resnet32(IMAGE, 10).features[8]  # the first of the second stage
    x = torch.randn(2, 16, 8, 8)
    kept = block.shortcut(x)
    assert torch.equal(kept[:, :16], x[:, :, ::2, ::2])
    assert kept.shape == (2, 32, 4, 4)
    assert not kept[:, 16:].any()


@given(st.integers(1, 4), st.integers(4, 40), st.integers(4, 40))
def test_the_papers_network_fits_any_image_that_can_be_pooled_twice(channels, height, width):
    network = paper_cnn((channels, height, width), 3, channels=(2, 2, 3, 3))
    assert network(torch.zeros(1, channels, height, width)).shape == (1, 3)


def test_the_papers_network_subtracts_a_mean_from_each_channel():
    torch.manual_seed(0)
    plain, mean = paper_cnn(IMAGE, 3, dropout=0.0), (0.1, 0.2, 0.4)
    centred = paper_cnn(IMAGE, 3, dropout=0.0, mean=mean)
    centred.load_state_dict(dict(zip(centred.state_dict(), plain.state_dict().values(), strict=True)))
    x = torch.rand(2, *IMAGE)
    assert torch.equal(centred(x), plain(x - torch.tensor(mean).view(3, 1, 1)))


def test_images_are_turned_left_to_right_while_training_only_each_whole_and_by_its_own_draw():
    torch.manual_seed(0)
    turning = paper_cnn(IMAGE, 3, dropout=0.0, flip=True)
    plain = paper_cnn(IMAGE, 3, dropout=0.0)
    plain.load_state_dict(dict(zip(plain.state_dict(), turning.state_dict().values(), strict=True)))
    x = torch.rand(200, *IMAGE)
    seen = turning.features[0](x)
    turned = (seen == x.flip(-1)).flatten(1).all(1)
    assert torch.equal(turned, ~(seen == x).flatten(1).all(1))
    assert 70 <= int(turned.sum()) <= 130
    assert not torch.equal(seen, turning.features[0](x))
    assert torch.equal(turning.eval()(x), plain.eval()(x))


def test_images_are_moved_while_training_only_each_whole_and_as_far_as_asked():
    torch.manual_seed(0)
    moving, plain = paper_cnn(IMAGE, 3, dropout=0.0, shift=2), paper_cnn(IMAGE, 3, dropout=0.0)
    plain.load_state_dict(dict(zip(plain.state_dict(), moving.state_dict().values(), strict=True)))
    x = torch.rand(400, *IMAGE)
    wide = torch.nn.functional.pad(x, (2, 2, 2, 2), mode="reflect")
    height, width = IMAGE[1:]
    corners = [(row, column) for row in range(5) for column in range(5)]
    views = [wide[:, :, row : row + height, column : column + width] for row, column in corners]
    seen = moving.features[0](x)
    found = torch.stack([(seen == view).flatten(1).all(1) for view in views])
    assert (found.sum(0) == 1).all()
    assert found.sum(1).min() >= 4  # of 16 expected
    assert not torch.equal(seen, moving.features[0](x))
    assert torch.equal(moving.eval()(x), plain.eval()(x))


@pytest.mark.parametrize("shift", [-1, 16, 0.5])
def test_images_are_not_moved_out_of_sight_or_by_parts_of_a_pixel(shift):
    with pytest.raises(ValueError, match=f"{shift}: expected"):
        paper_cnn((3, 16, 16), 3, shift=shift)


@pytest.mark.parametrize("name", ["paper-cnn", "resnet18", "slim-resnet18", "resnet32"])
@pytest.mark.parametrize("shape", [(64,), (32, 32), (3, 0, 32)])
def test_networks_for_images_refuse_other_shapes(name, shape):
    with pytest.raises(ValueError, match=r"input_shape=.*takes images \(channels, height, width\)"):
        MODELS[name](shape, 10)


def drawn(name: str, **options) -> list[nn.Conv2d | nn.Linear]:
    layers = [layer for layer in built(name, **options).modules() if isinstance(layer, (nn.Conv2d, nn.Linear))]
    return [layer for layer in layers if layer.weight.numel() > 1000]  # enough of them to tell where they end


def test_initial_weights_by_rows_are_uniform_and_larger_than_pytorchs():
    for layer in drawn("slim-resnet18", initial="uniform-by-rows"):
        bound = (layer.weight[0].numel() / (layer.kernel_size[0] if isinstance(layer, nn.Conv2d) else 1)) ** -0.5
        largest = float(layer.weight.detach().abs().max())
        assert 0.99 * bound < largest <= bound
        assert float(layer.weight.detach().std()) == pytest.approx(bound / 3**0.5, rel=0.05)
        if layer.bias is not None:
            assert 0 < float(layer.bias.detach().abs().max()) <= bound


def test_each_batch_normalization_has_the_eps_that_was_asked_for():
    for asked, options in ((1e-5, {}), (1e-3, {"eps": 1e-3})):
        found = {
            layer.eps for layer in built("slim-resnet18", **options).modules() if isinstance(layer, nn.BatchNorm2d)
        }
        assert found == {asked}


def test_initial_weights_of_a_truncated_normal():
    for layer in drawn("paper-cnn", initial="truncated-normal"):
        assert 0.18 < float(layer.weight.detach().abs().max()) <= 0.2
        # A normal of deviation 0.1 that is cut at twice that.
        assert float(layer.weight.detach().std()) == pytest.approx(0.088, rel=0.05)
        assert torch.equal(layer.bias, torch.full_like(layer.bias, 0.1))


@pytest.mark.parametrize("name", ["paper-cnn", "slim-resnet18"])
def test_initial_weights_are_pytorchs_if_nothing_is_said(name):
    for ours, theirs in zip(built(name).parameters(), built(name, initial="torch").parameters(), strict=True):
        assert torch.equal(ours, theirs)
    for layer in drawn(name):
        assert float(layer.weight.detach().abs().max()) <= layer.weight[0].numel() ** -0.5


def test_what_else_is_refused():
    with pytest.raises(ValueError, match=r"initial='truncated' \(did you mean 'truncated-normal'\?\): choose one of"):
        resnet18(IMAGE, 10, width=2, initial="truncated")
    with pytest.raises(ValueError, match=r"channels=\(32,\): expected two or more convolutions"):
        paper_cnn(IMAGE, 10, channels=(32,))
    with pytest.raises(ValueError, match=r"mean=\(0.5,\): expected a number for each of 3 channels, or none"):
        paper_cnn(IMAGE, 10, mean=(0.5,))
    with pytest.raises(ValueError, match=r"takes images .* of at least 4×4"):
        paper_cnn((3, 3, 8), 10)
    with pytest.raises(ValueError, match=r"input_shape=\(3, 32, 32\): text-mlp takes token ids"):
        text_mlp(IMAGE, 10)
    with pytest.raises(
        ValueError, match=r"input_shape=\(\): mlp takes inputs that are one array each, such as \(64,\)"
    ):
        mlp((), 10)
    with pytest.raises(ValueError, match="n_classes=-1: expected at least 1, or 0 for features"):
        mlp((4,), -1)
    with pytest.raises(ValueError, match=r"token ids go from 1 to 50, .* \(ids 0 to 49\): give text-mlp vocabulary=51"):
        built("text-mlp")(torch.tensor([[1, 50]]))
    with pytest.raises(ValueError, match=r"inputs of torch.float32: text-mlp takes token ids, whole numbers"):
        built("text-mlp")(torch.rand(2, 9))


def test_building_draws_as_layer_by_layer():
    torch.manual_seed(3)
    network = build_model("mlp", (6,), 4, hidden=(5,))
    torch.manual_seed(3)
    by_hand = nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 4))
    x = torch.randn(2, 6)
    assert torch.equal(network(x), by_hand(x))
