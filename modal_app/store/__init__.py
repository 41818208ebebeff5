"""What both sides share: the step, the files of a store and what is true of them. Standard library only."""
