"""Print the rates from Modal's answer and a table of 2026-09-20."""

from __future__ import annotations

import json

from runner.executors.modal_rates import rates_now
from runner.types import PriceTable

TABLE = PriceTable("2026-09-20", "somewhere", {"h100": 0.001, "h200": 0.0012}, 0.00001, 0.000002, 0.09)

if __name__ == "__main__":
    print(json.dumps(rates_now(TABLE).as_json()))
