"""A local Modal for tests, for the unmodified client and its real container entrypoint. A test tool, not a product.

It uses gRPC with Modal's own stubs, which are private to Modal and may change with any release, and it runs code as the
current user. Nothing outside the tests may depend on it.

Not supported, and answered with UNIMPLEMENTED: Cls, Queue, Sandbox, schedules, snapshots, clusters, rollbacks.
Different from Modal: nothing is built (containers run on this machine, with its own files), GPUs, CPUs and memory are
names and numbers only, Volumes commit only when asked or when a container ends, the network is the machine's, and a web
function does not learn that its client has disconnected.

Reading order: server (what a test can do with it), settings, world (what exists), dispatch (which code answers a call),
the rpc_* modules (the answers), then what they change: calls, pool, scheduler, container, rootfs, launch, volumes,
blobs.
"""

from tests.modal_server.server import ModalServer
from tests.modal_server.settings import Settings

__all__ = ["ModalServer", "Settings"]
