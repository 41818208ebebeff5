"""Follow-up steps of finished runs: merge, infer, evaluate."""
