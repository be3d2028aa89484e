"""`raptor platforms`, `raptor sample` and `raptor describe`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import yaml
from typer.testing import CliRunner

from raptor.cli import app
from raptor.quadrotor import PLATFORMS, Quadrotors, from_description, load_platforms, sample_quadrotors

Run = Callable[..., str]
EXAMPLE = Path(__file__).parents[2] / "examples" / "my_quadrotor.yaml"


def test_platforms_lists_all_nine_with_what_characterises_them(raptor: Run) -> None:
    rows = [line.split() for line in raptor("platforms").splitlines()]
    listed = {row[0]: row[1:] for row in rows if row and row[0] in PLATFORMS}
    assert set(listed) == set(PLATFORMS)
    population = load_platforms()
    mass, arm, thrust_to_weight, _, hover = listed["x500_real"]
    index = PLATFORMS.index("x500_real")
    assert float(mass) == pytest.approx(population.mass[index].item(), rel=5e-3)
    assert float(arm) == pytest.approx(population.arm_length[index].item(), rel=5e-3)
    assert float(thrust_to_weight) == pytest.approx(population.thrust_to_weight[index].item(), rel=5e-3)
    assert float(hover) == pytest.approx(population.hover_throttle[index].item(), rel=5e-3)


def test_sample_writes_the_vehicles_that_the_library_draws_and_a_summary(raptor: Run, tmp_path: Path) -> None:
    text = raptor("sample", "--num", 3, "--output", tmp_path / "new", "--seed", 5)
    assert text == f"wrote 3 quadrotors to {tmp_path / 'new'}: 0000.json to 0002.json, summary.yaml, summary.png\n"
    drawn = Quadrotors.from_json(tmp_path / "new")
    assert torch.equal(drawn.mass, sample_quadrotors(3, 5).mass)
    summary = yaml.safe_load((tmp_path / "new" / "summary.yaml").read_text(encoding="utf-8"))
    assert (summary["number"], summary["seed"]) == (3, 5)
    assert summary["distribution"]["mass"] == [0.02, 5.0]
    assert (tmp_path / "new" / "summary.png").read_bytes().startswith(b"\x89PNG")


def test_the_first_vehicles_of_a_larger_sample_are_those_of_a_smaller_one(raptor: Run, tmp_path: Path) -> None:
    for num in (2, 4):
        raptor("sample", "-n", num, "-o", tmp_path / str(num))
    for name in ("0000.json", "0001.json"):
        assert (tmp_path / "2" / name).read_bytes() == (tmp_path / "4" / name).read_bytes()


def test_sample_takes_ranges_and_distributions(raptor: Run, tmp_path: Path) -> None:
    raptor("sample", "-n", 20, "-o", tmp_path / "heavy", "mass=[4,4.5]", "thrust_to_weight=[2,2]")
    heavy = Quadrotors.from_json(tmp_path / "heavy")
    assert ((heavy.mass >= 4) & (heavy.mass <= 4.5)).all()
    torch.testing.assert_close(heavy.thrust_to_weight, torch.full((20,), 2.0))
    raptor("sample", "-n", 20, "-o", tmp_path / "paper", "--distribution", "paper")
    paper = Quadrotors.from_json(tmp_path / "paper")
    assert torch.equal(paper.arm_length, sample_quadrotors(20, 0, distribution="paper").arm_length)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["-n", "0"], "num must be a positive integer, got 0"),
        (["-n", "2", "mas=[1,2]"], "mas is unknown (command line): did you mean mass?"),
        (
            ["-n", "2", "mass=[2,1]"],
            "mass must be (low, high) with low <= high, each positive, got [2, 1] (command line)",
        ),
        (["-n", "2", "mass=heavy"], "mass must be [a number, a number], got"),
        (
            ["-n", "2", "thrust_to_weight=[0.5,2]"],
            "thrust_to_weight must be (low, high) with low <= high, each above 1, got",
        ),
        (
            ["-n", "2", "--seed", "2000000"],
            "seed must be between 0 and 999999 (higher ones draw the quadrotors of vali",
        ),
        (["-n", "2", "--distribution", "mine"], "distribution must be published, paper"),
    ],
)
def test_sample_refuses_what_cannot_be_drawn(refused: Run, tmp_path: Path, arguments: list[str], sentence: str) -> None:
    assert refused("sample", "-o", tmp_path / "new", *arguments).startswith(sentence)
    assert not (tmp_path / "new").exists()


def test_sample_leaves_a_folder_with_vehicles_alone_unless_told(raptor: Run, refused: Run, tmp_path: Path) -> None:
    raptor("sample", "-n", 1, "-o", tmp_path)
    before = (tmp_path / "0000.json").read_text()
    assert "already holds JSON files" in refused("sample", "-n", 1, "-o", tmp_path, "--seed", 1)
    assert (tmp_path / "0000.json").read_text() == before
    raptor("sample", "-n", 2, "-o", tmp_path, "--overwrite")
    raptor("sample", "-n", 1, "-o", tmp_path, "--seed", 1, "--overwrite")
    assert (tmp_path / "0000.json").read_text() != before
    assert not (tmp_path / "0001.json").exists()


def test_describe_prints_every_estimate_and_writes_a_complete_vehicle(raptor: Run, tmp_path: Path) -> None:
    described, estimates = from_description(EXAMPLE)
    text = raptor("describe", EXAMPLE, "--output", tmp_path / "mine.json")
    assert estimates
    assert all(str(estimate) in text for estimate in estimates)
    assert "my_quadrotor" in text
    written = Quadrotors.from_json(tmp_path / "mine.json")
    for name, tensor in written.tensors().items():
        torch.testing.assert_close(tensor, described.tensors()[name], rtol=1e-6, atol=1e-9)


def test_describe_marks_what_lies_outside_of_training_and_says_how_uncertain_it_is(raptor: Run) -> None:
    text = raptor("describe", EXAMPLE.with_name("racer.yaml"))
    rows = {line.split("  ")[0].strip(): line for line in text.splitlines()}
    assert rows["thrust-to-weight"].split()[1:] == ["9.843", "1.5", "to", "5", "outside"]
    assert rows["mass (kg)"].split()[2:] == ["0.65", "0.02", "to", "5"]
    assert "Uncertain by: mass 2 %, arm length 2 %, inertia 40 %, thrust 10 %" in text


def test_describe_takes_files_platforms_and_folders_and_writes_a_folder(raptor: Run, tmp_path: Path) -> None:
    raptor("describe", EXAMPLE, "-o", tmp_path / "in" / "mine.json")
    text = raptor("describe", tmp_path / "in", "crazyflie", EXAMPLE.with_name("toy.yaml"), "-o", tmp_path / "out")
    assert "3 quadrotors" in text
    assert "Estimated of mine" in text
    assert "Estimated of toy" in text
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"crazyflie.json", "mine.json", "toy.json"}
    assert "2 outside" in raptor("describe", "crazyflie", "race", "x500_real")


@pytest.mark.parametrize(
    ("name", "mass", "thrust_to_weight"), [("racer", 0.65, 9.84), ("camera_drone", 2.0, 1.8), ("toy", 0.03, 2.0)]
)
def test_the_examples_are_the_vehicles_that_they_describe(name: str, mass: float, thrust_to_weight: float) -> None:
    file = EXAMPLE.with_name(f"{name}.yaml")
    vehicle, _ = from_description(file)
    assert vehicle.mass.item() == pytest.approx(mass)
    assert vehicle.thrust_to_weight.item() == pytest.approx(thrust_to_weight, rel=1e-2)
    assert len([line for line in file.read_text().splitlines() if not line.startswith("#")]) <= 10


def test_describe_without_an_output_writes_nothing(
    raptor: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    raptor("describe", EXAMPLE)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("arm_length: 0.1\n", "mass is missing"),
        ("mass: -1\n", "mass must be a positive number (kg), got -1"),
        ("mass: .nan\n", "mass must be a positive number (kg), got nan"),
        ("mass: 1\nthrust_to_weight: 0.9\n", "thrust_to_weight must be above 1"),
        ("mass: 1\nmas: 2\n", "unknown key mas"),
        ("mass: 1\nmotor_time_constant: 0.0001\n", "motor_time_constant must be at least 0.001 s, the shortest"),
        ("mass: [\n", "is not valid YAML"),
    ],
)
def test_describe_refuses_an_impossible_vehicle_and_leaves_the_output_alone(
    refused: Run, tmp_path: Path, text: str, sentence: str
) -> None:
    file, output = tmp_path / "mine.yaml", tmp_path / "mine.json"
    file.write_text(text)
    output.write_text("precious")
    message = refused("describe", file, "--output", output)
    assert sentence in message
    assert str(file) in message
    assert output.read_text() == "precious"


def test_describe_says_where_it_cannot_write(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    result = CliRunner().invoke(app, ["describe", str(EXAMPLE), "--output", str(tmp_path / "file" / "x.json")])
    assert result.exit_code == 2
    assert "error: cannot write" in result.stderr
