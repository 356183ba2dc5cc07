"""Numbers that move together, and who sits on one that is taken."""

import os
import socket
from collections.abc import Iterator

import pytest

from gateway.local.bases import BaseName
from gateway.local.errors import LocalRunError
from gateway.local.ports import Ports, holder, is_free
from gateway.local.stack import Options, ports_of, require_free


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield listening


def options(*, port: int | None = None, port_offset: int = 0) -> Options:
    from pathlib import Path

    return Options(base=BaseName.TINY, run_directory=Path(".run"), port=port, port_offset=port_offset, workers=1)


def test_the_ports_are_the_promised_ones() -> None:
    assert Ports().named() == {
        "gateway": 8080,
        "admin": 8081,
        "triton http": 8000,
        "triton grpc": 8001,
        "triton metrics": 8002,
        "valkey": 8379,
    }


def test_an_offset_moves_every_port() -> None:
    before, after = Ports().named(), Ports().shifted(1000).named()

    assert {name: port - before[name] for name, port in after.items()} == dict.fromkeys(before, 1000)


@pytest.mark.parametrize(
    ("offset", "fits"),
    [
        pytest.param(65535 - 8379, True, id="the highest port is 65535"),
        pytest.param(65536 - 8379, False, id="one more does not exist"),
        pytest.param(1024 - 8000, True, id="the lowest port is 1024"),
        pytest.param(1023 - 8000, False, id="one less needs root"),
    ],
)
def test_an_offset_ends_where_ports_end(offset: int, fits: bool) -> None:
    if fits:
        assert ports_of(options(port_offset=offset)) == Ports().shifted(offset)
    else:
        with pytest.raises(LocalRunError, match=f"an offset of {offset} puts "):
            ports_of(options(port_offset=offset))


def test_a_port_moves_the_gateway_alone() -> None:
    moved = ports_of(options(port=9000))

    assert (moved.gateway, moved.admin) == (9000, 8081)


def test_a_port_of_another_service_is_refused() -> None:
    with pytest.raises(LocalRunError, match="port 8081 is another service's"):
        ports_of(options(port=8081))


def test_a_port_with_a_listener_is_not_free(listener: socket.socket) -> None:
    assert not is_free(listener.getsockname()[1])


def test_a_port_whose_listener_has_gone_is_free(listener: socket.socket) -> None:
    port = listener.getsockname()[1]
    with socket.create_connection(("127.0.0.1", port)):
        listener.accept()[0].close()
    listener.close()

    assert is_free(port)


def test_the_holder_of_a_port_is_named(listener: socket.socket) -> None:
    named = holder(listener.getsockname()[1])

    assert named
    assert named.endswith(f", pid {os.getpid()}")


def test_a_port_without_a_listener_has_no_holder(listener: socket.socket) -> None:
    port = listener.getsockname()[1]
    listener.close()

    assert holder(port) is None


def test_a_taken_port_is_refused_with_its_number_and_holder(listener: socket.socket) -> None:
    port = listener.getsockname()[1]

    with pytest.raises(LocalRunError, match=rf"port {port} \(gateway\) is taken by .*, pid {os.getpid()}: stop it, or"):
        require_free(
            Ports(gateway=port, admin=port, triton_http=port, triton_grpc=port, triton_metrics=port, valkey=port)
        )
