"""The address at which the nodes of a cluster reach this machine, where the scheduler listens."""

import ipaddress
import logging
import socket
from collections.abc import Iterable
from itertools import islice

from dsmi_zoo._util.errors import InputError

from ..profile import Profile
from .scripts import slurm_command

log = logging.getLogger(__name__)

NODES_ASKED = 16  # looking up a name that is not known may take seconds
ANY_PORT = 9


def driver_address(profile: Profile) -> str:
    """This machine's address on the profile's interface, or else on the way that leads from here to Slurm's nodes.

    Raises
    ------
    InputError
        When this machine has no such interface, or no way leads to the nodes.
    """
    if profile.interface is not None:
        return interface_address(profile.interface)
    nodes = slurm_command(["sinfo", "--noheader", "--Node", "--format=%o"]).split()
    return address_towards(nodes)


def interface_address(interface: str) -> str:
    """The IPv4 address of this machine on a network interface.

    Raises
    ------
    InputError
        When it has no such interface, or the interface no address.
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
    """The address from which this machine reaches nodes; they answer to it.

    This host's own name would not do: it may stand for another network, and on Debian it stands for 127.0.1.1.

    Raises
    ------
    InputError
        When no way leads to a node, or only the one to this very machine and there are others.
    """
    own = [own_address(node) for node in islice(dict.fromkeys(nodes), NODES_ASKED)]
    outward = [address for address in own if address is not None and not _is_loopback(address)]
    if outward:
        return outward[0]
    if own and None not in own:  # a Slurm of this machine alone
        return own[0] or ""
    import psutil

    raise InputError(
        "--cluster slurm: no network is found that leads from here to the nodes; name the interface that they share in "
        f'a --profile (interface = "..."); this machine has {_names(psutil.net_if_addrs())}'
    )


def own_address(other: str) -> str | None:
    """The address that this machine has on its way to another one; None if there is none. Nothing is sent."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect((other, ANY_PORT))
        except OSError:
            return None
        return str(probe.getsockname()[0])


def _is_loopback(address: str) -> bool:
    return ipaddress.ip_address(address).is_loopback


def _names(interfaces: Iterable[str]) -> str:
    return ", ".join(sorted(interfaces))
