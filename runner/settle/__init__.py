"""`axosweep settle`: further seeds for the settings that cannot be told apart, until they can, or need not be."""
