"""The address at which the nodes of a cluster reach this machine, where the scheduler listens."""

import ipaddress
import socket
from collections.abc import Iterable
from itertools import islice

from dsmi_zoo._util.errors import InputError

from ..profile import Profile
from .scripts import slurm_command

NODES_ASKED = 16  # looking up an unknown name may take seconds
ANY_PORT = 9


def driver_address(profile: Profile) -> str:
    """Return this machine's address on the profile's interface, or else on the route to Slurm's nodes.

    Raises
    ------
    InputError
        When this machine has no such interface, or no route to the nodes.
    """
    if profile.interface is not None:
        return interface_address(profile.interface)
    nodes = slurm_command(["sinfo", "--noheader", "--Node", "--format=%o"]).split()
    return address_towards(nodes)


def interface_address(interface: str) -> str:
    """Return the IPv4 address of this machine on a network interface.

    Raises
    ------
    InputError
        When there is no such interface, or it has no address.
    """
    import psutil
    from distributed.utils import get_ip_interface

    there = psutil.net_if_addrs()
    if interface not in there:
        raise InputError(
            f"--profile: this machine has no network interface {interface!r}, but {_names(there)}"
        )
    try:
        return str(get_ip_interface(interface))
    except ValueError:
        raise InputError(
            f"--profile: {interface} has no IPv4 address here; name another interface"
        ) from None


def address_towards(nodes: Iterable[str]) -> str:
    """Return the address from which this machine reaches the nodes.

    The address of its host name may be on another network; on Debian it is 127.0.1.1.

    Raises
    ------
    InputError
        When there is no route to a node, or only the loopback interface although there are other machines.
    """
    addresses = [own_address(node) for node in islice(dict.fromkeys(nodes), NODES_ASKED)]
    for address in addresses:
        if address is not None and not ipaddress.ip_address(address).is_loopback:
            return address
    if addresses and addresses[0] is not None and None not in addresses:
        return addresses[0]  # Slurm runs on this machine alone
    import psutil

    raise InputError(
        "--cluster slurm: no network is found that leads from here to the nodes; name the interface that they share in "
        f'a --profile (interface = "..."); this machine has {_names(psutil.net_if_addrs())}'
    )


def own_address(other: str) -> str | None:
    """Return the address from which this machine would send to another one, or None; nothing is sent."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect((other, ANY_PORT))
        except OSError:
            return None
        return str(probe.getsockname()[0])


def _names(interfaces: Iterable[str]) -> str:
    return ", ".join(sorted(interfaces))
