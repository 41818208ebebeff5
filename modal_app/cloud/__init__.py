"""Modal's side. The only room here that imports modal."""
