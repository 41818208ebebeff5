"""Plain records, and data frames of them with whichever library is installed."""

from __future__ import annotations

import importlib
from typing import Any

from runner.errors import SweepError


class Records(tuple[dict[str, Any], ...]):
    """Dicts. A value is a number, text, a boolean, or None where it is unknown."""

    __slots__ = ()

    def to_pandas(self) -> Any:
        """A pandas.DataFrame. Raises SweepError if pandas is not installed."""
        return _library("pandas").DataFrame.from_records(list(self))

    def to_polars(self) -> Any:
        """A polars.DataFrame. Raises SweepError if polars is not installed."""
        polars = _library("polars")
        return polars.from_dicts(list(self), infer_schema_length=None) if self else polars.DataFrame()


def _library(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError:
        raise SweepError(f"{name} is not installed here: pip install {name}, or use the records as they are.") from None
