"""Two hosts on one machine: network namespaces joined by a switch in a third, whose cables can be pulled."""
import os
import subprocess

import peers

ADDRESSES = {"a": "127.77.0.1", "b": "127.77.0.2"}
STORAGE, STORAGE_ADDRESSES = "127.78.0.9", {"a": "127.78.0.1", "b": "127.78.0.2"}


class Hosts:
    """Made on entry, removed on exit. Addresses are a loopback network's, so that no TLS is asked for."""

    def __init__(self):
        self.label = f"musterbench{os.getpid()}"

    def __enter__(self):
        try:
            self.make()
        except (OSError, subprocess.CalledProcessError) as error:
            self.__exit__()
            raise peers.Missing(f"hosts: no network namespaces can be made here: {error}") from error
        return self

    def make(self):
        switch = self.label
        ip(f"netns add {switch}")
        ip(f"-n {switch} link add switch type bridge")
        ip(f"-n {switch} link set switch up")
        for host, address in ADDRESSES.items():
            space = self.space(host)
            ip(f"netns add {space}")
            ip(f"link add net netns {space} type veth peer name port-{host} netns {switch}")
            ip(f"-n {switch} link set port-{host} master switch up")
            ip(f"-n {space} link set lo up")
            self.prepare(space, address, "net")
            ip(f"-n {space} addr add 127.0.0.1/32 dev lo")
            ip(f"-n {space} link set net up")

    def add_storage(self, megabits):
        """A second network, for a store in the switch's place; each host's cable to it carries so many Mbit/s."""
        ip(f"-n {self.label} link add storage type bridge")
        ip(f"-n {self.label} link set storage up")
        ip(f"-n {self.label} link set lo up")
        self.prepare(self.label, STORAGE, "storage")
        for host, address in STORAGE_ADDRESSES.items():
            space = self.space(host)
            ip(f"link add disk netns {space} type veth peer name disk-{host} netns {self.label}")
            ip(f"-n {self.label} link set disk-{host} master storage up")
            self.prepare(space, address, "disk")
            ip(f"-n {space} link set disk up")
            shape = f"tc qdisc add dev disk root tbf rate {megabits}mbit burst 512kb latency 200ms"
            subprocess.run(["ip", "netns", "exec", space, *shape.split(" ")], check=True, capture_output=True)

    @staticmethod
    def prepare(space, address, device):
        """Gives a device one of loopback's addresses."""
        route = "echo 1 > /proc/sys/net/ipv4/conf/all/route_localnet"
        subprocess.run(["ip", "netns", "exec", space, "sh", "-c", route], check=True, capture_output=True)
        subprocess.run(["ip", "-n", space, "addr", "del", "127.0.0.1/8", "dev", "lo"], capture_output=True, check=False)
        ip(f"-n {space} addr add {address}/24 dev {device}")

    def __exit__(self, *_):
        for space in (self.space("a"), self.space("b"), self.label):
            subprocess.run(["ip", "netns", "del", space], capture_output=True, check=False)

    def space(self, host):
        return f"{self.label}-{host}"

    def command(self, host, *words):
        """What runs these words on a host."""
        return ["ip", "netns", "exec", self.space(host), *map(str, words)]

    def storage_command(self, *words):
        """What runs these words where the store is."""
        return ["ip", "netns", "exec", self.label, *map(str, words)]

    def cut(self, host):
        """Pulls a host's cable: packets stop to arrive, and nobody is told."""
        ip(f"-n {self.label} link set port-{host} nomaster")

    def heal(self, host):
        """Puts it back."""
        ip(f"-n {self.label} link set port-{host} master switch")


def ip(words):
    subprocess.run(["ip", *words.split(" ")], check=True, capture_output=True)
