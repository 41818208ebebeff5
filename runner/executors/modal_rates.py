"""Modal's own billing rates, requested once per submission. A launch does not depend on the answer."""

from __future__ import annotations

import asyncio
import datetime
from decimal import Decimal

import modal
import modal.exception

from modal_app.cloud.connection import lost_connections
from runner.cost.prices import Origin, Rates, rates_from
from runner.types import PriceTable

ANSWER_WITHIN_S = 3.0


def rates_now(table: PriceTable) -> Rates:
    """Modal's answer, and the table's rates for what is not in it."""
    return rates_from(table, _ask(), datetime.datetime.now(datetime.UTC).date())


def stale_warning(table: PriceTable, rates: Rates) -> str:
    """Empty unless prices come from a table that is too old to be reliable."""
    if not (rates.is_stale and rates.uses(Origin.TABLE)):
        return ""
    return (
        f"Modal did not name its prices, and the price table is from {table.date} ({table.source}): dollars may be "
        "off. prices.gpu.h100=... sets a price."
    )


def _ask() -> dict[str, float]:
    """Rates by Modal's names for them; empty when it does not answer in time.

    The mapping is iterated, since looking up a name that Modal is about to drop warns or raises.
    """
    try:
        with lost_connections():
            return {name: float(dollars) for name, dollars in asyncio.run(_answer()).items()}
    except (TimeoutError, ArithmeticError, modal.exception.Error):
        return {}


async def _answer() -> dict[str, Decimal]:
    billing = modal.Workspace.from_context().billing
    async with asyncio.timeout(ANSWER_WITHIN_S):
        return dict(await billing.rates.aio())
