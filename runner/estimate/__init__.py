"""Estimates of dollars and hours, before anything is started."""
