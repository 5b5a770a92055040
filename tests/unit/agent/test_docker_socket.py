"""Whose /run/docker.sock is, by real sockets."""

from __future__ import annotations

import socket
from pathlib import Path

from agent.dockerapi.server import is_free


def test_a_socket_is_free_when_nobody_serves_there(tmp_path: Path) -> None:
    path, link = tmp_path / "docker.sock", tmp_path / "link"
    assert is_free(path)
    server = socket.socket(socket.AF_UNIX)
    server.bind(str(path))
    server.listen()
    assert not is_free(path)
    server.close()
    assert path.exists() and is_free(path), "what a killed process left is nobody's"
    link.symlink_to(tmp_path / "elsewhere")
    assert not is_free(link), "a link is its maker's"
    path.unlink()
    path.write_text("")
    assert not is_free(path), "a file that is no socket is not ours to remove"
