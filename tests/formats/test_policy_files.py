"""Where policies come from: names, run folders, files, and what is said when there is none."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from raptor.core.errors import UserError
from raptor.formats import CARD_FIELDS, POLICY_NAMES, format_card, load_policy, policy_card, save_policy
from raptor.formats import policy_files as files

PACKAGED = {"default": 2084, "large": 26756, "agile": 29060}


def packaged(name):
    there = (files.POLICIES / f"{name}.pt").is_file()
    return pytest.param(name, marks=pytest.mark.skipif(not there, reason=f"{name}.pt is not built"))


@pytest.fixture
def save(make_policy):
    """Write a policy whose card says which one it is."""

    def save(path, seed):
        save_policy(make_policy(seed=seed), path, {"what": f"policy {seed}"})

    return save


@pytest.mark.parametrize("name", [packaged(name) for name in PACKAGED])
def test_a_packaged_policy_has_its_size_and_a_complete_card(name):
    policy = load_policy(name)
    assert policy.num_parameters == PACKAGED[name]
    assert (policy.observation_dim, policy.action_dim) == (58 if name == "agile" else 22, 4)
    assert all(policy.card.get(field) for field in CARD_FIELDS)
    assert "raptor" in policy.card["command"]
    card = policy_card(name)
    assert ("position_error@+60" in card.pop("observes", {}).get("observation", ())) == (name == "agile")
    assert card == policy.card


@pytest.mark.parametrize("name", list(PACKAGED))
def test_a_packaged_policy_that_is_missing_is_an_error_that_says_what_to_do(name, tmp_path, monkeypatch):
    monkeypatch.setattr(files, "POLICIES", tmp_path)
    with pytest.raises(UserError, match=f"policy '{name}' is not in this installation .*{name}.pt is missing.*train"):
        load_policy(name)


@pytest.mark.parametrize("name", list(PACKAGED))
def test_a_name_gives_the_file_of_the_package(name, save, tmp_path, monkeypatch):
    monkeypatch.setattr(files, "POLICIES", tmp_path)
    save(tmp_path / f"{name}.pt", 3)
    assert policy_card(name) == {"what": "policy 3"}


def test_a_name_in_text_comes_before_a_file_and_a_path_does_not(save, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    save(Path("published/checkpoints/best.pt"), 1)
    assert policy_card("published")["name"] == "published"
    assert policy_card("./published") == {"what": "policy 1"}
    assert policy_card(Path("published")) == {"what": "policy 1"}


def test_a_run_gives_its_best_checkpoint(save, tmp_path):
    save(tmp_path / "checkpoints" / "update_000900.pt", 1)
    save(tmp_path / "checkpoints" / "best.pt", 2)
    assert policy_card(tmp_path) == {"what": "policy 2"}


def test_a_run_without_validation_gives_its_last_checkpoint_by_number(save, tmp_path):
    folder = tmp_path / "checkpoints"
    save(folder / "update_1000000.pt", 3)
    save(folder / "update_999999.pt", 2)
    save(folder / "update_000100.pt", 1)
    (folder / "update_2000000.pt.tmp").write_text("half written")
    (folder / "update_final.pt").write_text("not one of ours")
    assert policy_card(str(tmp_path)) == {"what": "policy 3"}


def test_a_run_of_post_training_gives_its_best_student_or_the_last_epoch_by_number(save, tmp_path):
    save(tmp_path / "checkpoint_epoch_9.pt", 1)
    save(tmp_path / "checkpoint_epoch_10.pt", 2)
    save(tmp_path / "final_student.pt", 3)
    assert policy_card(tmp_path) == {"what": "policy 2"}
    save(tmp_path / "best_student.pt", 4)
    assert policy_card(tmp_path) == {"what": "policy 4"}


def test_the_best_of_a_run_comes_before_every_checkpoint_along_the_way(save, tmp_path):
    save(tmp_path / "checkpoints" / "update_000100.pt", 1)
    save(tmp_path / "best_student.pt", 2)
    assert policy_card(tmp_path) == {"what": "policy 2"}


def test_a_damaged_best_checkpoint_is_an_error_and_not_silently_another(save, tmp_path):
    save(tmp_path / "checkpoints" / "update_000100.pt", 1)
    (tmp_path / "checkpoints" / "best.pt").write_bytes(b"PK")
    with pytest.raises(UserError, match=r"best\.pt is damaged, truncated, or of another kind"):
        load_policy(tmp_path)


def test_a_folder_without_checkpoints_is_an_error(tmp_path):
    names = r"best\.pt nor best_student\.pt nor checkpoints/update_\*\.pt nor checkpoint_epoch_\*\.pt"
    with pytest.raises(UserError, match=rf"holds neither checkpoints/{names}: give the folder"):
        load_policy(tmp_path)
    (tmp_path / "checkpoints").mkdir()
    with pytest.raises(UserError, match=r"holds neither checkpoints/best\.pt nor"):
        load_policy(tmp_path)


@pytest.mark.parametrize(
    ("source", "meant"),
    [("pubished", "published"), ("Default", "default"), ("larg", "large"), ("policy.p", "policy.pt")],
)
def test_a_mistyped_name_is_answered_with_the_one_that_was_meant(source, meant, save, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    save("policy.pt", 0)
    with pytest.raises(UserError, match=f"no policy '{source}', did you mean '{meant}'"):
        load_policy(source)


def test_a_mistyped_file_in_a_folder_is_answered_with_its_neighbour(save, tmp_path):
    save(tmp_path / "hover.pt", 0)
    with pytest.raises(UserError, match=r"did you mean '.*hover\.pt'"):
        load_policy(tmp_path / "hovr.pt")


@pytest.mark.parametrize("source", ["nothing/like/it.pt", "xyzzy", "a" * 5000 + ".pt", "nul\0byte.pt"])
def test_a_missing_file_is_an_error_that_lists_the_sources(source, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"no policy|cannot read the policy") as error:
        load_policy(source)
    assert "did you mean" not in str(error.value)


@pytest.mark.parametrize("name", ["policy.txt", "policy", "policy.tar.gz"])
def test_a_file_of_an_unknown_kind_is_an_error(name, tmp_path):
    (tmp_path / name).write_text("hello")
    with pytest.raises(UserError, match=r"unknown kind.*: give published, default, large, agile"):
        load_policy(tmp_path / name)


def test_endings_may_be_written_in_capitals(save, tmp_path):
    save(tmp_path / "POLICY.PT", 5)
    assert policy_card(tmp_path / "POLICY.PT") == {"what": "policy 5"}


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_a_device_that_is_not_there_is_an_error():
    with pytest.raises(UserError, match=r"device 'cuda' is not there .*: use cpu"):
        load_policy("published", device="cuda")


def test_an_unknown_device_is_an_error():
    with pytest.raises(UserError, match=r"device must be cpu.*, got 'abacus'"):
        load_policy("published", device="abacus")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")
def test_a_policy_goes_to_the_device():
    policy = load_policy("published", device="cuda")
    assert policy.initial_hidden_state(3).is_cuda
    assert policy(torch.zeros(3, 22, device="cuda"))[0].is_cuda


def test_the_published_name_is_first_among_the_names():
    assert POLICY_NAMES == ("published", "default", "large", "agile")


def test_a_card_reads_well():
    text = format_card(
        {
            "seed": 3,
            "licence": "MIT",
            "what": "word " * 30,
            "results": {"unseen": {"return": 650.5}},
            "tags": ["a", "b"],
        }
    )
    lines = text.splitlines()
    assert lines[0].startswith("what     word word")
    assert lines[1].startswith("         word")
    assert all(len(line) <= 100 for line in lines)
    assert lines[2:] == [
        "results",
        "  unseen",
        "    return  650.5",
        "licence  MIT",
        "seed     3",
        "tags     a, b",
    ]


def test_a_card_that_is_empty_says_so():
    assert format_card({}) == "this policy carries no card"
    assert format_card({"results": {}, "what": "", "seed": None}).splitlines() == ["what", "results", "seed"]
