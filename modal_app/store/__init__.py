"""What both sides share: the step, the files of a store, and facts about them. Standard library only."""
