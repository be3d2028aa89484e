"""Settings from files and the command line: inheritance, overrides, and errors that name what is wrong."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any, ClassVar, Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raptor.config import differences, from_dict, load_config, presets, to_dict, to_yaml
from raptor.config.settings import (
    Settings as Declared,
)
from raptor.config.settings import (
    above,
    ascending,
    at_least,
    between,
    describe,
    each,
    not_negative,
    optional,
    positive,
    setting,
)
from raptor.core.errors import UserError
from raptor.quadrotor import Distribution
from raptor.tasks import References, Task, Trajectory
from raptor.training import TrainDirectConfig
from raptor.training.teachers.config import PreTrainConfig


@dataclasses.dataclass(frozen=True)
class Inner(Declared):
    interval: tuple[float, float] = setting((5.0, 10.0), "s", ascending(positive))
    low: float | None = setting(None, "m", optional(not_negative))
    points: tuple[tuple[float, float], ...] = ()


@dataclasses.dataclass(frozen=True)
class Entry(Declared):
    name: str
    height: float = setting(1.0, "m", positive)
    inner: Inner = Inner()


@dataclasses.dataclass(frozen=True)
class Listing:
    entries: tuple[Entry, ...] = (Entry("first"), Entry("second", height=2.0))


@dataclasses.dataclass(frozen=True)
class Settings(Declared):
    count: int = setting(3, "how many", at_least(1))
    rate: float = setting(0.5, "1/s", above(0))
    share: float = setting(0.5, "", between(0, 1))
    enabled: bool = True
    name: str = "a"
    method: Literal["slow", "fast"] = "slow"
    inner: Inner = Inner(low=2.0)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.count == 13:
            raise ValueError("count and luck do not go together")


def loaded(*overrides: str, file: Path | None = None) -> Settings:
    return load_config(Settings, file, overrides)


def refusal(*overrides: str, file: Path | None = None) -> str:
    with pytest.raises(UserError) as error:
        loaded(*overrides, file=file)
    return str(error.value)


def written(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_without_anything_the_defaults_hold() -> None:
    assert loaded() == Settings()
    assert load_config(TrainDirectConfig) == TrainDirectConfig()
    assert load_config(PreTrainConfig) == PreTrainConfig()
    assert load_config(Distribution) == Distribution()


def test_a_default_of_a_group_outlives_an_override_of_another_key_of_the_group() -> None:
    assert loaded("inner.interval=[1,2]") == Settings(inner=Inner((1.0, 2.0), low=2.0))


def test_overrides_are_read_as_yaml() -> None:
    assert loaded("rate=1e-3").rate == 1e-3
    assert loaded("rate=2").rate == 2.0
    assert loaded("rate=2.5%").rate == loaded("rate=2.5 %").rate == 0.025
    assert isinstance(loaded("rate=2").rate, float)
    assert loaded("count=2e3").count == 2000
    assert isinstance(loaded("count=2e3").count, int)
    assert loaded("enabled=false").enabled is False
    assert loaded("name=on").name == "on"
    assert loaded("name=2024-01-01").name == "2024-01-01"
    assert loaded("inner.low=null").inner.low is None
    assert loaded("inner.points=[[1,2],[3,4]]").inner.points == ((1.0, 2.0), (3.0, 4.0))


def test_the_last_override_of_a_key_counts() -> None:
    assert loaded("count=4", "count=5").count == 5


def test_overrides_go_over_the_file_and_the_file_goes_over_the_default(tmp_path: Path) -> None:
    file = written(tmp_path / "a.yaml", "count: 7\ninner:\n  interval: [1, 2]\n")
    assert loaded("count=8", file=file) == Settings(count=8, inner=Inner((1.0, 2.0), low=2.0))
    other = Settings(name="other")
    assert load_config(Settings, file, default=other).name == "other"


def test_a_file_inherits_from_its_base_relative_to_itself(tmp_path: Path) -> None:
    written(tmp_path / "base.yaml", "count: 7\nrate: 0.25\n")
    written(tmp_path / "deep" / "middle.yaml", "base: ../base.yaml\nrate: 0.75\ninner: {low: 1}\n")
    file = written(tmp_path / "deep" / "top.yaml", "base: middle.yaml\ninner: {interval: [1, 2]}\n")
    assert loaded(file=file) == Settings(count=7, rate=0.75, inner=Inner((1.0, 2.0), low=1.0))


def test_of_several_bases_the_later_one_counts(tmp_path: Path) -> None:
    written(tmp_path / "a.yaml", "count: 7\nrate: 0.25\n")
    written(tmp_path / "b.yaml", "count: 8\n")
    file = written(tmp_path / "c.yaml", "base: [a.yaml, b.yaml]\n")
    assert loaded(file=file) == Settings(count=8, rate=0.25)


def test_a_circle_of_bases_is_refused_and_shown(tmp_path: Path) -> None:
    written(tmp_path / "a.yaml", "base: b.yaml\n")
    file = written(tmp_path / "b.yaml", "base: a.yaml\n")
    assert "in a circle" in refusal(file=file)
    assert "a.yaml" in refusal(file=file)
    assert "in a circle" in refusal(file=written(tmp_path / "self.yaml", "base: self.yaml\n"))


def test_a_base_may_be_reached_twice_without_being_a_circle(tmp_path: Path) -> None:
    written(tmp_path / "root.yaml", "count: 7\n")
    written(tmp_path / "a.yaml", "base: root.yaml\n")
    written(tmp_path / "b.yaml", "base: root.yaml\n")
    assert loaded(file=written(tmp_path / "c.yaml", "base: [a.yaml, b.yaml]\n")).count == 7


def test_a_group_that_is_left_empty_and_an_empty_file_change_nothing(tmp_path: Path) -> None:
    assert loaded(file=written(tmp_path / "a.yaml", "inner:\n  # interval: [1, 2]\n")) == Settings()
    assert loaded(file=written(tmp_path / "b.yaml", "")) == Settings()


def test_a_value_can_stand_for_another_one(tmp_path: Path) -> None:
    assert loaded("inner.low=${share}", "share=0.25").inner.low == 0.25
    assert loaded("name=${method}-${inner.low}", "inner.low=3").name == "slow-3"
    file = written(tmp_path / "a.yaml", "inner: {interval: ['${rate}', '${share}']}\nrate: ${share}\nshare: 0.75\n")
    assert loaded(file=file).inner.interval == (0.75, 0.75)
    assert load_config(Site, None, ["right=${left}", "left.count=3"]) == Site(Plant(3), Plant(3))


@pytest.mark.parametrize(
    ("overrides", "error"),
    [
        (["rate=${nothing}"], "rate cannot be resolved: ${nothing} is not the name of another key"),
        (["rate=${inner.high}"], "rate cannot be resolved: ${inner.high} is not the name of another key"),
        (["rate=${rate}"], "rate cannot be resolved: rate -> rate is a circle"),
        (["rate=${share}", "share=${rate}"], "rate cannot be resolved: share -> rate -> share is a circle"),
        (["inner=${inner}"], "inner cannot be resolved: inner -> inner is a circle"),
        (["name=${oc.env:HOME}"], "name cannot be resolved: ${oc.env:HOME} is not the name of another key"),
        (["name=${oc.${method}:HOME}"], "name cannot be resolved: ${oc.${method}:HOME} holds more than the names of"),
        (["name=${oc.decode:x}"], "name cannot be resolved: ${oc.decode:x} is not the name of another key"),
        (["name=${rate"], "name cannot be resolved: ${rate holds more than the names of other keys"),
        (["inner=${other}", "inner.low=1"], "inner is given both as ${other} and by keys of its own: keep one"),
    ],
)
def test_what_is_not_the_name_of_another_key_stands_for_nothing(overrides: list[str], error: str) -> None:
    assert refusal(*overrides).startswith(error)


def test_aliases_and_references_that_multiply_are_refused_at_once(tmp_path: Path) -> None:
    aliases = "".join(f"a{i + 1}: &a{i + 1} [" + f"*a{i}, " * 9 + "]\n" for i in range(8))
    file = written(tmp_path / "a.yaml", f"a0: &a0 [1]\n{aliases}")
    assert f"{file} is not valid YAML: it holds more than 100000 values" in refusal(file=file)
    references = "".join(f"a{i + 1}: [" + f"'${{a{i}}}'," * 9 + "]\n" for i in range(8))
    file = written(tmp_path / "b.yaml", f"a0: [1]\n{references}")
    assert "cannot be resolved: there are more than 100000 values" in refusal(file=file)
    file = written(tmp_path / "c.yaml", "count: &t [*t]\n")
    assert refusal(file=file) == f"{file} is not valid YAML: *t contains itself (line 1, column 12)"


def test_the_old_name_of_a_setting_is_refused_with_the_new_one(tmp_path: Path) -> None:
    file = written(tmp_path / "a.yaml", "workers: 3\n")
    with pytest.raises(UserError) as refused:
        load_config(Plant, file, ["machine.place=there", "machine.size=large"])
    assert str(refused.value) == (
        f"workers is unknown ({file}): it is called count now; "
        "machine.place is unknown (command line): it is called address now; "
        "machine.size is unknown (command line): the keys of machine are kind, address"
    )


def test_settings_from_dictionaries_are_those_that_were_written_and_are_checked() -> None:
    config = Listing((Entry("a", inner=Inner(low=1.0)), Entry("b", height=3.0)))
    assert from_dict(Listing, to_dict(config)) == config
    assert from_dict(Settings, {"inner": {"low": None}}) == Settings(inner=Inner(low=None))
    assert from_dict(Plant, {"machine": "large"}) == Plant(machine=Machine("large"))
    given = {"count": 4}
    assert from_dict(Settings, given) == Settings(count=4)
    assert given == {"count": 4}
    for wrong, sentence in (
        ({"cuont": 1}, r"^cuont is unknown \(settings\): did you mean count\?"),
        ({"rate": -1}, r"^rate must be positive, got -1 \(settings\)$"),
        ({"inner": {"low": "x"}}, r'^inner\.low must be a number or null, got "x" \(settings\)$'),
    ):
        with pytest.raises(UserError, match=sentence):
            from_dict(Settings, wrong)


@pytest.mark.parametrize(
    ("override", "error"),
    [
        ("cuont=1", "cuont is unknown (command line): did you mean count? The keys are count, rate, share, enabled"),
        (
            "inner.intervall=[1,2]",
            "inner.intervall is unknown (command line): did you mean interval? The keys of inner",
        ),
        ("zzz=1", "zzz is unknown (command line): the keys are count"),
        ("count=many", 'count must be a whole number, got "many" (command line)'),
        ("count=20%", 'count must be a whole number, got "20%" (command line)'),
        ("count=1.5", "count must be a whole number, got 1.5 (command line)"),
        ("count=true", "count must be a whole number, got true (command line)"),
        ("count='3'", 'count must be a whole number, got "3" (command line)'),
        ("count=", "count must be a whole number, got null (command line)"),
        ("rate=fast", 'rate must be a number, got "fast" (command line)'),
        ("rate=true", "rate must be a number, got true (command line)"),
        ("rate=[1]", "rate must be a number, got [1] (command line)"),
        ("rate.x=1", 'rate must be a number, got {"x": 1} (command line)'),
        ("rate=.nan", "rate must be finite, got NaN (command line)"),
        ("rate=.inf", "rate must be finite, got Infinity (command line)"),
        (
            "inner.interval=[1,.inf]",
            "inner.interval must be finite, got [1, Infinity] (command line)",
        ),
        ("count=1e19", "count must be a whole number, got 1e+19 (command line)"),
        (
            "count=-9999999999999999999",
            "count must be below 2^63, got -9999999999999999999",
        ),
        ("enabled=1", "enabled must be true or false, got 1 (command line)"),
        ("name=3", "name must be text, got 3 (command line)"),
        ("method=medium", 'method must be one of slow, fast, got "medium" (command line)'),
        ("inner=3", "inner must be a group of settings, got 3 (command line)"),
        ("inner=[3]", "inner must be a group of settings, got [3] (command line)"),
        ("inner.interval.0=3", 'inner.interval must be [a number, a number], got {"0": 3} (command line)'),
        ("inner.low=x", 'inner.low must be a number or null, got "x" (command line)'),
        ("inner.interval=[1]", "inner.interval must be [a number, a number], got [1] (command line)"),
        ("inner.interval=[1,2,3]", "inner.interval must be [a number, a number], got [1, 2, 3] (command line)"),
        ("inner.interval=[1,x]", 'inner.interval must be [a number, a number], got [1, "x"] (command line)'),
        ("inner.points=[1]", "inner.points must be a list, each entry [a number, a number], got [1] (command line)"),
        ("count=0", "count must be at least 1, got 0 (command line)"),
        ("rate=0", "rate must be positive, got 0 (command line)"),
        ("share=1.5", "share must be between 0 and 1, got 1.5 (command line)"),
        ("inner.low=-1", "inner.low must be at least 0, got -1 (command line)"),
        ("inner.interval=[2,1]", "inner.interval must be (low, high) with low <= high, each positive, got [2, 1]"),
        ("count=13", "the configuration is impossible: count and luck do not go together"),
        ("count", "a setting is given as key=value, for example learning_rate=1e-3, got 'count'"),
        ("=1", "a setting is given as key=value"),
        ("inner..low=1", "a setting is given as key=value"),
        ("count=[1,", "'count=[1,' (command line) is not valid YAML: while parsing a flow node"),
        ("count=&a [*a]", "'count=&a [*a]' (command line) is not valid YAML: *a contains itself"),
    ],
)
def test_a_wrong_setting_is_refused_with_its_key_its_value_and_what_is_allowed(override: str, error: str) -> None:
    assert refusal(override).startswith(error)


def test_every_wrong_setting_is_named_with_the_place_that_it_comes_from(tmp_path: Path) -> None:
    base = written(tmp_path / "base.yaml", "count: many\nrate: -1\n")
    file = written(tmp_path / "top.yaml", "base: base.yaml\nshare: 2\ninner: {lwo: 1, interval: [3, 1]}\n")
    text = refusal("method=medium", file=file)
    assert f'count must be a whole number, got "many" ({base})' in text
    assert f"rate must be positive, got -1 ({base})" in text
    assert f"share must be between 0 and 1, got 2 ({file})" in text
    assert f"inner.lwo is unknown ({file}): did you mean low?" in text
    assert f"low <= high, each positive, got [3, 1] ({file})" in text
    assert 'method must be one of slow, fast, got "medium" (command line)' in text
    assert text.count(";") == 5


def test_a_file_that_cannot_be_used_is_refused_by_name(tmp_path: Path) -> None:
    missing = tmp_path / "no.yaml"
    assert f"there is no configuration file {missing}" in refusal(file=missing)
    assert f"the presets {', '.join(presets())}" in refusal(file=missing)
    based = written(tmp_path / "a.yaml", "base: no.yaml\n")
    assert f"there is no configuration file {missing} (base of {based})" in refusal(file=based)
    assert "is not valid YAML" in refusal(file=written(tmp_path / "b.yaml", "count: [1\n"))
    assert "the key count comes twice" in refusal(file=written(tmp_path / "c.yaml", "count: 1\ncount: 2\n"))
    assert "must hold keys with values, got [1]" in refusal(file=written(tmp_path / "d.yaml", "[1]\n"))
    assert "base must be the name of a file" in refusal(file=written(tmp_path / "e.yaml", "base: 3\n"))
    assert "is not valid YAML" in refusal(file=written(tmp_path / "f.yaml", "!!python/object/apply:os.getcwd []\n"))
    (tmp_path / "g.yaml").write_bytes(b"\xff\xfe\x00")
    assert "is not valid YAML" in refusal(file=tmp_path / "g.yaml")


def test_what_to_yaml_writes_is_read_back_the_same(tmp_path: Path) -> None:
    config = load_config(TrainDirectConfig, "paper", ["learning_rate=1.2345678901234567e-5", "num_updates=1e3"])
    assert load_config(TrainDirectConfig, written(tmp_path / "a.yaml", to_yaml(config))) == config


@settings(max_examples=30)
@given(st.floats(min_value=1e-300, max_value=1e300), st.text(max_size=20).filter(lambda text: "${" not in text))
def test_any_number_and_any_text_survive_yaml(rate: float, name: str) -> None:
    import tempfile

    config = Settings(rate=rate, name=name)
    with tempfile.TemporaryDirectory() as folder:
        assert load_config(Settings, written(Path(folder) / "a.yaml", to_yaml(config))) == config


def test_a_list_of_groups_is_read_as_a_whole_and_its_entries_have_the_defaults_of_their_class(tmp_path: Path) -> None:
    file = written(tmp_path / "a.yaml", "entries:\n  - {name: a, inner: {low: 1}}\n  - {name: b, height: 3}\n")
    expected = Listing((Entry("a", inner=Inner(low=1.0)), Entry("b", height=3.0)))
    assert load_config(Listing, file) == expected
    assert load_config(Listing, file, ["entries=[{name: c}]"]) == Listing((Entry("c"),))
    assert load_config(Listing) == Listing()
    text = to_yaml(expected)
    assert "- name: a\n  height: 1.0\n" in text
    assert load_config(Listing, written(tmp_path / "b.yaml", text)) == expected


@pytest.mark.parametrize(
    ("override", "error"),
    [
        (
            "entries=[{nmae: a}]",
            "entries.0.nmae is unknown (command line): did you mean name? The keys of entries.0 are",
        ),
        ("entries=[{name: a}, {height: 1}]", "entries.1.name must be text, got null (command line)"),
        ("entries=[{name: a, height: x}]", 'entries.0.height must be a number, got "x" (command line)'),
        ("entries=[{name: a, height: 0}]", "entries.0.height must be positive, got 0 (command line)"),
        ("entries=[{name: a, height: .inf}]", "entries.0.height must be finite, got Infinity (command line)"),
        ("entries=[{name: a, inner: {low: -1}}]", "entries.0.inner.low must be at least 0, got -1 (command line)"),
        ("entries=[3]", "entries.0 must be a group of settings, got 3 (command line)"),
        ("entries=3", "entries must be a list, each entry a group of settings, got 3 (command line)"),
        ("entries.0.height=3", "entries must be a list, each entry a group of settings, got {"),
    ],
)
def test_a_wrong_entry_of_a_list_is_refused_with_its_place(override: str, error: str) -> None:
    with pytest.raises(UserError) as refused:
        load_config(Listing, None, [override])
    assert str(refused.value).startswith(error)


def test_differences_within_lists_of_groups_are_named_entry_by_entry() -> None:
    assert differences(Listing(), Listing((Entry("first"), Entry("second", height=3.0)))) == [
        "entries.1.height (2.0, now 3.0)"
    ]
    assert 'entries.1.name ("second", now null)' in differences(Listing(), Listing((Entry("first"),)))


@dataclasses.dataclass(frozen=True)
class Machine:
    SHORTHAND: ClassVar[str] = "kind"
    RENAMED: ClassVar[dict[str, str]] = {"place": "address"}

    kind: Literal["small", "large"] = "small"
    address: str = "here"


@dataclasses.dataclass(frozen=True)
class Plant:
    RENAMED: ClassVar[dict[str, str]] = {"workers": "count"}

    count: int = 1
    machine: Machine = Machine()


@dataclasses.dataclass(frozen=True)
class Site:
    left: Plant = Plant()
    right: Plant = Plant()


@pytest.mark.parametrize(
    "overrides",
    [
        ("machine=large", "machine.address=there"),
        ("machine.address=there", "machine=large"),
        ("machine={kind: large, address: there}",),
    ],
)
def test_a_plain_value_stands_for_one_field_of_a_group_beside_the_others(overrides: tuple[str, ...]) -> None:
    assert load_config(Plant, None, overrides) == Plant(machine=Machine("large", "there"))


def test_a_plain_value_for_a_group_is_read_from_files_too_and_never_written(tmp_path: Path) -> None:
    base = written(tmp_path / "base.yaml", "machine: {kind: small, address: there}\n")
    plant = load_config(Plant, written(tmp_path / "a.yaml", f"base: {base}\nmachine: large\n"))
    assert plant == Plant(machine=Machine("large", "there"))
    assert to_dict(plant)["machine"] == {"kind": "large", "address": "there"}
    assert load_config(Plant, written(tmp_path / "b.yaml", to_yaml(plant))) == plant
    assert differences(Plant(), load_config(Plant, None, ["machine=large"])) == ['machine.kind ("small", now "large")']


def test_a_wrong_plain_value_for_a_group_is_refused_under_the_field_that_it_stands_for(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r'^machine\.kind must be one of small, large, got "lagre" \(command line\)$'):
        load_config(Plant, None, ["machine=lagre"])
    file = written(tmp_path / "a.yaml", "machine: 3\n")
    with pytest.raises(UserError, match=rf"^machine\.kind must be one of small, large, got 3 \({file}\)$"):
        load_config(Plant, file)


def test_differences_name_each_key_with_both_values() -> None:
    assert differences(Settings(), Settings()) == []
    assert differences(Settings(), Settings(count=4, inner=Inner((1.0, 2.0)))) == [
        "count (3, now 4)",
        "inner.interval ([5.0, 10.0], now [1.0, 2.0])",
        "inner.low (2.0, now null)",
    ]


def test_to_dict_holds_only_what_yaml_and_json_know() -> None:
    assert to_dict(Settings())["inner"] == {"interval": [5.0, 10.0], "low": 2.0, "points": []}


@pytest.mark.parametrize(
    ("annotation", "words"),
    [
        (int, "a whole number"),
        (float | None, "a number or null"),
        (tuple[float, int], "[a number, a whole number]"),
        (tuple[float, ...], "a list, each entry a number"),
        (Literal["a", "b"], "one of a, b"),
        (Settings, "a group of settings"),
    ],
)
def test_types_are_described_in_words(annotation: Any, words: str) -> None:
    assert describe(annotation) == words


def test_plain_values_become_what_a_field_holds_in_python_too() -> None:
    assert Task(observation=["rotation", "up_body"]) == Task(observation=("rotation", "up_body"))
    assert Task(observation="rotation").observation == ("rotation",)
    assert Task(references=References(trajectory="circle")).references.trajectory == Trajectory("circle")
    with pytest.raises(UserError, match=r"^references must be of the class References, got 'circle'$"):
        Task(references="circle")


def test_limits_hold_in_python_too_and_name_all_fields() -> None:
    with pytest.raises(UserError, match=r"count must be at least 1, got 0; rate must be positive, got -1"):
        Settings(count=0, rate=-1.0)
    with pytest.raises(ValueError, match="count and luck"):
        Settings(count=13)


def test_limits_are_inherited_and_added_to() -> None:
    @dataclasses.dataclass(frozen=True)
    class More(Settings):
        count: int = 5
        more: tuple[tuple[float, ...], ...] = setting((), "", each(positive))

    with pytest.raises(UserError, match="count must be at least 1, got 0; more must be positive in every entry"):
        More(count=0, more=((1.0, 0.0),))
    with pytest.raises(ValueError, match="count and luck"):
        More(count=13)
    assert More(more=((1.0, 2.0),)).more == ((1.0, 2.0),)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_no_limit_lets_a_number_pass_that_is_not_finite(value: float) -> None:
    for limit in (positive, not_negative, at_least(1), between(0, 1), optional(positive), each(positive)):
        assert not limit.allows(value)
    assert not ascending(not_negative).allows((0.0, value))
