"""All changes to other libraries: each is an entry of `table.PATCHES`.

Other packages apply them through `apply`. A change is an assignment to a module, class or object of a library that the
library does not offer as a setting. A config's keys, a callback's control and the arguments of a call are normal use.
"""
