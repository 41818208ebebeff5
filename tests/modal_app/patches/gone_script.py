"""Imports twice with the patches for a device: `python gone_script.py cpu`."""

from __future__ import annotations

import sys

from modal_app.patches.apply import import_patches
from modal_app.store.step import Device

for _ in range(2):
    with import_patches(Device(sys.argv[1])):
        print("imported")
