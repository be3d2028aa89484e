"""rl-tools checkpoints: the published policy reproduces its example, and other files are refused with a reason."""

from __future__ import annotations

import importlib.util
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

from raptor.core.errors import UserError
from raptor.formats import CARD_FIELDS, load_expert, load_policy, rl_tools
from raptor.nn import RaptorPolicy

PUBLISHED = Path(importlib.util.find_spec("foundation_policy").origin).parent / "blob" / "checkpoint.h5"


@pytest.fixture
def copy(tmp_path):
    """A copy of the published checkpoint, to be damaged."""
    return Path(shutil.copy(PUBLISHED, tmp_path / "checkpoint.h5"))


def example():
    with h5py.File(PUBLISHED) as file:
        return torch.from_numpy(file["example/input"][()]), torch.from_numpy(file["example/output"][()])


def write_rl_tools(path, policy, bias_rows=True):
    """Write a policy as rl-tools does, without an example."""
    p = {name: tensor.detach().numpy() for name, tensor in policy.state_dict().items()}

    def row(bias):
        return bias[None] if bias_rows else bias

    with h5py.File(path, "w") as file:
        file.create_group("actor").attrs["type"] = "sequential"
        for index, (kind, activation, weights) in enumerate(
            [
                ("dense", "RELU", {"weights": p["input_layer.weight"], "biases": row(p["input_layer.bias"])}),
                (
                    "gru",
                    None,
                    {
                        "weights_input": p["gru.weight_ih_l0"],
                        "weights_hidden": p["gru.weight_hh_l0"],
                        "biases_input": p["gru.bias_ih_l0"],
                        "biases_hidden": p["gru.bias_hh_l0"],
                        "initial_hidden_state": p["initial_hidden"],
                    },
                ),
                ("dense", "IDENTITY", {"weights": p["output_layer.weight"], "biases": row(p["output_layer.bias"])}),
            ]
        ):
            layer = file.create_group(f"actor/layers/{index}")
            layer.attrs["type"] = kind
            if activation:
                layer.attrs["activation_function"] = activation
            for name, array in weights.items():
                layer[f"{name}/parameters"] = array


def refused(path, match):
    with pytest.raises(UserError, match=match) as error:
        load_policy(path)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


def test_the_published_policy_reproduces_its_example_step_by_step():
    policy = load_policy("published")
    observations, expected = example()
    actions = torch.stack([policy.evaluate_step(observation) for observation in observations])
    assert (actions - expected).abs().max() < 1e-6


def test_the_published_policy_reproduces_its_example_as_a_sequence():
    observations, expected = example()
    actions, _ = load_policy("published").forward_sequence(observations)
    assert (actions - expected).abs().max() < 1e-6


def test_the_published_policy_has_2084_parameters_and_a_card():
    policy = load_policy("published")
    assert policy.num_parameters == 2084
    assert (policy.observation_dim, policy.hidden_dim, policy.action_dim) == (22, 16, 4)
    assert all(policy.card[field] for field in CARD_FIELDS)
    assert "2025-04-19_16-16-17" in policy.card["checkpoint_name"]


def test_the_published_policy_is_found_without_running_its_package():
    program = """
import sys, raptor.formats
assert not {"h5py", "onnxruntime", "onnx"} & set(sys.modules), "imported before a file of that kind is read"
raptor.formats.load_policy("published")
assert "foundation_policy" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", program], check=True)


def test_the_file_and_the_name_give_the_same_policy(copy):
    for ours, theirs in zip(load_policy(copy).parameters(), load_policy("published").parameters(), strict=True):
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize("bias_rows", [True, False])
def test_sizes_are_read_from_the_file_and_biases_may_be_rows_or_plain(tmp_path, generator, bias_rows):
    policy = RaptorPolicy(observation_dim=26, hidden_dim=8, action_dim=3)
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
    write_rl_tools(tmp_path / "policy.h5", policy, bias_rows)
    loaded = load_policy(tmp_path / "policy.h5")
    assert (loaded.observation_dim, loaded.hidden_dim, loaded.action_dim) == (26, 8, 3)
    observations = torch.randn(5, 2, 26, generator=generator)
    assert torch.equal(loaded.forward_sequence(observations)[0], policy.forward_sequence(observations)[0])


def test_attributes_may_be_bytes(copy):
    with h5py.File(copy, "r+") as file:
        file["actor"].attrs["type"] = np.bytes_("sequential")
        file["actor/layers/0"].attrs["activation_function"] = np.bytes_("RELU")
    assert load_policy(copy).num_parameters == 2084


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.9])
def test_a_truncated_file_is_refused(copy, share):
    content = copy.read_bytes()
    copy.write_bytes(content[: int(share * len(content))])
    refused(copy, "truncated, damaged or no HDF5 file")


def test_a_file_of_another_kind_is_refused(tmp_path):
    (tmp_path / "notes.h5").write_text("no HDF5 at all")
    refused(tmp_path / "notes.h5", "truncated, damaged or no HDF5 file")


@pytest.mark.parametrize(
    "group", ["actor", "actor/layers", "actor/layers/1/weights_hidden", "actor/layers/2/biases/parameters"]
)
def test_a_missing_group_is_named(copy, group):
    with h5py.File(copy, "r+") as file:
        del file[group]
    refused(copy, f"{group}.* is missing")


@pytest.mark.parametrize(
    ("layer", "attribute", "value", "found"),
    [
        ("0", "activation_function", "TANH", "dense TANH, gru, dense IDENTITY"),
        ("2", "activation_function", "FAST_TANH", "dense RELU, gru, dense FAST_TANH"),
        ("1", "type", "dense", "dense RELU, dense, dense IDENTITY"),
    ],
)
def test_another_activation_or_layer_is_refused(copy, layer, attribute, value, found):
    with h5py.File(copy, "r+") as file:
        file[f"actor/layers/{layer}"].attrs[attribute] = value
    refused(copy, f"another architecture: its layers are {found}, a policy's are dense RELU, gru, dense IDENTITY")


def test_another_number_of_layers_is_refused(copy):
    with h5py.File(copy, "r+") as file:
        file.copy("actor/layers/2", "actor/layers/3")
    refused(copy, "its layers are dense RELU, gru, dense IDENTITY, dense IDENTITY")
    with h5py.File(copy, "r+") as file:
        del file["actor/layers/3"], file["actor/layers/1"]
    refused(copy, "its layers are dense RELU, dense IDENTITY")


def test_an_actor_that_is_no_sequence_of_layers_is_refused(copy):
    with h5py.File(copy, "r+") as file:
        file["actor"].attrs["type"] = "mlp"
    refused(copy, "its actor is mlp")


@pytest.mark.parametrize(
    ("weight", "shape", "expected"),
    [
        ("0/biases", (1, 15), r"\(16,\), got shape \(15,\)"),
        ("0/biases", (16, 1), r"\(16,\), got shape \(16, 1\)"),
        ("1/weights_input", (16, 48), r"\(48, 16\), got shape \(16, 48\)"),
        ("1/weights_hidden", (48, 17), r"\(48, 16\), got shape \(48, 17\)"),
        ("1/biases_hidden", (16,), r"\(48,\), got shape \(16,\)"),
        ("1/initial_hidden_state", (1, 16), r"\(16,\), got shape \(1, 16\)"),
        ("2/weights", (4, 17), r"\(4, 16\), got shape \(4, 17\)"),
    ],
)
def test_a_wrong_shape_is_named_by_its_path_in_the_file(copy, weight, shape, expected):
    with h5py.File(copy, "r+") as file:
        del file[f"actor/layers/{weight}/parameters"]
        file[f"actor/layers/{weight}/parameters"] = np.zeros(shape, np.float32)
    refused(copy, f"actor/layers/{weight}/parameters must be a tensor of shape {expected}")


def test_weights_that_are_no_matrix_or_no_numbers_are_refused(copy):
    with h5py.File(copy, "r+") as file:
        del file["actor/layers/0/weights/parameters"]
        file["actor/layers/0/weights/parameters"] = np.zeros(352, np.float32)
    refused(copy, r"actor/layers/0/weights/parameters must be a matrix, got shape \(352,\)")
    with h5py.File(copy, "r+") as file:
        del file["actor/layers/0/weights/parameters"]
        file["actor/layers/0/weights/parameters"] = "text"
    refused(copy, "actor/layers/0/weights/parameters must be an array of floating-point numbers")
    with h5py.File(copy, "r+") as file:
        del file["actor/layers/0/weights/parameters"]
        file.create_group("actor/layers/0/weights/parameters")
    refused(copy, "actor/layers/0/weights/parameters must be an array of floating-point numbers")


def test_an_array_too_large_for_any_policy_is_not_even_read(copy):
    with h5py.File(copy, "r+") as file:
        del file["actor/layers/0/weights/parameters"]
        file.create_dataset("actor/layers/0/weights/parameters", (10**6, 10**6), np.float32, chunks=(1000, 1000))
    refused(copy, "was refused: its [0-9]+ bytes unpack to 4000000")


def replaced(file, name, link):
    del file[name]
    file[name] = link


@pytest.mark.parametrize("reader", [load_policy, load_expert])
def test_a_file_that_reads_from_other_files_is_refused(copy, tmp_path, reader):
    name, other = "actor/layers/0/weights/parameters", tmp_path / "other.h5"
    shutil.copy(copy, other)
    numbers = tmp_path / "numbers"
    numbers.write_bytes(bytes(4 * 16 * 22))
    layout = h5py.VirtualLayout((16, 22), np.float32)
    layout[:] = h5py.VirtualSource(other, name, (16, 22))
    for change in (
        lambda file: replaced(file, name, h5py.ExternalLink(other, name)),
        lambda file: file.create_dataset("extra", (16, 22), np.float32, external=[(numbers, 0, h5py.h5f.UNLIMITED)]),
        lambda file: file.create_virtual_dataset("virtual", layout),
    ):
        shutil.copy(other, copy)
        with h5py.File(copy, "r+") as file:
            change(file)
        with pytest.raises(UserError, match=r"was refused: its \S+ lies in another file; give a file that is complete"):
            reader(copy)
    shutil.copy(other, copy)
    with h5py.File(copy, "r+") as file:
        file["copied"] = file[name]
        replaced(file, name, h5py.SoftLink("/copied"))
    assert load_policy(copy).num_parameters == 2084


@pytest.mark.parametrize("reader", [load_policy, load_expert])
def test_an_array_that_is_only_declared_takes_no_memory(tmp_path, reader):
    path = tmp_path / "policy.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset("actor/layers/0/weights/parameters", (8192, 8192), np.float32, chunks=(1024, 1024))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(UserError, match=r"was refused: its [0-9]+ bytes unpack to 268435456, which is more than"):
        reader(path)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50 * 1024, "KiB of memory taken"


def test_a_weight_that_no_network_has_is_named(copy):
    with h5py.File(copy, "r+") as file:
        file["actor/layers/1/weights_hidden/parameters"][40, 3] = 3e38
    refused(copy, r"weights_hidden/parameters\[40, 3\] must be at most 1e\+09 in magnitude, got 3")


def test_control_bytes_of_a_checkpoint_are_shown_as_escapes(copy):
    with h5py.File(copy, "r+") as file:
        file["actor"].attrs["checkpoint_name"] = "quiet\x1b[2J"
    assert load_policy(copy).card["checkpoint_name"] == r"quiet\x1b[2J"
    with h5py.File(copy, "r+") as file:
        file["actor"].attrs["type"] = "mlp\x1b[2J"
    refused(copy, r"its actor is mlp\\x1b\[2J")


def test_a_weight_that_is_not_finite_is_named(copy):
    with h5py.File(copy, "r+") as file:
        file["actor/layers/1/weights_hidden/parameters"][40, 3] = np.nan
    refused(copy, r"actor/layers/1/weights_hidden/parameters\[40, 3\] must be finite, got nan")


def test_a_file_that_does_not_reproduce_its_example_is_refused(copy):
    with h5py.File(copy, "r+") as file:
        file["actor/layers/1/weights_hidden/parameters"][40, 3] += 0.1
    refused(copy, "does not reproduce its own example")


def test_an_example_of_another_shape_is_refused_and_none_is_needed(copy):
    with h5py.File(copy, "r+") as file:
        output = file["example/output"][:, :1]
        del file["example/output"]
        file["example/output"] = output
    refused(copy, r"example must be \(time, batch, 22\)")
    with h5py.File(copy, "r+") as file:
        del file["example"]
    assert load_policy(copy).num_parameters == 2084


def contents(path):
    """Attributes and numbers of everything in a file, by name."""
    found = {}
    with h5py.File(path) as file:
        file.visititems(lambda name, item: found.update({name: dict(item.attrs)}))
        file.visititems(
            lambda name, item: found.update({f"{name} numbers": item[()]}) if hasattr(item, "dtype") else None
        )
    return found


def test_the_published_policy_is_written_as_it_was_published(tmp_path):
    rl_tools.write_rl_tools(load_policy("published"), tmp_path / "policy.h5", "logs/2025-04-19_16-16-17")
    ours, theirs = contents(tmp_path / "policy.h5"), contents(PUBLISHED)
    assert ours.keys() == theirs.keys()
    for name, wanted in theirs.items():
        if name == "actor":
            assert ours[name].pop("meta").replace(" ", "") == wanted.pop("meta").replace(" ", "")
        if name not in ("example/input numbers", "example/output numbers"):
            assert np.array_equal(ours[name], wanted) if name.endswith("numbers") else ours[name] == wanted


@pytest.mark.parametrize("name", ["published", "default", "large"])
def test_foundation_policy_loads_what_is_written(tmp_path, name):
    import foundation_policy

    policy = load_policy(name)
    rl_tools.write_rl_tools(policy, tmp_path / "policy.h5")
    read, theirs = load_policy(tmp_path / "policy.h5"), foundation_policy.load(tmp_path / "policy.h5")
    assert all(
        torch.equal(*pair) for pair in zip(read.state_dict().values(), policy.state_dict().values(), strict=True)
    )
    theirs.reset()
    observation = torch.linspace(-0.5, 0.5, policy.observation_dim)[None]
    for _ in range(5):
        np.testing.assert_allclose(
            theirs.evaluate_step(observation.numpy()), policy.evaluate_step(observation), atol=2e-6
        )
