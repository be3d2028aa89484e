"""ONNX: what is exported flies like the original, says what it is, and anything else is refused."""

from __future__ import annotations

import os

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper

from raptor.core.errors import UserError
from raptor.export import FORMATS, ExportError, export_onnx, export_policy, verify
from raptor.export import onnx as onnx_export
from raptor.formats import POLICY_NAMES, OnnxPolicy, load_policy, policy_card, save_policy
from raptor.nn import MLPPolicy, RaptorPolicy


def random_policy(hidden_dim=16, seed=0, network=RaptorPolicy):
    policy = network(hidden_dim=hidden_dim)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.4)
    policy.card = {"what": "a test", "results": {"return": 650.5}}
    return policy


@pytest.fixture(scope="module")
def policy():
    return random_policy()


@pytest.fixture(scope="module")
def exported(policy, tmp_path_factory):
    path = tmp_path_factory.mktemp("export") / "policy.onnx"
    export_onnx(policy, path)
    return path


def beside(policy, path):
    """The largest error of a file."""
    return verify(policy, OnnxPolicy(path), path)


def broken(exported, path, damage):
    """A copy of the exported model, damaged."""
    model = onnx.load(exported)
    damage(model)
    onnx.save(model, path)
    return path


def refused(path, match):
    with pytest.raises(UserError, match=match) as error:
        load_policy(path)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("batch_size", [1, 7, 500])
def test_the_exported_policy_flies_like_the_original_for_500_steps(policy, exported, generator, batch_size):
    session = onnxruntime.InferenceSession(exported)
    hidden = policy.initial_hidden_state(batch_size)
    theirs = hidden.numpy().copy()
    for _ in range(500):
        observation = torch.randn(batch_size, 22, generator=generator)
        with torch.no_grad():
            action, hidden = policy(observation, hidden)
        their_action, theirs = session.run(
            ["action", "next_hidden"], {"observation": observation.numpy(), "hidden": theirs}
        )
        assert np.abs(their_action - action.numpy()).max() < 2e-5
        assert np.abs(theirs - hidden.numpy()).max() < 2e-5


def test_the_model_is_valid_and_names_its_inputs_and_outputs(exported):
    model = onnx.load(exported)
    onnx.checker.check_model(model, full_check=True)
    shapes = {
        port.name: [d.dim_param or d.dim_value for d in port.type.tensor_type.shape.dim]
        for port in (*model.graph.input, *model.graph.output)
    }
    assert shapes == {
        "observation": ["batch", 22],
        "hidden": ["batch", 16],
        "action": ["batch", 4],
        "next_hidden": ["batch", 16],
    }


def test_the_model_tells_nothing_of_the_machine_it_was_made_on(exported):
    content = exported.read_bytes()
    assert b"raptor/" not in content
    assert b"site-packages" not in content


def test_the_card_and_the_initial_hidden_state_travel_with_the_model(policy, exported):
    loaded = load_policy(exported)
    assert isinstance(loaded, OnnxPolicy)
    assert (loaded.observation_dim, loaded.hidden_dim, loaded.action_dim) == (22, 16, 4)
    assert torch.equal(loaded.initial_hidden_state(3, 2), policy.initial_hidden_state(3, 2))
    assert policy_card(exported) == policy.card


def test_exporting_returns_the_largest_error_and_leaves_the_policy_and_the_console_alone(tmp_path, capfd):
    policy = random_policy(hidden_dim=64).double()
    policy.evaluate_step(torch.zeros(5, 22, dtype=torch.float64))
    before = {name: tensor.clone() for name, tensor in policy.state_dict().items()}
    error = export_onnx(policy, tmp_path / "policy.onnx")
    assert 0 < error < 2e-5
    assert error == beside(random_policy(hidden_dim=64), tmp_path / "policy.onnx")
    assert os.listdir(tmp_path) == ["policy.onnx"], "the weights are in the file itself"
    assert all(torch.equal(tensor, before[name]) for name, tensor in policy.state_dict().items())
    assert policy.get_hidden_state().shape == (5, 64)
    assert capfd.readouterr() == ("", "")


def test_an_exported_policy_evaluates_like_the_original(policy, exported, generator):
    loaded = load_policy(exported)
    for shape in ((), (5,), (3, 5)):
        observation, hidden = torch.randn(*shape, 22, generator=generator), torch.randn(*shape, 16, generator=generator)
        for arguments in ((observation,), (observation, hidden)):
            for theirs, ours in zip(loaded(*arguments), policy(*arguments), strict=True):
                assert theirs.shape == ours.shape
                assert torch.allclose(theirs, ours, atol=1e-5)
        loaded.reset()
        policy.reset()
        assert loaded.get_hidden_state() is None
        for _ in range(3):
            assert torch.allclose(loaded.evaluate_step(observation), policy.evaluate_step(observation), atol=1e-5)
            assert torch.allclose(loaded.get_hidden_state(), policy.get_hidden_state(), atol=1e-5)
        loaded.set_hidden_state(hidden)
        policy.set_hidden_state(hidden)
        assert torch.allclose(loaded.evaluate_step(observation), policy.evaluate_step(observation), atol=1e-5)


def test_an_exported_policy_answers_in_the_precision_and_layout_it_is_asked_in(policy, exported, generator):
    loaded = load_policy(exported)
    observation = torch.randn(22, 5, generator=generator, dtype=torch.float64).mT.requires_grad_()
    action, hidden = loaded(observation)
    assert action.dtype == hidden.dtype == torch.float64
    assert not action.requires_grad
    assert torch.allclose(action.float(), policy(observation.float())[0], atol=1e-5)


def test_an_exported_policy_refuses_what_does_not_fit(exported):
    loaded = load_policy(exported)
    with pytest.raises(ValueError, match="observes 22 numbers"):
        loaded(torch.zeros(5, 26))
    with pytest.raises(ValueError, match="needs a hidden state"):
        loaded(torch.zeros(5, 22), torch.zeros(4, 16))
    with pytest.raises(ValueError, match="16 numbers"):
        loaded.set_hidden_state(torch.zeros(5, 17))


def test_a_memoryless_policy_is_exported_without_a_hidden_state_and_flies_like_the_original(tmp_path, generator):
    policy, path = random_policy(hidden_dim=8, network=MLPPolicy), tmp_path / "policy.onnx"
    assert 0 < export_onnx(policy, path) < 2e-5
    graph = onnx.load(path).graph
    assert [port.name for port in (*graph.input, *graph.output)] == ["observation", "action"]
    loaded = load_policy(path)
    assert (loaded.observation_dim, loaded.hidden_dim, loaded.action_dim) == (22, 0, 4)
    assert loaded.card == policy.card
    for shape in ((), (5,), (3, 5)):
        observation = torch.randn(*shape, 22, generator=generator)
        action, hidden = loaded(observation, loaded.initial_hidden_state(*shape))
        assert hidden.shape == (*shape, 0)
        torch.testing.assert_close(action, policy(observation)[0], rtol=1e-5, atol=1e-5)
        loaded.reset()
        torch.testing.assert_close(loaded.evaluate_step(observation), action)
        torch.testing.assert_close(loaded.evaluate_step(observation), action)


def test_verification_notices_another_memoryless_policy(tmp_path):
    export_onnx(random_policy(hidden_dim=8, network=MLPPolicy), tmp_path / "policy.onnx")
    with pytest.raises(ExportError, match="after 1 steps"):
        beside(random_policy(hidden_dim=8, seed=1, network=MLPPolicy), tmp_path / "policy.onnx")


def test_a_failed_verification_leaves_nothing_new_and_the_old_file_as_it_was(policy, tmp_path, monkeypatch):
    convert = onnx_export._convert
    monkeypatch.setattr(onnx_export, "_convert", lambda given: convert(random_policy(seed=1)))
    path = tmp_path / "policy.onnx"
    path.write_bytes(b"old")
    with pytest.raises(ExportError, match=r"policy\.onnx differs from the policy by"):
        export_onnx(policy, path)
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["policy.onnx"]


def test_verification_notices_another_policy(exported):
    with pytest.raises(ExportError, match="after 1 steps"):
        beside(random_policy(seed=1), exported)


def test_verification_notices_a_small_error_that_only_memory_builds_up(policy, exported, tmp_path):
    def damage(model):
        for weight in model.graph.initializer:
            if weight.name.endswith("weight_hh_l0"):
                array = onnx.numpy_helper.to_array(weight).copy()
                array[35] *= 1.01
                weight.CopyFrom(onnx.numpy_helper.from_array(array, weight.name))

    path = broken(exported, tmp_path / "policy.onnx", damage)
    with pytest.raises(ExportError):
        beside(policy, path)


def test_a_policy_that_cannot_be_exported_is_refused_before_anything_is_written(policy, exported, tmp_path):
    with pytest.raises(UserError, match="is ONNX already"):
        export_onnx(load_policy(exported), tmp_path / "policy.onnx")
    with pytest.raises(UserError, match=r"ends in \.onnx, got .*policy\.pt"):
        export_onnx(policy, tmp_path / "policy.pt")
    damaged = random_policy()
    with torch.no_grad():
        damaged.output_layer.bias[1] = torch.inf
    with pytest.raises(UserError, match=r"output_layer\.bias\[1\] must be finite, got inf"):
        export_onnx(damaged, tmp_path / "policy.onnx")
    assert not list(tmp_path.iterdir())


def test_an_unknown_format_is_an_error(policy, tmp_path):
    assert list(FORMATS) == ["onnx", "rl-tools", "px4", "c"]
    with pytest.raises(UserError, match=r"unknown export format 'onx', did you mean 'onnx'.*onnx, rl-tools, px4"):
        export_policy(policy, tmp_path / "policy.onnx", "onx")


def test_the_published_policy_goes_from_file_to_file_with_its_card(tmp_path):
    published = load_policy("published")
    save_policy(published, tmp_path / "policy.pt", published.card)
    verified = export_policy(load_policy(tmp_path / "policy.pt"), tmp_path / "policy.onnx", "onnx")
    assert verified.error < 2e-6
    assert verified.by == "onnxruntime"
    assert policy_card(tmp_path / "policy.onnx") == published.card


@pytest.mark.parametrize("share", [0.0, 0.5, 0.99])
def test_a_truncated_model_is_refused(exported, tmp_path, share):
    content = exported.read_bytes()
    path = tmp_path / "policy.onnx"
    path.write_bytes(content[: int(share * len(content))])
    refused(path, "truncated, damaged or no ONNX file|another architecture")


def test_a_file_of_another_kind_is_refused(tmp_path):
    (tmp_path / "policy.onnx").write_text("no ONNX at all")
    refused(tmp_path / "policy.onnx", "truncated, damaged or no ONNX file")


def test_another_model_is_refused(tmp_path):
    ports = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", 3]) for name in ("x", "y")]
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "other", ports[:1], ports[1:])
    path = tmp_path / "other.onnx"
    onnx.save(helper.make_model(graph, ir_version=10, opset_imports=[helper.make_opsetid("", 18)]), path)
    refused(path, "another architecture: it connects x, y, a policy's file connects observation, hidden, action")


def test_a_model_for_a_fixed_batch_is_refused(exported, tmp_path):
    def damage(model):
        for port in (*model.graph.input, *model.graph.output):
            port.type.tensor_type.shape.dim[0].dim_value = 1

    refused(broken(exported, tmp_path / "a.onnx", damage), r"observation must be .*\[1, 22\].*dynamic batch")


def test_a_model_with_weights_that_are_not_finite_is_refused(exported, tmp_path):
    def damage(model):
        for weight in model.graph.initializer:
            array = onnx.numpy_helper.to_array(weight)
            if array.dtype == np.float32:
                weight.CopyFrom(onnx.numpy_helper.from_array(np.full_like(array, np.nan), weight.name))

    refused(broken(exported, tmp_path / "a.onnx", damage), "gives an action that is not finite")


def test_a_model_with_weights_that_no_network_has_is_refused(exported, tmp_path):
    def damage(model):
        for weight in model.graph.initializer:
            if weight.name.endswith("output_layer.weight"):
                array = onnx.numpy_helper.to_array(weight)
                weight.CopyFrom(onnx.numpy_helper.from_array(np.full_like(array, 3e38), weight.name))

    refused(broken(exported, tmp_path / "a.onnx", damage), r"gives an action that is not finite, or above 1e\+09")


def test_a_model_of_an_impossible_width_takes_no_memory(exported, tmp_path):
    def damage(model):
        for port in (model.graph.input[1], model.graph.output[1]):
            port.type.tensor_type.shape.dim[1].dim_value = 10**10

    refused(broken(exported, tmp_path / "a.onnx", damage), "hidden must be|truncated, damaged or no ONNX file")


@pytest.mark.parametrize(
    ("key", "value", "match"),
    [
        ("card", "[" * 100_000, "metadata card must be a JSON dict"),
        ("card", '{"what": "\\ud800"}', r"card\.what holds text that is no Unicode"),
        ("card", '{"a": ' * 40 + "1" + "}" * 40, r"card\.a.* is nested in itself or too deeply"),
        ("initial_hidden_state", "[0.0, 1.0]", "initial_hidden_state must be 16 finite numbers"),
        ("initial_hidden_state", '["a"]', "initial_hidden_state must be 16 finite numbers"),
        ("initial_hidden_state", str([float("nan")] * 16).replace("nan", "NaN"), "16 finite numbers"),
        ("initial_hidden_state", "{", "metadata initial_hidden_state must be a JSON list"),
        ("card", "[]", "metadata card must be a JSON dict"),
    ],
)
def test_damaged_metadata_is_refused(exported, tmp_path, key, value, match):
    refused(broken(exported, tmp_path / "a.onnx", lambda m: helper.set_model_props(m, {key: value})), match)


def test_control_bytes_in_metadata_are_shown_as_escapes(exported, tmp_path):
    card = '{"what": "quiet\\u001b[2J"}'
    path = broken(exported, tmp_path / "a.onnx", lambda model: helper.set_model_props(model, {"card": card}))
    assert load_policy(path).card == {"what": r"quiet\x1b[2J"}


def test_a_model_without_metadata_starts_from_zero(exported, tmp_path):
    path = broken(exported, tmp_path / "a.onnx", lambda model: helper.set_model_props(model, {}))
    loaded = load_policy(path)
    assert loaded.card == {}
    assert torch.equal(loaded.initial_hidden_state(2), torch.zeros(2, 16))


@pytest.mark.parametrize("name", POLICY_NAMES)
def test_every_packaged_policy_is_exported(name, tmp_path):
    assert export_onnx(load_policy(name), tmp_path / "policy.onnx") < 1e-3
