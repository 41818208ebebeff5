"""Modal's own billing rates, asked for once per submission. A launch does not depend on the answer."""

from __future__ import annotations

import asyncio
import datetime
from decimal import Decimal

import modal
import modal.exception

from runner.cost.prices import Origin, Rates, rates_from
from runner.types import PriceTable

ANSWER_WITHIN_S = 3.0


def rates_now(table: PriceTable) -> Rates:
    """What Modal answers, and for the rest what the table has."""
    return rates_from(table, _ask(), datetime.datetime.now(datetime.UTC).date())


def stale_warning(table: PriceTable, rates: Rates) -> str:
    """Empty unless prices come from a table that is too old to be believed."""
    if not (rates.is_stale and rates.uses(Origin.TABLE)):
        return ""
    return (
        f"Modal did not say what it charges, and the price table is of {table.date} ({table.source}): dollars may be "
        "off. prices.gpu.h100=... sets a price."
    )


def _ask() -> dict[str, float]:
    """Rates by Modal's names for them; empty when it does not answer, or not in time.

    The mapping is iterated: names that Modal is about to drop warn or raise when they are looked up.
    """
    try:
        return {name: float(dollars) for name, dollars in asyncio.run(_answer()).items()}
    except (TimeoutError, ArithmeticError, modal.exception.Error):
        return {}


async def _answer() -> dict[str, Decimal]:
    billing = modal.Workspace.from_context().billing
    async with asyncio.timeout(ANSWER_WITHIN_S):
        return dict(await billing.rates.aio())
