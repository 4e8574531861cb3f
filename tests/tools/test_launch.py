"""What the launcher says when its processes cannot meet."""

import socket

import torch.distributed


def test_busy_port_is_said_in_one_sentence(tool, monkeypatch, capsys):
    launch = tool("launch")
    with socket.create_server(("0.0.0.0", 0)) as busy:
        port = busy.getsockname()[1]
        monkeypatch.setattr(
            launch.run,
            "main",
            lambda: torch.distributed.TCPStore("127.0.0.1", port, 1, True),
        )
        assert launch.main() == 2
    said = capsys.readouterr().err
    assert said.startswith(f"Error: the port {port} is in use") and "PORT" in said
    assert said.count("\n") == 1


def test_other_failures_to_meet_are_said_too(tool, monkeypatch, capsys):
    launch = tool("launch")

    def fail():
        raise torch.distributed.DistNetworkError("timed out\nmuch more")

    monkeypatch.setattr(launch.run, "main", fail)
    assert launch.main() == 2
    said = capsys.readouterr().err
    assert "check MASTER_ADDR, PORT and NODE_RANK" in said and "(timed out)" in said
    assert said.count("\n") == 1
