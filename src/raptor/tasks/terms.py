"""Terms: small pure functions with a name and settings, of which costs, rewards, observations and others are made.

One's own are declared by a decorator, and used by `task.extra.NAME.KEY=VALUE`, or `Task(extra=[...])`:

    @raptor.term("cost", weight=0.1)
    def roll_rate(step):
        return step.next_state.angular_velocity[..., 0] ** 2
"""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import functools
import importlib.metadata
import importlib.util
import inspect
import keyword
import pickle
import re
import sys
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from raptor.config.load import from_dict, to_dict
from raptor.config.settings import NamedGroups, Settings, setting
from raptor.core.atomic import PathLike, checked_path
from raptor.core.errors import UserError, first_line
from raptor.quadrotor.files import is_finite_number

Kind = Literal["cost", "reward", "termination", "observation", "disturbance", "trajectory"]
KINDS: tuple[str, ...] = typing.get_args(Kind)
ENTRY_POINTS = "raptor.terms"
"""Group of the entry points by which an installed package offers terms, each under its own name."""

WEIGHTED = ("cost", "reward")

_registered: dict[str, Term] = {}
_extensions: dict[Path, tuple[str, ...]] = {}
_running: set[str] | None = None  # names that the extension which is being run has declared so far


@dataclasses.dataclass(frozen=True, eq=False)
class Term:
    """A pure function and what it needs; called with settings, it gives a `Use` of it."""

    kind: Kind
    name: str
    function: Callable[..., Any]  # of what its kind is given (see `raptor.tasks.views`), and of its settings by name
    settings: type[Settings]  # its keyword arguments; of costs and rewards also `weight`
    memory: int = 0  # numbers that it remembers from step to step, zero at the start of an episode
    noise: int = 0  # standard normal numbers that it is given at each step
    draws: int = 0  # standard normal numbers that it is given for each episode

    def __call__(self, *view: Any, **settings: Any) -> Use:
        """Use it with these settings; a wrong one is a `UserError`."""
        fields = [field.name for field in dataclasses.fields(self.settings)]
        if view:
            raise UserError(
                f"{self.name} is a term, called with settings by name: its function is {self.name}.function"
            )
        if unknown := [name for name in settings if name not in fields]:
            raise UserError(f"the settings of {self.name} are {', '.join(fields) or 'none'}: got {unknown[0]}")
        try:
            return Use(self, from_dict(self.settings, settings) if settings else self.settings())
        except UserError as error:
            raise UserError(f"the term {self.name} cannot be used so: {error}") from error

    def __deepcopy__(self, memo: Any) -> Term:
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle it by its name, and the file that declares it."""
        if _registered.get(self.name) is not self:
            raise pickle.PicklingError(f"the term {self.name} is not the one that is known by this name")
        return _found, (self.name, [str(file) for file, names in _extensions.items() if self.name in names])

    @property
    def meaning(self) -> str:
        """The first line of its docstring."""
        return (inspect.getdoc(self.function) or "").partition("\n")[0]


@dataclasses.dataclass(frozen=True)
class Use:
    """A term with settings."""

    term: Term
    settings: Settings

    @property
    def weight(self) -> float:
        """Of a cost or a reward."""
        return float(getattr(self.settings, "weight", 1.0))

    def __call__(self, view: Any) -> Any:
        """What the function gives for a view of its kind, unweighted."""
        given = {name: value for name, value in vars(self.settings).items() if name != "weight" or not self._weighted}
        return self.term.function(view, **given)

    def __reduce__(self) -> tuple[Any, ...]:
        return functools.partial(self.term, **to_dict(self.settings)), ()

    @property
    def _weighted(self) -> bool:
        return self.term.kind in WEIGHTED


Handed = Use | Term | Callable[..., Any]


class Terms(NamedGroups, Mapping[str, Settings]):
    """Terms in use, in the order in which they are given; their settings by name. Hashable."""

    def __init__(self, uses: Iterable[Handed] = (), kind: Kind | None = None) -> None:
        self.uses = tuple(_used(each, kind) for each in uses)
        names = [use.term.name for use in self.uses]
        if twice := next((name for name in names if names.count(name) > 1), None):
            raise UserError(f"the term {twice} is given twice: keep one of them")

    def of_kind(self, *kinds: str) -> tuple[Use, ...]:
        """Those of some kinds."""
        return tuple(use for use in self.uses if use.term.kind in kinds)

    @classmethod
    def over(cls, given: Terms | Iterable[Handed] | Use | Term | None, kind: Kind | None = None) -> Terms:
        """What a field was given as `Terms`, of one kind where it is named."""
        if kind is None and isinstance(given, Terms):
            return given
        if given is None or isinstance(given, (Use, Term)):
            given = () if given is None else (given,)
        return cls(given.uses if isinstance(given, Terms) else given, kind)

    @classmethod
    def class_of(cls, name: str) -> type:
        """The settings of the registered term of this name."""
        return find_term(name).settings

    @classmethod
    def of(cls, groups: Mapping[str, Any]) -> Terms:
        """Registered terms with these settings."""
        return cls(Use(find_term(name), settings) for name, settings in groups.items())

    def __getitem__(self, name: str) -> Settings:
        return next(use.settings for use in self.uses if use.term.name == name)

    def __iter__(self) -> Iterator[str]:
        return (use.term.name for use in self.uses)

    def __len__(self) -> int:
        return len(self.uses)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Terms) and self.uses == other.uses

    def __hash__(self) -> int:
        return hash(self.uses)

    def __repr__(self) -> str:
        return f"Terms({', '.join(f'{name}: {settings}' for name, settings in self.items())})"


def term(
    kind: Kind, name: str | None = None, *, weight: float | None = None, memory: int = 0, noise: int = 0, draws: int = 0
) -> Callable[[Callable[..., Any]], Term]:
    """Declare the decorated function as a term and register it by its name.

    Its first argument is the view of its kind, see `raptor.tasks.views`; each further one, with a default, is a setting
    of its own, declared by a plain value or by `raptor.config.settings.setting`. Costs and rewards have the setting
    `weight` beside them, 1 by default. Of the others see `Term`.
    """
    if kind not in KINDS:
        raise UserError(f"the kind of a term is one of {', '.join(KINDS)}, got {kind!r}")
    _check_options(kind, weight, {"memory": memory, "noise": noise, "draws": draws})

    def declare(function: Callable[..., Any]) -> Term:
        called = str(name or getattr(function, "__name__", ""))
        if not called.isidentifier() or keyword.iskeyword(called) or called.startswith("_"):
            raise UserError(f"a term needs a name of letters, digits and _, got {called!r}: give name=...")
        weighted = {"weight": 1.0 if weight is None else float(weight)} if kind in WEIGHTED else {}
        settings = _settings_class(function, called, weighted)
        declared = Term(kind, called, function, settings, memory=memory, noise=noise, draws=draws)
        known = _registered.get(called)
        if _running is not None and called in _running:
            raise UserError(f"the term {called} is declared twice: choose another name for one of them")
        if known is not None and not _are_one(known.function, function):
            where = inspect.getsourcefile(known.function) or known.function.__module__
            raise UserError(f"there is a term {called} already ({where}): choose another name")
        _registered[called] = declared
        if _running is not None:
            _running.add(called)
        return declared

    return declare


def find_term(name: str) -> Term:
    """The registered term of this name, or the one that an installed package offers."""
    if name not in _registered:
        for entry in importlib.metadata.entry_points(group=ENTRY_POINTS, name=name):
            entry.load()
    if name not in _registered:
        near = difflib.get_close_matches(name, _registered, 1, 0.75)
        meant = f"did you mean {near[0]}? Else " if near else ""
        own = [known for known, found in _registered.items() if not found.function.__module__.startswith("raptor.")]
        there = f"; your own are {', '.join(own)}" if own else ""
        remedy = "hand over the file that declares it with --extend FILE (in Python: raptor.tasks.extend)"
        raise UserError(f"there is no term {name}: {meant}{remedy}, or install the package that offers it{there}")
    return _registered[name]


def terms_of_kind(kind: Kind) -> dict[str, Term]:
    """All registered terms of a kind, by name."""
    return {name: found for name, found in _registered.items() if found.kind == kind}


def extend(file: PathLike) -> tuple[str, ...]:
    """Run a Python file of one's own, which declares terms; returns their names. Call it before settings are read."""
    path = checked_path(file, "the extension").resolve()
    if path in _extensions:
        return _extensions[path]
    module_name = f"raptor_extension_{path.stem}_{len(_extensions)}"
    spec = importlib.util.spec_from_file_location(module_name, path) if path.is_file() else None
    if spec is None or spec.loader is None:
        raise UserError(f"there is no Python file {file} to extend raptor with: name a file that declares terms")
    module, before = importlib.util.module_from_spec(spec), dict(_registered)
    sys.modules[module_name] = module
    try:
        with _declaring(path.parent):
            spec.loader.exec_module(module)
    except UserError as error:
        raise UserError(f"{error} ({file}{_line(error, path, ', line {}')})") from error
    except (Exception, SystemExit) as error:
        where = _line(error, path, " (line {})")
        raise UserError(f"{file} cannot be run: {type(error).__name__}: {first_line(error)}{where}") from error
    new = tuple(name for name, found in _registered.items() if before.get(name) is not found)
    if not new:
        raise UserError(
            f"{file} declares no term: decorate a function with @raptor.term(KIND), one of {', '.join(KINDS)}"
        )
    _extensions[path] = new
    return new


@contextlib.contextmanager
def _declaring(folder: Path) -> Iterator[None]:
    """While an extension is run: the modules beside it can be imported, and each name can be declared once."""
    global _running
    _running = set()
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        _running = None
        with contextlib.suppress(ValueError):
            sys.path.remove(str(folder))


def _found(name: str, files: Sequence[str]) -> Term:
    """The term of this name in another process, which runs the files that declare it."""
    for file in files:
        extend(file)
    return find_term(name)


def extensions() -> tuple[Path, ...]:
    """The files that `extend` has run, for processes that have to run them too."""
    return tuple(_extensions)


def unused_extensions(settings: str) -> list[Term]:
    """The terms of the files that `extend` has run, but those that a text of settings names."""
    names = [name for names in _extensions.values() for name in names]
    return [_registered[name] for name in names if not re.search(rf"\b{name}\b", settings)]


def _used(given: Handed, kind: Kind | None) -> Use:
    """What is handed over, as a `Use`; a plain function becomes a term of the kind that is expected."""
    if isinstance(given, Use):
        use = given
    elif isinstance(given, Term):
        use = given()
    elif callable(given) and kind is not None:
        use = term(kind)(given)()
    else:
        raise UserError(f"a term is a function decorated with @raptor.term(KIND), got {given!r}")
    if kind is not None and use.term.kind != kind:
        raise UserError(f"{use.term.name} is a {use.term.kind} term, and a {kind} term is expected here")
    return use


def _check_options(kind: str, weight: Any, numbers: Mapping[str, Any]) -> None:
    """Refuse options of a declaration that are no numbers, or that a term of this kind has no use for."""
    if weight is not None and kind not in WEIGHTED:
        raise UserError(f"a {kind} has no weight: leave out weight={weight!r}")
    if weight is not None and not is_finite_number(weight):
        raise UserError(f"the weight of a term must be a number, got {weight!r}")
    for name, number in numbers.items():
        if type(number) is not int or number < 0:
            raise UserError(f"{name} of a term must be a whole number of at least 0, got {number!r}")
        if number and kind not in ("disturbance", "observation"):
            raise UserError(f"a {kind} has no {name}, only disturbances and observations do: leave out {name}={number}")


def _settings_class(function: Callable[..., Any], name: str, more: Mapping[str, float]) -> type[Settings]:
    """The keyword arguments of a function, after its first, as a class of settings."""
    try:
        _, *parameters = inspect.signature(function).parameters.values()
        hints = typing.get_type_hints(function)
    except (TypeError, ValueError, NameError) as error:
        raise UserError(f"the term {name} must be a function of at least one argument: {first_line(error)}") from error
    fields: list[Any] = [(key, float, setting(value, "factor")) for key, value in more.items()]
    for parameter in parameters:
        default = parameter.default
        if default is inspect.Parameter.empty or parameter.kind in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL):
            raise UserError(f"the argument {parameter.name} of the term {name} needs a default value")
        if parameter.name in more:
            raise UserError(f"the argument {parameter.name} of the term {name} is given by the decorator: leave it out")
        default = tuple(default) if isinstance(default, list) else default
        declared = default if isinstance(default, dataclasses.Field) else setting(default)
        if not _is_plain(declared.default, parameter.name in hints):
            what = "a finite number, true or false, text, or a list of these"
            raise UserError(f"the argument {parameter.name} of the term {name} must have as default {what}")
        fields.append((parameter.name, hints.get(parameter.name, _type_of(declared.default)), declared))
    made = dataclasses.make_dataclass(name, fields, bases=(Settings,), frozen=True)
    made.__doc__ = inspect.getdoc(function) or f"Settings of {name}."
    return made


def _is_plain(default: Any, annotated: bool) -> bool:
    """Whether a default can be a setting; None where the argument is annotated."""
    if isinstance(default, (tuple, list)):
        return all(_is_plain(each, annotated) for each in default)
    return is_finite_number(default) or isinstance(default, (bool, str)) or (annotated and default is None)


def _type_of(default: Any) -> Any:
    kind = type(default)
    if kind in (tuple, list):
        return tuple[float, ...] if all(isinstance(x, (int, float)) for x in default) else tuple[str, ...]
    return float if kind is int else kind


def _are_one(a: Callable[..., Any], b: Callable[..., Any]) -> bool:
    """Whether two functions are versions of one: of the same name in the same module or file."""
    files = [inspect.unwrap(function).__code__.co_filename for function in (a, b)]
    return a.__qualname__ == b.__qualname__ and (a.__module__ == b.__module__ or files[0] == files[1])


def _line(error: BaseException, path: Path, text: str) -> str:
    """Where in a file an exception was raised, put into a text; empty where that is elsewhere."""
    if isinstance(error, SyntaxError):
        return text.format(error.lineno)
    trace, line = error.__traceback__, ""
    while trace is not None:
        line = text.format(trace.tb_lineno) if trace.tb_frame.f_code.co_filename == str(path) else line
        trace = trace.tb_next
    return line
