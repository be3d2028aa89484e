"""Files of `torch.save` from anybody: checked, and read without executing code."""

from __future__ import annotations

import io
import pickle
import warnings
import zipfile
from typing import Any

import torch

from raptor.core.errors import UserError


def load_torch(content: bytes, name: str, device: torch.device | str = "cpu") -> dict[str, Any]:
    """Read a dictionary that `torch.save` wrote.

    Args:
        content: of the file.
        name: of the file, for error messages.
        device: of all tensors.

    Raises:
        UserError: it is truncated, damaged, holds more than tensors and plain data, or something else.
    """
    file = io.BytesIO(content)
    try:
        if not zipfile.is_zipfile(file):
            raise UserError(f"{name} is truncated, or no file of torch")
        with zipfile.ZipFile(file) as archive:  # torch does not look at the checksums
            damaged = archive.testzip()
        if damaged is not None:
            raise UserError(f"{name} is damaged: the checksum of {damaged} is wrong")
        file.seek(0)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            document = torch.load(file, map_location=device, weights_only=True)
    except UserError:
        raise
    except pickle.UnpicklingError as error:
        raise UserError(f"{name} was refused: it holds more than tensors and plain data") from error
    except Exception as error:  # whatever a damaged archive makes torch raise
        reason = (str(error).splitlines() or ["no message"])[0]
        raise UserError(f"{name} is damaged or no file of torch: {reason}") from error
    if not isinstance(document, dict):
        raise UserError(f"{name} holds a {type(document).__name__} instead of a dictionary")
    return document
