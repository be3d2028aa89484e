"""Policy files of this package: what is saved comes back, and nothing else gets in."""

from __future__ import annotations

import os
import pickle
import zipfile

import numpy as np
import pytest
import torch

from raptor.core.errors import UserError
from raptor.formats import format_card, load_policy, read_checkpoint, save_policy
from raptor.formats.checkpoint import assemble
from raptor.nn import MLPPolicy, RaptorPolicy


class Bomb:
    """Runs a command when it is unpickled."""

    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return os.system, (f"touch {self.marker}",)


def document_of(policy, **changes):
    document = {
        "format": "raptor-policy",
        "version": 1,
        "architecture": {"observation_dim": 22, "hidden_dim": 16, "action_dim": 4},
        "weights": dict(policy.state_dict()),
        "card": {},
    }
    return {key: value for key, value in (document | changes).items() if value is not None}


def refused(document, path, match):
    torch.save(document, path)
    with pytest.raises(UserError, match=match) as error:
        load_policy(path)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("hidden_dim", [16, 64])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_what_is_saved_comes_back(make_policy, generator, tmp_path, hidden_dim, dtype):
    policy = make_policy(hidden_dim, dtype)
    path = tmp_path / "new" / "folder" / "policy.pt"
    save_policy(policy, path, {"what": "a test", "results": {"return": 650.5, "intervals": [1, 2.5, None, True]}})
    loaded = load_policy(path)
    assert loaded.card == {"what": "a test", "results": {"return": 650.5, "intervals": [1, 2.5, None, True]}}
    assert loaded.state_dict().keys() == policy.state_dict().keys()
    for name, weight in policy.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], weight)
        assert loaded.state_dict()[name].dtype == dtype
    observations = torch.randn(20, 3, 22, generator=generator, dtype=dtype)
    for ours, theirs in zip(loaded.forward_sequence(observations), policy.forward_sequence(observations), strict=True):
        assert torch.equal(ours, theirs)
    assert os.listdir(path.parent) == ["policy.pt"]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_memoryless_policy_comes_back_as_one(make_mlp, generator, tmp_path, dtype):
    policy = make_mlp(hidden_dim=8, dtype=dtype)
    save_policy(policy, tmp_path / "policy.pt", {"what": policy.summary})
    loaded = load_policy(tmp_path / "policy.pt")
    assert isinstance(loaded, MLPPolicy)
    assert loaded.card == {"what": policy.summary}
    observation = torch.randn(5, 22, generator=generator, dtype=dtype)
    assert torch.equal(loaded(observation)[0], policy(observation)[0])
    assert all(parameter.requires_grad for parameter in loaded.parameters())


def test_the_kind_of_a_recurrent_policy_goes_without_saying_and_may_be_said(policy, make_mlp, tmp_path):
    path = tmp_path / "policy.pt"
    save_policy(policy, path, {})
    assert read_checkpoint(path)["architecture"] == {"observation_dim": 22, "hidden_dim": 16, "action_dim": 4}
    torch.save(document_of(policy, architecture=read_checkpoint(path)["architecture"] | {"kind": "gru"}), path)
    assert torch.equal(load_policy(path).gru.weight_ih_l0, policy.gru.weight_ih_l0)
    save_policy(make_mlp(), path, {})
    assert read_checkpoint(path)["architecture"]["kind"] == "mlp"


@pytest.mark.parametrize("kind", ["lstm", None, ["mlp"]])
def test_a_policy_of_an_unknown_kind_is_refused(policy, tmp_path, kind):
    architecture = {"kind": kind, "observation_dim": 22, "hidden_dim": 16, "action_dim": 4}
    refused(document_of(policy, architecture=architecture), tmp_path / "a.pt", "kind must be gru or mlp, got")


def test_a_loaded_policy_can_be_trained_except_for_its_initial_hidden_state(policy, tmp_path):
    save_policy(policy, tmp_path / "policy.pt", {})
    loaded = load_policy(tmp_path / "policy.pt")
    assert {name for name, p in loaded.named_parameters() if not p.requires_grad} == {"initial_hidden"}
    loaded(torch.ones(3, 22))[0].sum().backward()
    assert loaded.gru.weight_hh_l0.grad.any()


def test_loading_and_saving_draw_no_random_numbers(policy, tmp_path):
    before = torch.get_rng_state()
    save_policy(policy, tmp_path / "policy.pt", {})
    load_policy(tmp_path / "policy.pt")
    assert torch.equal(torch.get_rng_state(), before)


def test_the_training_state_travels_with_the_policy(policy, tmp_path):
    training = {"update": 7, "optimizer": {"state": {0: {"exp_avg": torch.ones(3)}}, "groups": [{"lr": 1e-3}]}}
    save_policy(policy, tmp_path / "update_7.pt", {}, training=training)
    document = read_checkpoint(tmp_path / "update_7.pt")
    assert document["training"]["update"] == 7
    assert document["training"]["optimizer"]["groups"] == [{"lr": 1e-3}]
    assert torch.equal(document["training"]["optimizer"]["state"][0]["exp_avg"], torch.ones(3))
    assert torch.equal(load_policy(tmp_path / "update_7.pt").gru.weight_ih_l0, policy.gru.weight_ih_l0)
    save_policy(policy, tmp_path / "policy.pt", {})
    assert "training" not in read_checkpoint(tmp_path / "policy.pt")


def test_numbers_of_numpy_and_torch_in_a_card_become_plain_ones(policy, tmp_path):
    save_policy(policy, tmp_path / "policy.pt", {"a": np.float32(0.5), "b": torch.tensor([1, 2]), "c": (np.int64(3),)})
    assert load_policy(tmp_path / "policy.pt").card == {"a": 0.5, "b": [1, 2], "c": [3]}


def test_a_card_of_other_things_is_refused_before_anything_is_written(policy, tmp_path):
    with pytest.raises(
        UserError, match=r"card\.made\.by\[1\] must be text.*PosixPath|card\.made\.by\[1\].*WindowsPath"
    ):
        save_policy(policy, tmp_path / "policy.pt", {"made": {"by": ["a", tmp_path]}})
    assert not list(tmp_path.iterdir())


def test_a_policy_that_is_not_finite_is_not_saved(policy, tmp_path):
    save_policy(policy, tmp_path / "policy.pt", {})
    before = (tmp_path / "policy.pt").read_bytes()
    with torch.no_grad():
        policy.gru.weight_hh_l0[3, 5] = torch.nan
    with pytest.raises(UserError, match=r"gru\.weight_hh_l0\[3, 5\] must be finite, got nan"):
        save_policy(policy, tmp_path / "policy.pt", {})
    assert (tmp_path / "policy.pt").read_bytes() == before


def test_only_names_that_can_be_loaded_again_are_written(policy, tmp_path):
    with pytest.raises(UserError, match=r"ends in \.pt, got .*policy\.onnx"):
        save_policy(policy, tmp_path / "policy.onnx", {})
    with pytest.raises(UserError, match="can only hold a RaptorPolicy or an MLPPolicy, got a Linear"):
        save_policy(torch.nn.Linear(2, 2), tmp_path / "policy.pt", {})


def test_a_path_that_no_file_can_have_is_a_sentence(policy, tmp_path):
    for name in ("nul\0byte.pt", "nul\0byte/policy.pt", "a" * 5000 + ".pt"):
        with pytest.raises(UserError, match="cannot write"):
            save_policy(policy, tmp_path / name, {})


def test_a_full_disk_leaves_the_old_file_as_it_was(policy, make_policy, tmp_path):
    resource = pytest.importorskip("resource")
    path = tmp_path / "policy.pt"
    save_policy(policy, path, {})
    before = path.read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))  # a file cannot grow beyond: the write itself fails
    try:
        with pytest.raises(UserError, match=r"cannot write .*policy\.pt: "):
            save_policy(make_policy(seed=1), path, {})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["policy.pt"]


def test_an_old_file_is_replaced_at_once_and_never_written_into(policy, make_policy, tmp_path):
    path, held = tmp_path / "policy.pt", tmp_path / "held.pt"
    save_policy(policy, path, {})
    os.link(path, held)  # whoever has the old file open keeps on reading the old one
    before = held.read_bytes()
    save_policy(make_policy(seed=1), path, {})
    assert held.read_bytes() == before
    assert path.read_bytes() != before


def test_a_folder_in_the_place_of_the_file_is_left_alone(policy, tmp_path):
    (tmp_path / "policy.pt").mkdir()
    with pytest.raises(UserError, match=r"cannot write .*policy\.pt: "):
        save_policy(policy, tmp_path / "policy.pt", {})
    assert os.listdir(tmp_path) == ["policy.pt"]


def test_a_file_in_the_place_of_the_folder_is_left_alone(policy, tmp_path):
    (tmp_path / "folder").write_text("mine")
    with pytest.raises(UserError, match="cannot write"):
        save_policy(policy, tmp_path / "folder" / "policy.pt", {})
    assert (tmp_path / "folder").read_text() == "mine"


def test_code_in_a_file_is_refused_and_not_run(policy, tmp_path):
    marker = tmp_path / "ran"
    torch.save(document_of(policy, card={"a": Bomb(marker)}), tmp_path / "zip.pt")
    with pytest.raises(UserError, match=r"was refused and not executed: .* it holds [a-z]+\.system; give"):
        load_policy(tmp_path / "zip.pt")
    (tmp_path / "raw.pt").write_bytes(pickle.dumps(Bomb(marker)))
    with pytest.raises(UserError, match="was refused and not executed: it is a pickle, which can hold code"):
        load_policy(tmp_path / "raw.pt")
    torch.save(Bomb(marker), tmp_path / "legacy.pt", _use_new_zipfile_serialization=False)
    with pytest.raises(UserError, match=r"was refused and not executed: it has torch's file format before 1\.6"):
        load_policy(tmp_path / "legacy.pt")
    assert not marker.exists()
    torch.load(tmp_path / "zip.pt", weights_only=False)
    assert marker.exists(), "the bomb is live, or the test proves nothing"


@pytest.mark.parametrize("share", [0.0, 0.3, 0.9, 0.999])
def test_a_truncated_file_is_refused(policy, tmp_path, share):
    path = tmp_path / "policy.pt"
    save_policy(policy, path, {})
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(
        UserError, match=r"policy\.pt is damaged, truncated, or of another kind: give a file that save_policy wrote"
    ):
        load_policy(path)


def test_a_file_with_a_flipped_bit_in_its_weights_is_refused(policy, tmp_path):
    path = tmp_path / "policy.pt"
    save_policy(policy, path, {})
    content = bytearray(path.read_bytes())
    content[content.index(policy.output_layer.weight.detach().numpy().tobytes()) + 5] ^= 1
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"policy\.pt is damaged: the checksum of .* is wrong"):
        load_policy(path)


def test_an_archive_of_another_kind_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "archive.pt", "w") as archive:
        archive.writestr("hello.txt", "hello")
    with pytest.raises(UserError, match=r"archive\.pt is damaged or no file of torch"):
        load_policy(tmp_path / "archive.pt")


def test_a_torch_file_of_another_kind_is_refused(policy, tmp_path):
    refused(policy.state_dict(), tmp_path / "a.pt", "holds no policy of this package")
    refused([1, 2], tmp_path / "b.pt", "holds a list instead of named weights: give a file that save_policy wrote")
    refused(document_of(policy, version=2), tmp_path / "c.pt", "version 2 of the policy format, this package reads 1")
    refused(document_of(policy, card=None), tmp_path / "d.pt", "lacks the group card")
    refused(document_of(policy, weights=[1]), tmp_path / "e.pt", "lacks the group weights")


@pytest.mark.parametrize("size", [0, -1, 2.0, True, "16", None, 10**12])
def test_an_impossible_architecture_is_refused(policy, tmp_path, size):
    architecture = {"observation_dim": 22, "hidden_dim": size, "action_dim": 4}
    refused(document_of(policy, architecture=architecture), tmp_path / "a.pt", "hidden_dim must be a whole number")


def test_weights_of_another_architecture_are_refused(policy, make_policy, tmp_path):
    weights = dict(policy.state_dict())
    path = tmp_path / "a.pt"
    wide = dict(make_policy(hidden_dim=64).state_dict())
    refused(document_of(policy, weights=wide), path, r"must be a tensor of shape \(16,\), got shape \(64,\)")
    lacking = {key: value for key, value in weights.items() if key != "gru.bias_hh_l0"}
    refused(document_of(policy, weights=lacking), path, r"lacks the weight gru\.bias_hh_l0")
    refused(document_of(policy, weights=weights | {"extra": torch.ones(1)}), path, "has no weight extra")
    refused(document_of(policy, weights=weights | {"initial_hidden": [0.0] * 16}), path, r"got list")
    half = {key: value.half() for key, value in weights.items()}
    refused(document_of(policy, weights=half), path, r"must all be torch\.float32.*got torch\.float16")
    mixed = weights | {"initial_hidden": torch.zeros(16, dtype=torch.float64)}
    refused(document_of(policy, weights=mixed), path, r"got torch\.float32, torch\.float64")
    dense = {"kind": "mlp", "observation_dim": 22, "hidden_dim": 16, "action_dim": 4}
    refused(document_of(policy, architecture=dense), path, "MLPPolicy has no weight initial_hidden")
    sparse = weights | {"output_layer.weight": weights["output_layer.weight"].to_sparse()}
    refused(document_of(policy, weights=sparse), path, "beside dense tensors and plain data it holds .*layout")


@pytest.mark.parametrize(
    ("value", "must"),
    [("nan", "be finite"), ("inf", "be finite"), ("-inf", "be finite"), ("3e\\+38", r"be at most 1e\+09 in magnitude")],
)
def test_weights_that_no_network_has_are_neither_read_nor_saved(policy, tmp_path, value, must):
    weights = {key: tensor.clone() for key, tensor in policy.state_dict().items()}
    weights["output_layer.bias"][2] = float(value.replace("\\", ""))
    match = rf"output_layer\.bias\[2\] must {must}, got {value[:1]}"
    refused(document_of(policy, weights=weights), tmp_path / "a.pt", match)
    policy.load_state_dict(weights)
    with pytest.raises(UserError, match=match):
        save_policy(policy, tmp_path / "b.pt", {})
    assert not (tmp_path / "b.pt").exists()


@pytest.mark.parametrize("prefix", ["_orig_mod.", "module.", "module._orig_mod."])
def test_the_weights_of_a_compiled_or_distributed_policy_are_those_of_the_policy(policy, tmp_path, prefix):
    weights = policy.state_dict()
    torch.save(document_of(policy, weights={prefix + key: weights[key] for key in weights}), tmp_path / "a.pt")
    assert torch.equal(load_policy(tmp_path / "a.pt").gru.weight_ih_l0, policy.gru.weight_ih_l0)
    twice = {prefix + key: weights[key] for key in weights} | dict(weights)
    refused(document_of(policy, weights=twice), tmp_path / "a.pt", "holds a weight twice")


def test_a_small_file_of_huge_weights_is_refused_before_anything_is_copied(policy, tmp_path):
    """Weights of stride 0, which would take 51 GB."""
    size = 65536
    architecture = {"observation_dim": 22, "hidden_dim": size, "action_dim": 4}
    shapes = {
        "input_layer.weight": (size, 22),
        "gru.weight_ih_l0": (3 * size, size),
        "gru.weight_hh_l0": (3 * size, size),
    }
    weights = dict(policy.state_dict()) | {key: torch.zeros(1).expand(shape) for key, shape in shapes.items()}
    document = document_of(policy, architecture=architecture, weights=weights)
    refused(document, tmp_path / "a.pt", r"of a tensor of shape .* it stores 1 numbers")
    assert (tmp_path / "a.pt").stat().st_size < 20_000


def cycle():
    card = {}
    card["again"] = [card]
    return card


@pytest.mark.parametrize(
    ("card", "match"),
    [
        (cycle(), "card.again.* is nested in itself"),
        ({"what": {"weights": torch.ones(3)}}, r"card\.what\.weights must be text, .* got Tensor"),
        ({"results": {3: 1.0}}, r"card\.results must have keys of text, got 3"),
        ({"what": "\ud83d"}, r"card\.what holds text that is no Unicode"),
        ({"what": 10**70}, r"card\.what must be .* got int"),
    ],
)
def test_a_card_that_cannot_be_shown_is_refused_in_a_sentence(policy, tmp_path, card, match):
    refused(document_of(policy, card=card), tmp_path / "a.pt", match)


def test_control_bytes_in_a_file_are_shown_as_escapes(policy, tmp_path):
    path = tmp_path / "a.pt"
    torch.save(document_of(policy, card={"what": "quiet\x1b]0;title\x07", "a\x1bb": {"c": "\x9b31m"}}), path)
    card = load_policy(path).card
    assert card == {"what": r"quiet\x1b]0;title\x07", r"a\x1bb": {"c": r"\x9b31m"}}
    assert format_card({"what": "\x1b[2J", "\x07": 1}) == "what  \\x1b[2J\n\\x07     1"
    weights = dict(policy.state_dict()) | {"\x1b[2J": torch.ones(1)}
    refused(document_of(policy, weights=weights), path, r"has no weight \\x1b\[2J")
    refused(document_of(policy, version="\x1b[2J"), path, r"has version '\\x1b\[2J'")


def test_a_policy_does_not_share_memory_with_the_weights_it_was_made_of(policy):
    architecture = {"observation_dim": 22, "hidden_dim": 16, "action_dim": 4}
    weights = dict(policy.state_dict())
    copy = assemble(architecture, weights, "memory")
    assert isinstance(copy, RaptorPolicy)
    weights["output_layer.bias"].fill_(7.0)
    assert not (copy.output_layer.bias == 7.0).any()
