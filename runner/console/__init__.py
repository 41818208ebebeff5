"""The terminal: printing, questions, interrupts, parsers."""
