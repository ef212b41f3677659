"""`evaluate` and `mlp_forward` in several processes under jax.distributed."""

import socket
import subprocess
import sys

import jax
import numpy as np

from jaxneuron import evaluate, init_mlp

PROCESS = """
import sys
import jax, numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxneuron import evaluate, init_mlp, mlp_forward
from jaxneuron.testing import assert_within_error_bound
address, process, folder = sys.argv[1], int(sys.argv[2]), sys.argv[3]
jax.distributed.initialize(address, num_processes=2, process_id=process)
assert (jax.process_count(), len(jax.devices()), len(jax.local_devices())) == (2, 2, 1)
rows = np.load(f"{folder}/rows.npy", mmap_mode="r")
mlp = jax.tree.map(np.asarray, init_mlp(jax.random.key(0), (3, 133, 2)))

# evaluate: this process's share, on its own devices
share = slice(process * len(rows) // 2, (process + 1) * len(rows) // 2)
np.save(f"{folder}/evaluated{process}.npy", evaluate(mlp, rows[share], tile=64))

# mlp_forward: one array over both processes, made from the shares
by_rows = NamedSharding(Mesh(np.array(jax.devices()), ("rows",)), PartitionSpec("rows"))
x = jax.make_array_from_process_local_data(by_rows, rows[share])
y = mlp_forward(mlp, x)
assert y.shape == (len(rows), 2) and y.sharding.is_equivalent_to(by_rows, 2)
text = jax.jit(mlp_forward).lower(mlp, x).compile().as_text()
assert not any(word in text for word in ("all-gather", "all-reduce", "all-to-all", "collective-permute"))
(shard,) = y.addressable_shards
assert shard.index[0] == share
assert_within_error_bound(mlp, rows[share][::50], np.asarray(shard.data)[::50])
np.save(f"{folder}/forward{process}.npy", np.asarray(shard.data))
try:
    evaluate(mlp, x)
except ValueError as error:
    assert "evaluate each process's own rows, or call mlp_forward" in str(error)
"""


def test_two_processes_evaluate_their_shares_of_the_rows(tmp_path):
    rows = np.random.default_rng(0).normal(size=(1000, 3)).astype(np.float32)
    np.save(tmp_path / "rows.npy", rows)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", PROCESS, address, str(i), tmp_path], stderr=subprocess.PIPE, text=True
        )
        for i in range(2)
    ]
    errors = [process.communicate(timeout=120)[1] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], errors
    mlp = init_mlp(jax.random.key(0), (3, 133, 2))
    evaluated, forward = (
        np.concatenate([np.load(tmp_path / f"{name}{i}.npy") for i in range(2)])
        for name in ("evaluated", "forward")
    )
    assert evaluated.tobytes() == evaluate(mlp, rows, tile=64).tobytes()
    np.testing.assert_allclose(forward, evaluated, rtol=1e-5)  # PROCESS checks the bound
