"""`axosweep settle`: further seeds for the settings that cannot be told apart, until they can, or until they differ too
little to matter."""
