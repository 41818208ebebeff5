"""The stores that this machine knows, and what is recorded in them."""
