"""Compiled code that outlives the process."""

from __future__ import annotations

import logging
import os
import time
from pathlib import Path

import pytest
import torch

from raptor.core import compilation, kernels
from raptor.core.compilation import compile_flat, compiler_problem
from raptor.core.kernels import cache_folder, kernel_key, load_kernel

pytestmark = pytest.mark.skipif(compiler_problem() is not None, reason="no compiler")

EXAMPLE = (torch.linspace(0, 1, 6).reshape(2, 3), torch.ones(3))


def function(x, y):
    return [torch.sin(x) * y + 2, x.sum(0)]


@pytest.fixture(scope="module")
def cached(tmp_path_factory):
    """A cache that holds the compiled function."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TORCHINDUCTOR_CACHE_DIR", str(folder))
        compiled = compile_flat(function, EXAMPLE)
        for got, expected in zip(compiled(*EXAMPLE), function(*EXAMPLE), strict=True):
            torch.testing.assert_close(got, expected)
    return folder


@pytest.fixture
def cache(cached, monkeypatch):
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(cached))
    return cached / "raptor"


def warned(caplog) -> list[str]:
    records = [record for record in caplog.records if record.name == "raptor.core.compilation"]
    return [record.getMessage() for record in records if record.levelno >= logging.WARNING]


def libraries(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.so"))


def test_a_later_start_needs_no_compiler(cache, monkeypatch):
    def compiling(*arguments):
        raise AssertionError("compiled again")

    for name in ("_trace", "_compile", "build_kernel", "compiler_problem"):
        monkeypatch.setattr(compilation, name, compiling)
    x = torch.randn(2, 3)
    torch.testing.assert_close(compile_flat(function, EXAMPLE)(x, EXAMPLE[1]), function(x, EXAMPLE[1]))


def test_arguments_of_another_layout_are_refused(cache):
    compiled = load_kernel(kernel_key(function, EXAMPLE))
    with pytest.raises(RuntimeError, match="stride"):
        compiled(EXAMPLE[0].t().contiguous().t(), EXAMPLE[1])


@pytest.mark.parametrize(
    ("other", "example"),
    [
        (lambda x, y: [torch.sin(x) * y + 3, x.sum(0)], EXAMPLE),
        (lambda x, y: [torch.sin(x) * y + torch.tensor([2.0, 2.0, 2.5]), x.sum(0)], EXAMPLE),
        (lambda x, y: [torch.cos(x) * y + 2, x.sum(0)], EXAMPLE),
        (lambda x, y: [torch.sin(x) * x[0] + 2, x.sum(0)], EXAMPLE),
        (lambda x, y: [x.sum(0), torch.sin(x) * y + 2], EXAMPLE),
        (function, (EXAMPLE[0][:1], EXAMPLE[1])),
        (function, (EXAMPLE[0].t().contiguous().t(), EXAMPLE[1])),
        (function, (EXAMPLE[0].double(), EXAMPLE[1])),
    ],
)
def test_what_computes_something_else_has_another_name(other, example):
    assert kernel_key(other, example) not in (None, kernel_key(function, EXAMPLE))


def test_the_same_computation_has_the_same_name_whatever_the_numbers():
    def same(a, b):
        return [torch.sin(a) * b + 2, a.sum(0)]

    assert kernel_key(same, (torch.randn(2, 3), torch.randn(3))) == kernel_key(function, EXAMPLE)
    constants = [kernel_key(lambda x: [x + torch.tensor([1.0, 2.0])], [torch.ones(2)]) for _ in range(2)]
    assert constants[0] == constants[1]


def test_what_takes_part_in_a_gradient_or_writes_into_its_arguments_or_constants_has_no_name():
    x = torch.ones(3)
    assert kernel_key(lambda x: [2 * x], [x.clone().requires_grad_()]) is None
    assert kernel_key(lambda x: [x.add_(1)], [x]) is None
    assert kernel_key(lambda x: [x[:2].mul_(2)], [x]) is None
    assert kernel_key(lambda y: [x[1:].mul_(y)], [torch.ones(2)]) is None
    assert x.tolist() == [1, 1, 1]
    assert kernel_key(lambda x: [torch.zeros(3).add_(x)], [x]) is not None


def test_a_damaged_library_is_not_loaded_and_the_reason_logged_once(cache, caplog):
    key = kernel_key(function, EXAMPLE)
    (library,) = libraries(cache)
    kept = library.rename(cache / "kept")
    try:
        library.write_bytes(kept.read_bytes()[:-1000])
        assert load_kernel(key) is None
        assert load_kernel(key) is None
        assert warned(caplog) == [f"compiled code is made again: {library} is damaged"]
    finally:
        kept.rename(library)
    assert load_kernel(key) is not None


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="no owners of files")
def test_a_folder_that_others_can_write_to_is_not_trusted(cache):
    key = kernel_key(function, EXAMPLE)
    cache.chmod(0o777)
    try:
        assert load_kernel(key) is None
    finally:
        cache.chmod(0o700)
    assert load_kernel(key) is not None


def test_what_cannot_be_kept_runs_all_the_same_and_the_reason_is_logged(monkeypatch, tmp_path, caplog):
    (tmp_path / "raptor").write_text("in the way")
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    compiled = compile_flat(lambda x: [torch.cos(x)], [torch.ones(2)])
    torch.testing.assert_close(compiled(torch.ones(2))[0], torch.cos(torch.ones(2)))
    assert warned(caplog) == [
        f"compiled code is not kept for later starts: {tmp_path}/raptor is not a folder of this user alone"
    ]


def test_libraries_that_nobody_uses_are_forgotten(cache):
    old, used = cache / "old.0.so", cache / "used.0.so"
    for file, age in ((old, kernels.KEPT_S + 10), (used, 10)):
        file.write_bytes(b"")
        os.utime(file, (time.time() - age,) * 2)
    kernels._forget_unused(cache)
    assert (old.exists(), used.exists()) == (False, True)
    used.unlink()


def test_the_cache_is_in_the_folder_of_the_user(monkeypatch, tmp_path):
    monkeypatch.delenv("TORCHINDUCTOR_CACHE_DIR", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "raptor"
