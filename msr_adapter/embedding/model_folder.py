"""Whether a folder holds a sentence-transformers model; nothing is imported for that."""

from msr_adapter.filesystem import absent, home

MODULES = "modules.json"
"""The file that a folder of such a model has."""


def folder_fault(model: str) -> str:
    """Return what is wrong with a folder that should hold such a model, or nothing; a hub id is not looked at."""
    folder = home(model)
    looks_local = folder.is_absolute() or model.startswith((".", "~"))
    if not (looks_local or folder.exists()):
        return ""
    if not folder.is_dir():
        return absent(folder, "folder")
    return "" if (folder / MODULES).is_file() else f"no {MODULES}: not saved by sentence-transformers"
