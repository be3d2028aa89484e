"""Expert networks in the files of other libraries, and in our own; read without executing code."""

from raptor.formats.expert_files.load import load_expert

__all__ = ["load_expert"]
