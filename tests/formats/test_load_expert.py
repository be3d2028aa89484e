"""Experts from elsewhere act as in the library that made them, and files that could do harm are refused."""

from __future__ import annotations

import base64
import io
import json
import pickle
import warnings
import zipfile
from functools import partial
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from foreign_files import HETEROSCEDASTIC, OBSERVATIONS, Box, rsl_rl_3, rsl_rl_5, stable_baselines3

from raptor import load_expert
from raptor.core.errors import UserError
from raptor.formats import load_policy, load_teachers, save_policy, save_teachers, write_rl_tools_teacher
from raptor.formats.expert_files import with_statistics
from raptor.nn import ExpertNetwork, MLPPolicy, RaptorPolicy, TeacherPopulation
from raptor.nn.stacked_mlp import Layer, initial_layers


def refused(path: Any, match: str, **options: Any) -> None:
    with pytest.raises(UserError, match=match) as error:
        load_expert(path, **options)
    assert "\n" not in str(error.value)


def same_actions(expert: ExpertNetwork, wanted: torch.Tensor, observations: torch.Tensor = OBSERVATIONS) -> None:
    torch.testing.assert_close(expert(observations), wanted, rtol=1e-6, atol=1e-6)


def agent(folder: Path, text: str) -> None:
    (folder / "params").mkdir(exist_ok=True)
    (folder / "params" / "agent.yaml").write_text(text)


def two_layers(activation: str = "relu", squash: str = "tanh") -> ExpertNetwork:
    first, last, deviation = initial_layers(1, (26, 9, 4, 9), torch.Generator().manual_seed(0))
    noise = Layer(deviation.weight[0, :4].repeat(1, 3)[:, :9].contiguous(), deviation.bias[0, :4])
    layers = tuple(Layer(layer.weight[0], layer.bias[0]) for layer in (first, last))
    return ExpertNetwork(layers, activation, squash, log_std_layer=noise)


@pytest.mark.parametrize("activation", ["elu", "lrelu", "swish", "crelu"])
def test_an_actor_of_rsl_rl_5_acts_as_its_own_class_does(tmp_path: Path, activation: str) -> None:
    wanted = rsl_rl_5(tmp_path / "model_7.pt", {"activation": activation})
    agent(tmp_path, f"seed: 3\nactor:\n  class_name: MLPModel\n  activation: {activation}\n")
    expert = load_expert(tmp_path / "model_7.pt")
    same_actions(expert, wanted(OBSERVATIONS))
    assert expert.architecture == "obs=26, actions=4, hidden=[12, 8, 6]"
    assert expert.description.startswith("Teacher architecture: obs=26, actions=4, hidden=[12, 8, 6] · ")
    assert expert.description.endswith("rsl_rl 5.x checkpoint · activation from params/agent.yaml")


def test_weights_that_were_written_alone_are_those_of_the_checkpoint(tmp_path: Path) -> None:
    wanted = rsl_rl_5(tmp_path / "model_7.pt")
    weights = torch.load(tmp_path / "model_7.pt", weights_only=True)["actor_state_dict"]
    torch.save({"model_state_dict": weights}, tmp_path / "weights.pt")
    same_actions(load_expert(tmp_path / "weights.pt"), wanted(OBSERVATIONS))


@pytest.mark.parametrize("legacy", [False, True])
def test_an_actor_of_rsl_rl_3_and_2_acts_with_the_normaliser_of_its_file(tmp_path: Path, legacy: bool) -> None:
    wanted = rsl_rl_3(tmp_path / "model_7.pt", legacy=legacy)
    expert = load_expert(tmp_path / "model_7.pt")
    same_actions(expert, wanted(OBSERVATIONS))
    assert expert.source == f"rsl_rl {2 if legacy else 3}.x checkpoint"
    assert "elu is rsl_rl's default" in expert.description
    assert "observation normaliser" in expert.description


def test_the_activation_is_what_is_asked_for_then_what_stands_beside_the_file(tmp_path: Path) -> None:
    wanted = rsl_rl_3(tmp_path / "model_7.pt", activation="selu")
    same_actions(load_expert(tmp_path / "model_7.pt", activation="SELU"), wanted(OBSERVATIONS))
    agent(tmp_path, "clip_actions: 0.5\npolicy:\n  activation: selu\n  dims: !!python/tuple [1, 2]\n")
    expert = load_expert(tmp_path / "model_7.pt")
    same_actions(expert, wanted(OBSERVATIONS))
    assert "clip_actions 0.5 is of its environment" in expert.description
    assert load_expert(tmp_path / "model_7.pt", activation="tanh").activation == "tanh"
    refused(tmp_path / "model_7.pt", "activation must be one of relu, .*got 'sharp'", activation="sharp")


def test_the_group_of_settings_that_is_out_of_use_may_hold_the_activation(tmp_path: Path) -> None:
    wanted = rsl_rl_5(tmp_path / "model_7.pt", {"activation": "tanh"})
    agent(tmp_path, "actor: !!python/object:dataclasses._MISSING_TYPE {}\npolicy:\n  activation: tanh\n")
    same_actions(load_expert(tmp_path / "model_7.pt"), wanted(OBSERVATIONS))


@pytest.mark.parametrize(
    "text", ["actor: [", "actor: 1\nactor: 2", "seed: &again [*again]", "a: " + "[" * 99 + "]" * 99]
)
def test_settings_that_are_no_yaml_are_refused(tmp_path: Path, text: str) -> None:
    rsl_rl_5(tmp_path / "model_7.pt")
    agent(tmp_path, text)
    refused(tmp_path / "model_7.pt", r"params/agent.yaml is not valid YAML: \S+")


def test_settings_beside_a_file_run_no_code(tmp_path: Path) -> None:
    rsl_rl_3(tmp_path / "model_7.pt")
    agent(tmp_path, f"policy: !!python/object/apply:os.mkdir ['{tmp_path / 'made'}']\n")
    load_expert(tmp_path / "model_7.pt")
    assert not (tmp_path / "made").exists()


def test_a_deviation_that_depends_on_the_observation_is_no_action(tmp_path: Path) -> None:
    distribution = {"class_name": HETEROSCEDASTIC, "std_type": "log", "init_std": 0.5}
    wanted = rsl_rl_5(tmp_path / "model_7.pt", {"distribution_cfg": distribution}, normal=False)
    refused(tmp_path / "model_7.pt", "does not say what its actor's 8 outputs are: put the run's params/agent.yaml")
    agent(tmp_path, f"actor:\n  distribution_cfg: {json.dumps(distribution)}\n")
    expert = load_expert(tmp_path / "model_7.pt")
    same_actions(expert, wanted(OBSERVATIONS))
    many = expert.sample(OBSERVATIONS[:1].expand(4000, 26), torch.Generator().manual_seed(0))
    torch.testing.assert_close(many.mean(0), wanted(OBSERVATIONS)[0], rtol=0, atol=0.2)


ARCHIVES = [
    ("SAC", {"policy_kwargs": {"net_arch": [9, 7], "activation_fn": torch.nn.GELU}}, "gelu", "tanh"),
    ("SAC", {"policy_kwargs": {"net_arch": [9]}}, "relu", "tanh"),
    ("PPO", {"policy_kwargs": {"net_arch": [9, 8, 7], "activation_fn": torch.nn.ELU}}, "elu", "clipped"),
    ("PPO", {"policy_kwargs": {"net_arch": []}}, "tanh", "clipped"),
    ("PPO", {"use_sde": True, "policy_kwargs": {"squash_output": True}}, "tanh", "tanh"),
    ("TD3", {"policy_kwargs": {"net_arch": [9, 7]}}, "relu", "tanh"),
    ("A2C", {}, "tanh", "clipped"),
]


@pytest.mark.parametrize(("algorithm", "settings", "activation", "squash"), ARCHIVES)
def test_an_archive_of_stable_baselines3_acts_as_it_predicts(
    tmp_path: Path, algorithm: str, settings: dict[str, Any], activation: str, squash: str
) -> None:
    wanted = stable_baselines3(tmp_path / "model.zip", algorithm, Box(low=-0.5, high=2.0), **settings)
    expert = load_expert(tmp_path / "model.zip")
    same_actions(expert, wanted(OBSERVATIONS))
    assert f"{activation} between the layers, {squash} at the end" in expert.description


def test_noise_is_that_of_the_library(tmp_path: Path) -> None:
    stable_baselines3(tmp_path / "ppo.zip", "PPO", Box(low=-1e6, high=1e6), policy_kwargs={"log_std_init": -1.0})
    expert = load_expert(tmp_path / "ppo.zip")
    many = expert.sample(0 * OBSERVATIONS[:1].expand(5000, 26), torch.Generator().manual_seed(0))
    assert expert.log_std is not None
    torch.testing.assert_close(many[:, 0].std(), expert.log_std[0].exp(), rtol=0.05, atol=0)
    stable_baselines3(tmp_path / "td3.zip", "TD3", policy_kwargs={"net_arch": [4]})
    with pytest.raises(UserError, match="TD3 archive, has no exploration noise that is known"):
        load_expert(tmp_path / "td3.zip").sample(OBSERVATIONS)


@pytest.mark.parametrize("activation", ["relu", "tanh", "fast_tanh", "gelu_tanh"])
def test_a_teacher_of_rl_tools_comes_back_as_it_was_written(tmp_path: Path, activation: str) -> None:
    original = two_layers(activation)
    assert write_rl_tools_teacher(original, tmp_path / "teacher.h5", "mine") < 1e-6
    expert = load_expert(tmp_path / "teacher.h5")
    same_actions(expert, original(OBSERVATIONS))
    generators = (torch.Generator().manual_seed(4), torch.Generator().manual_seed(4))
    noisy = [one.sample(OBSERVATIONS, given) for one, given in zip((original, expert), generators, strict=True)]
    torch.testing.assert_close(*noisy)
    with h5py.File(tmp_path / "teacher.h5") as file:
        assert file["actor"].attrs["checkpoint_name"] == "mine"
        assert file["actor/layers/0"].attrs["num_layers"] == "2"
        assert file["actor/layers/0/output_layer/biases/parameters"].shape == (1, 8)
        assert file["actor/layers/1"].attrs["type"] == "sample_and_squash"
        assert file["example/output"].shape == (1, 32, 4)


def test_gelu_is_what_rl_tools_calls_so(tmp_path: Path) -> None:
    original = two_layers("gelu_tanh")
    write_rl_tools_teacher(original, tmp_path / "teacher.h5")
    with h5py.File(tmp_path / "teacher.h5") as file:
        assert file["actor/layers/0/input_layer"].attrs["activation_function"] == "GELU"
    (first, last), seen = original.layers, OBSERVATIONS
    x = seen @ first.weight.T + first.bias
    x = 0.5 * (x + x * torch.tanh((2 / torch.pi) ** 0.5 * (0.044715 * x**3 + x)))
    same_actions(load_expert(tmp_path / "teacher.h5"), torch.tanh(x @ last.weight.T + last.bias))


def test_what_rl_tools_does_not_have_is_not_written(tmp_path: Path) -> None:
    for expert, match in (
        (two_layers("elu"), "rl-tools has relu, .* got elu between 2"),
        (two_layers("gelu"), "rl-tools has .* gelu_tanh between .* got gelu between 2"),
        (two_layers(squash="clip"), "rl-tools squashes the actions of a teacher to .* by tanh"),
    ):
        with pytest.raises(UserError, match=match):
            write_rl_tools_teacher(expert, tmp_path / "teacher.h5")
    assert not list(tmp_path.iterdir())


def test_a_teacher_of_rl_tools_that_contradicts_its_example_is_refused(tmp_path: Path) -> None:
    write_rl_tools_teacher(two_layers(), tmp_path / "teacher.h5")
    with h5py.File(tmp_path / "teacher.h5", "a") as file:
        file["actor/layers/0/input_layer"].attrs["activation_function"] = "TANH"
    refused(tmp_path / "teacher.h5", "does not reproduce its own example")


def test_our_own_policies_and_teachers_are_read(tmp_path: Path) -> None:
    policy = MLPPolicy(hidden_dim=5)
    save_policy(policy, tmp_path / "student.pt", {})
    same_actions(load_expert(tmp_path / "student.pt"), policy(OBSERVATIONS[:, :22])[0].detach(), OBSERVATIONS[:, :22])
    teachers = TeacherPopulation(initial_layers(3, (26, 6, 4), torch.Generator().manual_seed(0)))
    save_teachers(teachers, tmp_path / "teachers")
    wanted = teachers(OBSERVATIONS.expand(3, -1, -1))[2]
    same_actions(load_expert(f"{tmp_path / 'teachers'}:2"), wanted)
    refused(tmp_path / "teachers", "holds 3 teachers: give the number of one, such as .*:0")
    refused(f"{tmp_path / 'teachers'}:3", "holds 3 teachers, from number 0 on, got 3")
    refused(f"{tmp_path / 'teachers'}:2", "has relu between its layers, got the activation elu", activation="elu")
    refused(tmp_path / "student.pt", "has relu between its layers, got the activation tanh", activation="tanh")
    same_actions(load_expert(f"{tmp_path / 'teachers'}:2", activation="ReLU"), wanted)
    save_policy(RaptorPolicy(), tmp_path / "gru.pt", {})
    refused(tmp_path / "gru.pt", "holds a policy with memory")


class Bomb:
    """What makes a folder when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        import os

        return os.mkdir, (str(self.path),)


def test_pickled_code_is_refused_and_not_executed(tmp_path: Path) -> None:
    bomb = Bomb(tmp_path / "made")
    rsl_rl_3(tmp_path / "model_7.pt")
    document = torch.load(tmp_path / "model_7.pt", weights_only=True)
    torch.save({**document, "infos": bomb}, tmp_path / "bomb.pt")
    torch.save({**document, "infos": bomb}, tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    (tmp_path / "vecnormalize.pkl").write_bytes(pickle.dumps(bomb))
    for name in ("bomb.pt", "vecnormalize.pkl"):
        refused(tmp_path / name, r"was refused and not executed.*torch.save\(\{\"model_state_dict\"")
    refused(tmp_path / "old.pt", r"was refused and not executed: it has torch's file format before 1.6.*torch.save\(")
    wanted = stable_baselines3(tmp_path / "model.zip", "PPO", policy_kwargs={"net_arch": [4], "ortho_init": True})
    settings = json.loads(zipfile.ZipFile(tmp_path / "model.zip").read("data"))
    text = base64.b64encode(pickle.dumps(bomb)).decode()
    for value in settings.values():
        if isinstance(value, dict) and ":serialized:" in value:
            value[":serialized:"] = text
    rewrite(tmp_path / "model.zip", "data", json.dumps(settings).encode())
    same_actions(load_expert(tmp_path / "model.zip"), wanted(OBSERVATIONS))
    buffer = io.BytesIO()
    torch.save({"action_net.weight": bomb}, buffer)
    rewrite(tmp_path / "model.zip", "policy.pth", buffer.getvalue())
    refused(tmp_path / "model.zip", "policy.pth in .* was refused and not executed")
    assert not (tmp_path / "made").exists()


def rewrite(path: Path, name: str, content: bytes) -> None:
    """One member of an archive anew."""
    with zipfile.ZipFile(path) as archive:
        members = {member: archive.read(member) for member in archive.namelist()}
    with zipfile.ZipFile(path, "w") as archive:
        for member, old in members.items():
            archive.writestr(member, content if member == name else old)


def test_archives_from_before_version_1_4_and_with_shared_layers_act_as_they_predict(tmp_path: Path) -> None:
    path = tmp_path / "model.zip"
    wanted = stable_baselines3(path, "PPO", Box(low=-0.5), policy_kwargs={"net_arch": [9, 7]})
    settings = json.loads(zipfile.ZipFile(path).read("data"))
    for space in ("observation_space", "action_space"):
        settings[space]["shape"] = settings[space].pop("_shape")
    rewrite(path, "data", json.dumps(settings).encode())
    same_actions(load_expert(path), wanted(OBSERVATIONS))
    weights = torch.load(io.BytesIO(zipfile.ZipFile(path).read("policy.pth")), weights_only=True)
    shared = {  # before version 2 the first layers could be those of the critic, too
        name.replace("policy_net.0", "shared_net.0").replace("policy_net.2", "policy_net.0"): weight
        for name, weight in weights.items()
    }
    buffer = io.BytesIO()
    torch.save(shared, buffer)
    rewrite(path, "policy.pth", buffer.getvalue())
    same_actions(load_expert(path), wanted(OBSERVATIONS))


@pytest.mark.parametrize(
    "function", [partial(torch.nn.ELU, alpha=1.0), lambda: torch.nn.ELU()], ids=["partial", "lambda"]
)
def test_an_activation_that_no_file_can_name_is_given_by_name(tmp_path: Path, function: Any) -> None:
    path = tmp_path / "model.zip"
    wanted = stable_baselines3(path, "PPO", policy_kwargs={"activation_fn": function})
    refused(path, "between its layers, which is not known here: name it: .* --teacher-activation elu")
    same_actions(load_expert(path, "elu"), wanted(OBSERVATIONS))


@pytest.mark.parametrize("version", [3, 5])
@pytest.mark.parametrize("prefix", ["_orig_mod.", "module."])
def test_the_actor_of_a_compiled_model_is_that_of_the_model(tmp_path: Path, version: int, prefix: str) -> None:
    path = tmp_path / "model.pt"
    wanted = (rsl_rl_3 if version == 3 else rsl_rl_5)(path)
    document = torch.load(path, weights_only=True)
    for group in document:
        if group.endswith("state_dict"):
            document[group] = {prefix + name: weight for name, weight in document[group].items()}
    torch.save(document, path)
    same_actions(load_expert(path), wanted(OBSERVATIONS))


def test_scalars_of_numpy_among_the_infos_do_no_harm(tmp_path: Path) -> None:
    wanted = rsl_rl_3(tmp_path / "model.pt")
    document = torch.load(tmp_path / "model.pt", weights_only=True)
    torch.save({**document, "infos": {"reward": np.float64(3.5), "steps": np.int64(9)}}, tmp_path / "model.pt")
    same_actions(load_expert(tmp_path / "model.pt"), wanted(OBSERVATIONS))


def test_an_archive_of_stable_baselines_2_is_called_by_its_name(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "old.zip", "w") as archive:
        for member in ("data", "parameter_list", "parameters"):
            archive.writestr(member, "{}")
    refused(
        tmp_path / "old.zip", "is an archive of stable-baselines 2, .* train the teacher again with stable-baselines3"
    )


class Statistics:
    """An archive with the VecNormalize that it was trained with, and what the library does with both."""

    def __init__(self, folder: Path, name: str = "vecnormalize.pkl", **settings: Any) -> None:
        vec_env = pytest.importorskip("stable_baselines3.common.vec_env", reason="needs the extra sb3")
        self.archive, self.file = folder / "model.zip", folder / name
        predict = stable_baselines3(self.archive, "PPO", Box(low=-0.5), policy_kwargs={"net_arch": [9]})
        env = vec_env.VecNormalize(vec_env.DummyVecEnv([Box]), **settings)
        if env.norm_obs:
            env.obs_rms.mean, env.obs_rms.var = np.linspace(-2, 3, 26), np.linspace(0, 2, 26) ** 2
        env.save(self.file)
        normal = torch.from_numpy(env.normalize_obs(OBSERVATIONS.numpy()))
        self.wanted = predict(normal)


@pytest.mark.parametrize("settings", [{}, {"clip_obs": 1.5, "epsilon": 0.1}, {"norm_obs": False}], ids=str)
@pytest.mark.parametrize("numpy_before_2", [False, True])
def test_the_statistics_of_a_vec_normalize_are_applied_as_the_library_does(
    tmp_path: Path, settings: dict[str, Any], numpy_before_2: bool
) -> None:
    statistics = Statistics(tmp_path, **settings)
    if numpy_before_2:
        old = statistics.file.read_bytes().replace(b"\x8c\x16numpy._core.multiarray", b"\x8c\x15numpy.core.multiarray")
        statistics.file.write_bytes(old)
    expert = load_expert(statistics.archive, normalizer=statistics.file)
    same_actions(expert, statistics.wanted)
    assert "vecnormalize.pkl" in expert.description


@pytest.mark.parametrize("name", ["vecnormalize.pkl", "ppo_vecnormalize_100_steps.pkl", "model/vec_normalize.pkl"])
def test_statistics_beside_an_archive_that_are_not_applied_are_named(tmp_path: Path, name: str) -> None:
    (tmp_path / "model").mkdir()
    statistics = Statistics(tmp_path, name)
    with pytest.warns(
        UserWarning, match=rf"{Path(name).name} beside .*model\.zip is not applied: .*--teacher-normalizer"
    ):
        load_expert(statistics.archive)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load_expert(statistics.archive, normalizer=statistics.file)


def test_nothing_in_the_file_of_statistics_is_executed(tmp_path: Path) -> None:
    statistics = Statistics(tmp_path)
    rest = statistics.file.read_bytes()
    key = b"\x8c\x0anorm_reward"
    bomb = pickle.dumps(Bomb(tmp_path / "made"), 2)[2:-1]  # without its beginning and end
    statistics.file.write_bytes(rest.replace(key, b"\x8c\x04bomb" + bomb + key))
    same_actions(load_expert(statistics.archive, normalizer=statistics.file), statistics.wanted)
    assert not (tmp_path / "made").exists()
    for content, match in (
        (pickle.dumps(Bomb(tmp_path / "made")), "holds no VecNormalize of stable-baselines3"),
        (pickle.dumps({"obs_rms": 1}), "holds no VecNormalize"),
        (rest[:-40], "is damaged, or no VecNormalize"),
        (b"hello", "is damaged, or no VecNormalize"),
        (rest.replace(b"epsilon", b"epsilom"), "is damaged, or no VecNormalize"),
    ):
        statistics.file.write_bytes(content)
        refused(statistics.archive, match, normalizer=statistics.file)
    refused(statistics.archive, "cannot read the normaliser .*No such file", normalizer=tmp_path / "none.pkl")
    assert not (tmp_path / "made").exists()


def test_statistics_that_do_not_belong_to_a_teacher_are_refused(tmp_path: Path) -> None:
    statistics = Statistics(tmp_path)
    rsl_rl_3(tmp_path / "model.pt")
    refused(
        tmp_path / "model.pt", "has a normaliser of its own: leave out .*vecnormalize.pkl", normalizer=statistics.file
    )
    stable_baselines3(tmp_path / "narrow.zip", "PPO", Box(22))
    refused(
        tmp_path / "narrow.zip",
        r"does not go with the teacher, which has obs=22.*: normalizer.mean must have shape \(22,\)",
        normalizer=statistics.file,
    )
    save_policy(MLPPolicy(26, 5), tmp_path / "student.pt", {})
    refused(tmp_path / "student.pt", "got the normalizer .*vecnorm", normalizer=statistics.file)


@pytest.mark.parametrize(
    "path", ["a" * 5000 + ".pt", "nul\0byte.pt", "nul\0byte", "~nobody-of-this-name/a.zip", "a" * 5000 + ":3"]
)
def test_a_path_that_no_file_can_have_is_a_sentence(path: str) -> None:
    for read in (load_expert, load_teachers, load_policy):
        with pytest.raises(UserError, match=r"cannot read the (teacher|policy)") as error:
            read(path)
        assert len(str(error.value)) < 600
    with pytest.raises(UserError, match="cannot read the normaliser"):
        with_statistics(two_layers(), path)


def test_a_program_is_no_checkpoint(tmp_path: Path) -> None:
    torch.jit.save(torch.jit.script(torch.nn.Linear(26, 4)), tmp_path / "policy.pt")
    refused(tmp_path / "policy.pt", "is a TorchScript program, .* give the checkpoint that it was exported from")


def test_what_unpacks_to_far_more_than_it_is_gets_refused_before_it_is_unpacked(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "model.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("data", "{}")
        archive.writestr("policy.pth", bytes(2**26))
    refused(tmp_path / "model.zip", "was refused: its .* bytes unpack to 67108866")
    with h5py.File(tmp_path / "teacher.h5", "w") as file:
        file.create_dataset("actor/layers/0/w", (2**14, 2**14), np.float32, chunks=(2**10, 2**10), compression="gzip")
    refused(tmp_path / "teacher.h5", "was refused: its [0-9]+ bytes unpack to 1073741824")


@pytest.mark.parametrize("kind", ["model.pt", "model.zip", "teacher.h5"])
def test_a_file_that_was_cut_off_anywhere_is_refused(tmp_path: Path, kind: str) -> None:
    path = tmp_path / kind
    if kind == "model.pt":
        rsl_rl_3(path)
    elif kind == "model.zip":
        stable_baselines3(path, "PPO", policy_kwargs={"net_arch": [4]})
    else:
        write_rl_tools_teacher(two_layers(), path)
    whole = path.read_bytes()
    for size in np.linspace(0, len(whole) - 1, 12).astype(int):
        path.write_bytes(whole[:size])
        refused(path, "truncated|damaged")


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"actor.0.weight": None}, r"lacks the weight actor.0.weight"),
        ({"actor.0.weight": torch.full((10, 26), torch.nan)}, r"actor.0.weight\[0, 0\] must be finite, got nan"),
        ({"actor.0.weight": torch.full((10, 26), 3e38)}, r"actor.0.weight\[0, 0\] must be at most 1e\+09 in magnitude"),
        (
            {f"actor.{2 * i}.weight": torch.zeros(1, 1) for i in range(65)},
            "holds 65 layers actor.*, at most 64 are read",
        ),
        ({"actor.0.weight": torch.zeros(10, 26, dtype=torch.long)}, "must be a tensor of floating-point numbers"),
        (
            {"actor.0.weight": torch.zeros(1, 1).expand(10, 2**20)},
            r"of a tensor of shape \(10, 1048576\) it stores 1 numbers",
        ),
        ({"actor.2.weight": torch.zeros(7, 9)}, "layer 1 .* takes 9 numbers, but the one before it gives 10"),
        ({"actor.0.bias": torch.zeros(3)}, r"actor.0.bias must have shape \(10,\), got \(3,\)"),
        ({"actor.1.weight": torch.zeros(10), "actor.1.bias": torch.zeros(10)}, "holds more than dense layers"),
        ({"memory_a.rnn.weight_ih_l0": torch.zeros(3, 3)}, "holds a recurrent actor"),
        ({"std": torch.zeros(3)}, r"std must have shape \(4,\), got \(3,\)"),
        ({"student.0.weight": torch.zeros(3, 3)}, "is of rsl_rl's distillation"),
        ({"actor.0.weight": torch.zeros(10, 0)}, r"is no weight of a teacher: its shape is \(10, 0\)"),
        ({"actor.0.weight": None, 3: torch.zeros(3)}, r"lacks the weight actor.0.weight"),
    ],
)
def test_a_damaged_actor_is_refused_by_name(tmp_path: Path, changes: dict[str, Any], match: str) -> None:
    rsl_rl_3(tmp_path / "model.pt")
    document = torch.load(tmp_path / "model.pt", weights_only=True)
    model = {**document["model_state_dict"], **changes}
    torch.save({"model_state_dict": {k: v for k, v in model.items() if v is not None}}, tmp_path / "model.pt")
    refused(tmp_path / "model.pt", match)


def test_a_normaliser_in_double_precision_is_computed_so(tmp_path: Path) -> None:
    wanted = rsl_rl_3(tmp_path / "model.pt")
    model = torch.load(tmp_path / "model.pt", weights_only=True)["model_state_dict"]
    double = {name: tensor.double() if name.endswith(("_mean", "_std")) else tensor for name, tensor in model.items()}
    torch.save({"model_state_dict": double}, tmp_path / "model.pt")
    same_actions(load_expert(tmp_path / "model.pt"), wanted(OBSERVATIONS))


def test_files_of_no_expert_say_what_can_be_read(tmp_path: Path) -> None:
    refused(tmp_path / "none.pt", "cannot read the teacher .*No such file.*give a checkpoint of rsl_rl")
    refused(tmp_path, "is a folder without teachers.json: give a checkpoint of rsl_rl")
    (tmp_path / "notes.txt").write_text("hello")
    refused(tmp_path / "notes.txt", "truncated, or of another kind: give a checkpoint of rsl_rl")
    torch.save({"weights": torch.zeros(3)}, tmp_path / "other.pt")
    refused(tmp_path / "other.pt", "holds 'weights', but no actor: give a checkpoint of rsl_rl")
    torch.save([torch.zeros(3)], tmp_path / "list.pt")
    refused(tmp_path / "list.pt", "holds a list instead of named weights")
