"""Which settings are better than others, and which cannot be told apart, from the losses of held-out rows."""
