"""Where tensors live."""

from __future__ import annotations

import torch

from raptor.core.errors import UserError


def find_device(name: torch.device | str) -> torch.device:
    """The device of that name.

    Raises:
        UserError: there is no such device on this machine.
    """
    try:
        device = torch.device(name)
    except RuntimeError:
        raise UserError(f"device must be {' or '.join(_available())}, got {str(name)!r}") from None
    try:
        torch.empty(1, device=device)
    except Exception as error:  # whatever the device's library raises
        why = str(error).splitlines()[0] if device.type != "cuda" or torch.cuda.is_available() else "no GPU is usable"
        raise UserError(f"device {str(name)!r} is not there ({why}): use {' or '.join(_available())}") from error
    return device


def _available() -> list[str]:
    return ["cpu", *(f"cuda:{index}" for index in range(torch.cuda.device_count()))]
