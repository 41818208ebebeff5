"""The local side: compose, check, plan, execute, record, compare."""
