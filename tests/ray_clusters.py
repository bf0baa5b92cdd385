"""A Ray cluster of two nodes on this machine, which loses one of them."""

import contextlib
import fcntl
import tempfile
import threading
import time
from pathlib import Path


@contextlib.contextmanager
def no_other_cluster():
    """Wait until no other process of the tests has a cluster: Ray finds any on this machine."""
    with (Path(tempfile.gettempdir()) / "looklisten-tests-ray.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@contextlib.contextmanager
def losing_a_node(is_time):
    """A cluster whose second node is killed as soon as `is_time()`; the block ends after that."""
    with no_other_cluster(), _losing_a_node(is_time):
        yield


@contextlib.contextmanager
def _losing_a_node(is_time):
    import ray
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    try:
        second = cluster.add_node(num_cpus=1)
        ray.init(address=cluster.address, log_to_driver=False)

        def alive():
            return len([node for node in ray.nodes() if node["Alive"]])

        nodes = alive()
        lost = threading.Event()

        def lose():
            while not is_time():
                time.sleep(0.01)
            cluster.remove_node(second, allow_graceful=False)
            lost.set()

        threading.Thread(target=lose, daemon=True).start()
        yield
        assert lost.wait(30)
        # The cluster counts missed heartbeats before it gives a node up.
        deadline = time.monotonic() + 60
        while alive() > 1 and time.monotonic() < deadline:
            time.sleep(0.1)
        assert (nodes, alive()) == (2, 1)
    finally:
        ray.shutdown()
        cluster.shutdown()
