//! Two hosts on one machine: network namespaces that are joined by a switch in a third, where the cable
//! of one can be pulled. As on a real network nobody is told: packets just stop to arrive. Addresses
//! are in 127.0.0.0/8, which programs take for their own machine's, so that no token and no TLS is
//! asked for.

use std::process::{Command, Output};
use std::sync::atomic::{AtomicU32, Ordering};

use crate::process::program;

static MADE: AtomicU32 = AtomicU32::new(0);

/// One of the two.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Host {
    /// 127.77.0.1
    First,
    /// 127.77.0.2
    Second,
}

impl Host {
    /// Its address.
    pub fn address(self) -> &'static str {
        match self {
            Self::First => "127.77.0.1",
            Self::Second => "127.77.0.2",
        }
    }

    fn letter(self) -> char {
        match self {
            Self::First => 'a',
            Self::Second => 'b',
        }
    }
}

/// The namespaces; removed when dropped.
#[derive(Debug)]
pub struct Hosts {
    label: String,
}

impl Hosts {
    /// Makes them, or says why that is impossible here.
    pub fn new() -> Result<Self, String> {
        let number = MADE.fetch_add(1, Ordering::Relaxed);
        let hosts = Self { label: format!("muster{}-{number}", std::process::id()) };
        let switch = hosts.switch();
        ip(&format!("netns add {switch}"))?;
        ip(&format!("-n {switch} link add switch type bridge"))?;
        ip(&format!("-n {switch} link set switch up"))?;
        for host in [Host::First, Host::Second] {
            let (space, port) = (hosts.namespace(host), port(host));
            ip(&format!("netns add {space}"))?;
            ip(&format!("link add net netns {space} type veth peer name {port} netns {switch}"))?;
            ip(&format!("-n {switch} link set {port} master switch up"))?;
            ip(&format!("-n {space} link set lo up"))?;
            ip(&format!("-n {space} addr del 127.0.0.1/8 dev lo"))?;
            ip(&format!("-n {space} addr add 127.0.0.1/32 dev lo"))?;
            let exec =
                Command::new("ip").args(["netns", "exec", &space]).args(ROUTE_LOOPBACK).output();
            said(exec, "route_localnet")?;
            ip(&format!("-n {space} addr add {}/24 dev net", host.address()))?;
            ip(&format!("-n {space} link set net up"))?;
        }
        Ok(hosts)
    }

    /// A command that becomes the built program `name` on `host`.
    pub fn command(&self, host: Host, name: &str) -> anyhow::Result<Command> {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.namespace(host)]).arg(program(name)?);
        Ok(command)
    }

    /// Pulls the cable of `host` out of the switch.
    pub fn cut(&self, host: Host) -> Result<(), String> {
        ip(&format!("-n {} link set {} nomaster", self.switch(), port(host)))
    }

    /// Puts it back.
    pub fn heal(&self, host: Host) -> Result<(), String> {
        ip(&format!("-n {} link set {} master switch", self.switch(), port(host)))
    }

    fn namespace(&self, host: Host) -> String {
        format!("{}-{}", self.label, host.letter())
    }

    fn switch(&self) -> String {
        format!("{}-switch", self.label)
    }
}

impl Drop for Hosts {
    fn drop(&mut self) {
        for space in [self.namespace(Host::First), self.namespace(Host::Second), self.switch()] {
            let _never_made = ip(&format!("netns del {space}"));
        }
    }
}

/// Addresses of the loopback network are dropped on real interfaces without it.
const ROUTE_LOOPBACK: [&str; 3] =
    ["sh", "-c", "echo 1 > /proc/sys/net/ipv4/conf/all/route_localnet"];

fn port(host: Host) -> String {
    format!("port-{}", host.letter())
}

/// Runs `ip` with these words.
fn ip(words: &str) -> Result<(), String> {
    said(Command::new("ip").args(words.split(' ')).output(), words)
}

fn said(done: std::io::Result<Output>, words: &str) -> Result<(), String> {
    let done = done.map_err(|error| format!("root: the program `ip` is missing: {error}"))?;
    if done.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&done.stderr);
    Err(format!("root: no network namespaces can be made here: {words}: {}", said.trim()))
}
