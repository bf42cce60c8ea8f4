"""Read a JSON file that belongs to a data set."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from rtseg.data.files import FileFaultError


def load_json(path: Path) -> Any:
    """Return the content of a JSON file.

    Raises:
        FileFaultError: The file is missing (`missing_mask`), or cannot be read as JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise FileFaultError(
            "file is missing",
            kind="missing_mask",
            where=str(path),
            fix="add the file, or correct the path",
        ) from None
    except OSError as error:
        raise FileFaultError(
            f"cannot be read ({error.strerror})", where=str(path), fix="check its permissions"
        ) from None
    except (ValueError, RecursionError) as error:  # no JSON, or no text at all
        raise FileFaultError(
            f"is truncated or no JSON ({error})",
            where=str(path),
            fix="copy the file again from its source, or correct it",
        ) from None
