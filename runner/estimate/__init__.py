"""Dollars and hours, before anything is started."""
