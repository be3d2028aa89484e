"""Terms of one's own: declared, checked before anything starts, stored by name, handed over in a file."""

from __future__ import annotations

import sys
import textwrap

import pytest
import torch

from raptor import RaptorPolicy, Task, UserError
from raptor.config import from_dict, load_config, to_dict
from raptor.config.settings import not_negative, setting
from raptor.rl.objective import Objective
from raptor.tasks import terms
from raptor.tasks.terms import Terms, extend, find_term, term
from raptor.tasks.views import Wrench


@pytest.fixture(autouse=True)
def registry(monkeypatch):
    """Each test declares its own terms."""
    monkeypatch.setattr(terms, "_registered", dict(terms._registered))
    monkeypatch.setattr(terms, "_extensions", {})


def roll_rate(step, limit: float = setting(1.0, "rad/s, below which it costs nothing", not_negative)):
    """Roll rate beyond a limit."""
    return torch.relu(step.next_state.angular_velocity[..., 0].abs() - limit)


def test_a_term_is_used_and_set_by_its_name():
    term("cost", weight=0.1)(roll_rate)
    task = load_config(Task, None, ["extra.roll_rate.limit=2"])
    (use,) = task.own("cost")
    assert (use.weight, use.settings.limit) == (0.1, 2.0)
    assert load_config(Task, None, ["extra=[roll_rate]"]).own("cost")[0].settings.limit == 1.0
    assert not load_config(Task, None, ["extra.roll_rate=null"], default=task).extra


def test_settings_of_a_term_are_stored_by_name_and_read_back():
    declared = term("cost", weight=0.1)(roll_rate)
    task = Task(extra=[declared(limit=3.0)])
    assert to_dict(task)["extra"] == {"roll_rate": {"weight": 0.1, "limit": 3.0}}
    again = from_dict(Task, to_dict(task))
    assert again == task
    assert hash(again) == hash(task)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("extra.roll_rate.limit=-1", "extra.roll_rate.limit must be at least 0, got -1"),
        ("extra.roll_rate.limit=fast", "extra.roll_rate.limit must be a number"),
        ("extra.roll_rate.limt=1", "did you mean limit"),
        ("extra.roll_rat.limit=1", "there is no term roll_rat: did you mean roll_rate"),
        ("extra.height.limit=1", "there is no term height: hand over the file that declares it with --extend"),
        ("extra.roll_rate=3", "must be a group of settings"),
    ],
)
def test_settings_of_a_term_are_checked_as_all_others(setting, message):
    term("cost")(roll_rate)
    with pytest.raises(UserError, match=message):
        load_config(Task, None, [setting])


@pytest.mark.parametrize(
    ("use", "message"),
    [
        (lambda declared: declared(limit="x"), "the term roll_rate cannot be used so: limit must be a number, got"),
        (lambda declared: declared(limit=-1), "roll_rate cannot be used so: limit must be at least 0"),
        (lambda declared: declared(limt=1), "the settings of roll_rate are weight, limit: got limt"),
        (lambda declared: declared(3), r"roll_rate is a term, called with settings by name"),
    ],
)
def test_settings_of_a_term_are_checked_in_python_too(use, message):
    with pytest.raises(UserError, match=message):
        use(term("cost")(roll_rate))


def test_one_term_or_none_is_handed_over_without_a_list():
    declared = term("cost")(roll_rate)
    assert Task(extra=declared) == Task(extra=[declared]) == Task(extra=declared(limit=1.0))
    assert Task(extra=None) == Task()


def test_a_plain_function_is_handed_over_where_the_kind_is_clear():
    assert Objective(terms=[roll_rate]).terms["roll_rate"].limit == 1.0
    with pytest.raises(UserError, match=r"decorated with @raptor\.term"):
        Task(extra=[roll_rate])
    with pytest.raises(UserError, match="a cost term, and a reward term is expected"):
        Task(extra_rewards=[find_term("roll_rate")])


def test_two_functions_do_not_share_a_name():
    term("cost")(roll_rate)
    term("cost")(roll_rate)  # declared anew, as in a notebook
    with pytest.raises(UserError, match="there is a term roll_rate already"):
        term("cost", "roll_rate")(lambda step: step.action[..., 0])
    with pytest.raises(UserError, match="needs a name"):
        term("cost")(lambda step: step.action[..., 0])


COST = "import raptor\n@raptor.term('cost')\n"

UNFIT = {
    "must give cost of shape .3,. for .3,. vehicles, got .3, 3.": lambda s: s.next_state.angular_velocity,
    "take components as x": lambda s: s.action[:, 0],
    "gradient that is not finite where a vehicle hovers": lambda s: torch.sqrt((s.position_error**2).sum(-1)),
    "reads speed, which it is not given: it is given quadrotors, state": lambda s: s.speed,
    "do not mix vehicles": lambda s: s.action[..., 0] - s.action[..., 0].mean(),
    "other numbers when it is called again": lambda s: s.action[..., 0] + torch.rand(()),
    "is not finite for every vehicle": lambda s: s.action[..., 0] / 0,
    "writes into what it is given": lambda s: s.action.mul_(2)[..., 0],
    "writes into what it is given: compute": lambda s: s.action.clamp_(-9, 9)[..., 0],  # and changes nothing
    "has no gradient to descend": lambda s: (s.action[..., 0] > 0).float(),
    "cannot be compiled": lambda s: s.action[..., 0] * (1 if s.dt * torch.ones(()).item() > 0 else 2),
    "must give floating-point numbers": lambda s: s.action[..., 0] > 0,
    "cannot be computed: ZeroDivisionError": lambda s: s.action[..., 0] * (1 // 0),
}


@pytest.mark.parametrize("message", UNFIT)
def test_an_unfit_term_is_refused_by_name_before_anything_starts(message):
    with pytest.raises(UserError, match=f"the cost term unfit .*{message}"):
        Objective(terms=[term("cost", "unfit")(UNFIT[message])])


def test_disturbances_observations_and_terminations_are_checked_as_what_they_give():
    unfit = {
        "must give a raptor.tasks.views.Wrench": ("disturbance", lambda view: view.state.position),
        "must give force of shape": ("disturbance", lambda view: Wrench(force=view.state.position[..., 0])),
        "must give observation of shape .3, K.": ("observation", lambda view: view.state.position[..., 0]),
        "must give true or false": ("termination", lambda step: step.action[..., 0]),
    }
    for message, (kind, function) in unfit.items():
        with pytest.raises(UserError, match=message):
            Task(extra=[term(kind, f"unfit_{kind}")(function)])
    with pytest.raises(UserError, match=r"it must give \(observation, memory\)"):
        Task(extra=[term("observation", "forgets", memory=2)(lambda view: view.state.position)])


def test_a_file_of_terms_is_handed_over(tmp_path):
    file = tmp_path / "mine.py"
    file.write_text(
        textwrap.dedent("""
        import raptor

        @raptor.term("reward", weight=2.0)
        def low(step):
            return -step.next_state.position[..., 2]
        """)
    )
    with pytest.raises(UserError, match="there is no term low"):
        find_term("low")
    assert extend(file) == ("low",)
    assert extend(file) == ("low",)
    assert find_term("low")().weight == 2.0
    assert [each.name for each in terms.unused_extensions("task: {extra: {}}")] == ["low"]
    assert not terms.unused_extensions("extra: {low: {weight: 2.0}}")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("import raptor\n\nx = 1 / 0\n", r"cannot be run: ZeroDivisionError.*\(line 3\)"),
        ("def f(:\n", r"cannot be run: SyntaxError.*\(line 1\)"),
        ("x = 1\n", "declares no term: decorate a function"),
        ("import raptor\n@raptor.term('cost')\ndef f(step, x): ...\n", "the argument x of the term f needs a default"),
        ("import raptor\nraise SystemExit(3)\n", r"cannot be run: SystemExit: 3 \(line 2\)"),
        (COST + "def f(step): ...\n" + COST + "def f(step): ...\n", r"the term f is declared twice.* line 5\)"),
        (COST + "def f(step, weight=2): ...\n", "the argument weight of the term f is given by the decorator"),
        (COST + "def f(step, size={}): ...\n", "the argument size of the term f must have as default a finite number"),
        (COST + "def f(step, size=None): ...\n", "the argument size of the term f must have as default"),
        ("import raptor\n@raptor.term('cost', weight='a')\ndef f(step): ...\n", "weight of a term must be a number"),
        ("import raptor\n@raptor.term('cost', memory=3)\ndef f(step): ...\n", "a cost has no memory, only disturb"),
        ("import raptor\n@raptor.term('termination', weight=2)\ndef f(s): ...\n", "a termination has no weight"),
        ("import raptor\n@raptor.term('observation', noise=-1)\ndef f(v): ...\n", "noise of a term must be a whole"),
        ("import raptor\n@raptor.term('cost', 'class')\ndef f(s): ...\n", "a term needs a name of letters"),
        ("import raptor\n@raptor.term('prize')\ndef f(step): ...\n", "the kind of a term is one of cost, reward"),
    ],
)
def test_a_broken_file_of_terms_is_one_sentence(tmp_path, text, message):
    (tmp_path / "mine.py").write_text(text)
    with pytest.raises(UserError, match=message):
        extend(tmp_path / "mine.py")
    with pytest.raises(UserError, match="there is no Python file"):
        extend(tmp_path / "other.py")


def test_files_of_one_name_are_told_apart_and_import_what_lies_beside_them(tmp_path):
    for folder, name in (("a", "first"), ("b", "second")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / f"beside_{folder}.py").write_text("FACTOR = 2.0\n")
        text = f"import raptor\nfrom beside_{folder} import FACTOR\n@raptor.term('cost')\n"
        (tmp_path / folder / "mine.py").write_text(f"{text}def {name}(step): return FACTOR * step.action[..., 0]\n")
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / "mine.py").write_text((tmp_path / "a" / "mine.py").read_text().replace("beside_a", "beside_b"))
    path = list(sys.path)
    assert extend(tmp_path / "a" / "mine.py") == ("first",)
    assert extend(tmp_path / "b" / "mine.py") == ("second",)
    with pytest.raises(UserError, match=r"there is a term first already \(.*a/mine.py\): .*c/mine.py, line 3\)"):
        extend(tmp_path / "c" / "mine.py")
    assert sys.path == path


def test_a_policy_says_what_it_observes_and_needs_the_term_for_it():
    declared = term("observation", "altitude")(lambda view, scale=1.0: scale * view.state.position[..., 2:])
    task = Task(observation=("position_error", "altitude"), extra=[declared(scale=2.0)])
    policy = RaptorPolicy(task.observation_dim)
    policy.layout = task.policy_layout
    assert policy.layout == {"observation": ["position_error", "altitude"], "extra": {"altitude": {"scale": 2.0}}}
    assert Task().observing(policy.layout) == task
    assert Task().observing({}) == Task()
    del terms._registered["altitude"]
    with pytest.raises(UserError, match="altitude"):
        Task().observing(policy.layout)


def test_terms_of_one_name_are_given_once():
    declared = term("cost")(roll_rate)
    with pytest.raises(UserError, match="given twice"):
        Terms([declared, declared(limit=2.0)])
