"""`axosweep settle`: further seeds for a sweep's best settings, until one is shown to be better than all others, or
until they differ too little to matter."""
