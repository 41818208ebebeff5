"""Modal's side. The only package here that imports modal."""
