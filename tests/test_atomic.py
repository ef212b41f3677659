"""A file appears only when it is complete: after any failure the path has the old file or the new one."""

import os
import subprocess
import sys

import numpy as np
import pytest

from jaxneuron import MLP, gates, load, save
from jaxneuron._atomic import replacing


@pytest.fixture
def path(tmp_path):
    return tmp_path / "network.safetensors"


def test_a_crash_leaves_the_old_file_whole(path):
    save(path, gates.XOR)
    before = path.read_bytes()
    # A new process saves the file, and is killed after it wrote the last byte and before it renames the file.
    program = f"""
import os, signal
import numpy as np
import jaxneuron
os.fsync = lambda fd: os.kill(os.getpid(), signal.SIGKILL)
jaxneuron.save({str(path)!r}, jaxneuron.MLP([(np.ones((1000, 1000)), None)]))
"""
    done = subprocess.run([sys.executable, "-c", program], check=False)
    assert done.returncode == -9
    assert path.read_bytes() == before
    for left in path.parent.glob(".jaxneuron-*.partial"):
        left.unlink()


def test_a_failed_save_leaves_the_old_file_alone(path, monkeypatch):
    def full(fd):
        raise OSError(28, "No space left on device")

    save(path, gates.XOR)
    before = path.read_bytes()
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        save(path, MLP([(np.ones((10, 10)), None)]))
    assert path.read_bytes() == before
    assert os.listdir(path.parent) == [path.name]


def test_links_are_followed_and_modes_kept(tmp_path):
    real, link = tmp_path / "real.safetensors", tmp_path / "link.safetensors"
    save(real, gates.XOR)
    real.chmod(0o600)
    link.symlink_to(real)
    save(link, MLP([([[1.0]], None)]))
    assert link.is_symlink()
    assert len(load(real).layers) == 1
    assert real.stat().st_mode & 0o777 == 0o600


def test_the_new_file_is_private_from_the_start(path):
    """If only its owner may read a file, others can never read the new file, even while it is written."""
    path.write_bytes(b"secret")
    path.chmod(0o600)
    with replacing(path) as file:
        (partial,) = (each for each in path.parent.iterdir() if each != path)
        assert partial.stat().st_mode & 0o777 == 0o600
        file.write(b"new")
    assert path.read_bytes() == b"new"
    assert list(path.parent.iterdir()) == [path]


def test_a_folder_is_not_replaced(tmp_path):
    with pytest.raises(IsADirectoryError) as error, replacing(tmp_path):
        pass
    assert error.value.filename == str(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_errors_name_the_file_that_was_asked_for(tmp_path):
    with pytest.raises(FileNotFoundError) as error:
        save(tmp_path / "no" / "a.safetensors", gates.XOR)
    assert error.value.filename == str(tmp_path / "no" / "a.safetensors")
