"""Documents over documents, with `${key}` for the value of another key."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from raptor.core.errors import UserError


def merge(documents: Sequence[Mapping[str, Any]]) -> Any:
    """Later documents over earlier ones, group by group."""
    from omegaconf import OmegaConf

    with _explained():
        return OmegaConf.merge(*(OmegaConf.create(dict(document)) for document in documents))


def plain(merged: Any, resolve: bool = False) -> Any:
    """Plain dictionaries; `resolve` puts the value of another key in the place of `${key}`."""
    from omegaconf import OmegaConf

    with _explained():
        return OmegaConf.to_container(merged, resolve=resolve, throw_on_missing=True)


@contextlib.contextmanager
def _explained() -> Iterator[None]:
    from omegaconf.errors import OmegaConfBaseException

    try:
        yield
    except OmegaConfBaseException as error:
        key = getattr(error, "full_key", None) or "the configuration"
        raise UserError(f"{key} cannot be resolved: {str(error).splitlines()[0]}") from error
