//! The network of a torture: a namespace for each node, all on one bridge, and nftables between them.
//!
//! The bridge has an address in our own namespace, where clients and observers run. A cut is a rule that drops packets
//! inside a node's namespace, so that open connections hang and new ones time out, as on a real network. Linux, root,
//! Debian's iproute2 and nftables. Where nothing is cut, the nodes can be on addresses of the loopback instead, which
//! needs none of them.

use std::fs;
use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::broker::Process;
use crate::libraries::command;

const PORT: u16 = 9092;
/// On the loopback, where the other one may be somebody's who listens everywhere.
const LOOPBACK_PORT: u16 = 19_092;
/// Nodes have the addresses after this one; the bridge has the first.
const FIRST: u8 = 10;
const RULES: &str = "table inet torture {
    chain incoming { type filter hook input priority 0; policy accept; }
    chain outgoing { type filter hook output priority 0; policy accept; }
}";

/// What no longer gets through at a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cut {
    Everything,
    /// It is heard, and hears nothing.
    Incoming,
    /// It hears, and is not heard.
    Outgoing,
    /// To and from one other node.
    Peer(usize),
    /// To and from clients; the cluster is whole.
    Clients,
}

/// Removed, with all its namespaces, when dropped.
#[derive(Debug)]
pub(crate) struct Network {
    /// None on the loopback.
    bridge: Option<String>,
    subnet: u8,
    /// A namespace of each machine; on the loopback only its name.
    namespaces: Vec<String>,
}

/// What this machine lacks for it, in words.
pub(crate) fn missing() -> Option<String> {
    if !rustix::process::geteuid().is_root() {
        return Some("network namespaces need root".to_owned());
    }
    let lacks = |program: &str| Command::new(program).arg("-V").stdout(Stdio::null()).stderr(Stdio::null()).status();
    for (program, package) in [("ip", "iproute2"), ("nft", "nftables")] {
        if lacks(program).is_err() {
            return Some(format!("there is no `{program}`: apt-get install {package}"));
        }
    }
    None
}

impl Network {
    /// Makes the bridge.
    pub(crate) fn new() -> Result<Network> {
        sweep();
        let own = std::process::id();
        let bridge = format!("ottla{own}");
        let mut network = Network::loopback()?;
        network.bridge = Some(bridge.clone());
        ip(&["link", "add", &bridge, "type", "bridge"]).context("making a bridge")?;
        ip(&["address", "add", &format!("{}/24", network.host()), "dev", &bridge])?;
        ip(&["link", "set", &bridge, "up"])?;
        Ok(network)
    }

    /// Addresses of the loopback, in which nothing can be cut.
    pub(crate) fn loopback() -> Result<Network> {
        let subnet = u8::try_from(std::process::id() % 250)?;
        Ok(Network { bridge: None, subnet, namespaces: Vec::new() })
    }

    /// Adds a machine; says which one it is, from 0.
    pub(crate) fn add(&mut self) -> Result<usize> {
        let (index, own) = (self.namespaces.len(), std::process::id());
        let (namespace, outside) = (format!("ottla-{own}-{index}"), format!("ot{own}n{index}"));
        let Some(bridge) = self.bridge.clone() else {
            self.namespaces.push(namespace);
            return Ok(index);
        };
        ip(&["netns", "add", &namespace]).context("making a network namespace")?;
        self.namespaces.push(namespace.clone());
        let address = format!("{}/24", self.address(index).ip());
        ip(&["link", "add", &outside, "type", "veth", "peer", "name", "eth0", "netns", &namespace])?;
        ip(&["link", "set", &outside, "master", &bridge, "up"])?;
        ip(&["-n", &namespace, "address", "add", &address, "dev", "eth0"])?;
        ip(&["-n", &namespace, "link", "set", "eth0", "up"])?;
        ip(&["-n", &namespace, "link", "set", "lo", "up"])?;
        self.rules(index, RULES)?;
        Ok(index)
    }

    /// Where clients and observers are.
    pub(crate) fn host(&self) -> Ipv4Addr {
        Ipv4Addr::new(10, 77, self.subnet, 1)
    }

    /// Where a node listens.
    pub(crate) fn address(&self, node: usize) -> SocketAddr {
        let last = u8::try_from(node).map_or(u8::MAX, |node| FIRST.saturating_add(node));
        let (first, port) = if self.bridge.is_some() { (10, PORT) } else { (127, LOOPBACK_PORT) };
        SocketAddr::from((Ipv4Addr::new(first, 77, self.subnet, last), port))
    }

    /// A program on a node's machine. Its process is the program itself.
    pub(crate) fn command(&self, node: usize, program: &Path) -> Result<Command> {
        let namespace = self.namespace(node)?;
        if self.bridge.is_none() {
            return Ok(Command::new(program));
        }
        let mut on_machine = command("ip", &["netns", "exec", namespace]);
        on_machine.arg(program);
        Ok(on_machine)
    }

    /// Lets no more through at a node, until `heal`.
    pub(crate) fn cut(&self, node: usize, cut: Cut) -> Result<()> {
        let rule = |chain: &str, matches: &str| format!("add rule inet torture {chain} {matches} drop\n");
        let both = |address: std::net::IpAddr| {
            rule("incoming", &format!("ip saddr {address}")) + &rule("outgoing", &format!("ip daddr {address}"))
        };
        let (all_in, all_out) = (rule("incoming", "iifname \"eth0\""), rule("outgoing", "oifname \"eth0\""));
        self.rules(
            node,
            &match cut {
                Cut::Everything => all_in + &all_out,
                Cut::Incoming => all_in,
                Cut::Outgoing => all_out,
                Cut::Peer(peer) => both(self.address(peer).ip()),
                Cut::Clients => both(self.host().into()),
            },
        )
    }

    /// Lets everything through at a node again.
    pub(crate) fn heal(&self, node: usize) -> Result<()> {
        self.rules(node, "flush table inet torture")
    }

    fn rules(&self, node: usize, rules: &str) -> Result<()> {
        if self.bridge.is_none() {
            bail!("on the loopback nothing can be cut");
        }
        let mut nft = self.command(node, Path::new("nft"))?;
        nft.args(["-f", "-"]).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut nft = Process(nft.spawn()?);
        // Closed at the end of this line, so that nft sees the end.
        nft.0.stdin.take().context("no input")?.write_all(rules.as_bytes())?;
        let mut said = String::new();
        if let Some(mut output) = nft.0.stderr.take() {
            std::io::Read::read_to_string(&mut output, &mut said)?;
        }
        if !nft.0.wait()?.success() {
            bail!("nft at node {node}: {}", said.trim());
        }
        Ok(())
    }

    fn namespace(&self, node: usize) -> Result<&str> {
        self.namespaces.get(node).map(String::as_str).with_context(|| format!("there is no machine {node}"))
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        let Some(bridge) = &self.bridge else { return };
        let removed = self.namespaces.iter().map(|namespace| ip(&["netns", "delete", namespace]));
        // The ends on this side go with the namespaces.
        for error in removed.chain([ip(&["link", "delete", bridge])]).filter_map(Result::err) {
            eprintln!("{error:#}");
        }
    }
}

fn ip(arguments: &[&str]) -> Result<String> {
    let output = command("ip", arguments).output().context("ip cannot be run")?;
    if !output.status.success() {
        bail!("ip {}: {}", arguments.join(" "), String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Removes what earlier runs left that were killed before they could: nobody else uses these names.
fn sweep() {
    let is_left = |own: &str| own.parse::<u32>().is_ok() && !fs::exists(format!("/proc/{own}")).unwrap_or(true);
    for line in ip(&["netns", "list"]).unwrap_or_default().lines() {
        let name = line.split(' ').next().unwrap_or_default();
        let own = name.strip_prefix("ottla-").and_then(|rest| rest.split_once('-'));
        if own.is_some_and(|(own, _)| is_left(own)) {
            for process in ip(&["netns", "pids", name]).unwrap_or_default().split_whitespace() {
                let process = process.parse().ok().and_then(rustix::process::Pid::from_raw);
                // It may have gone by itself.
                let _ = process.map(|it| rustix::process::kill_process(it, rustix::process::Signal::KILL));
            }
            let _ = ip(&["netns", "delete", name]);
        }
    }
    for line in ip(&["-o", "link", "show", "type", "bridge"]).unwrap_or_default().lines() {
        let name = line.split(": ").nth(1).unwrap_or_default();
        if name.strip_prefix("ottla").is_some_and(is_left) {
            let _ = ip(&["link", "delete", name]);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};
    use std::time::Duration;

    use super::*;
    use crate::broker::until;

    /// What a node hears from a peer is answered, or is not.
    fn answers(network: &Network, from: usize, to: usize) -> bool {
        let address = network.address(to);
        let script = format!("exec 3<>/dev/tcp/{}/{} && head -c 2 <&3", address.ip(), address.port());
        let mut bash = network.command(from, Path::new("timeout")).unwrap();
        let output = bash.args(["1", "bash", "-c", &script]).stdin(Stdio::null()).output().unwrap();
        output.stdout == b"ok"
    }

    /// Answers everybody on a node's machine.
    fn serve(network: &Network, node: usize) -> Process {
        let script = "import socket, sys
server = socket.create_server(('', 9092))
while True:
    connection, _ = server.accept()
    connection.sendall(b'ok')
    connection.close()";
        let mut python = network.command(node, Path::new("python3")).unwrap();
        let process = Process(python.args(["-c", script]).stdin(Stdio::null()).spawn().unwrap());
        let is_up = until(Duration::from_secs(20), || {
            Ok(TcpStream::connect_timeout(&network.address(node), Duration::from_millis(200)).is_ok())
        });
        assert!(is_up.unwrap(), "the server does not answer");
        process
    }

    #[test]
    fn cuts_drop_what_they_say_and_nothing_else() {
        if let Some(missing) = missing() {
            println!("not tried: {missing}");
            return;
        }
        let mut network = Network::new().unwrap();
        let nodes = [0; 3].map(|_| network.add().unwrap());
        let _servers = nodes.map(|node| serve(&network, node));
        let client = |node| TcpStream::connect_timeout(&network.address(node), Duration::from_millis(500)).is_ok();
        let reach = |from, to| answers(&network, from, to);
        let ways: [&dyn Fn() -> bool; 5] =
            [&|| client(0), &|| client(1), &|| reach(1, 0), &|| reach(2, 0), &|| reach(1, 2)];
        // What is open is open sooner or later, on a machine that has other things to do; what is cut is not.
        let check = |cut: &str, expected: [bool; 5]| {
            for (way, expected) in expected.into_iter().enumerate() {
                let opens = || until(Duration::from_secs(20), || Ok(ways[way]())).unwrap();
                assert_eq!(if expected { opens() } else { ways[way]() }, expected, "way {way}, {cut}");
            }
        };
        // By each cut of node 0: whether clients reach 0 and 1, and 1 reaches 0, 2 reaches 0, 1 reaches 2.
        for (cut, expected) in [
            (Cut::Everything, [false, true, false, false, true]),
            (Cut::Incoming, [false, true, false, false, true]),
            (Cut::Outgoing, [false, true, false, false, true]),
            (Cut::Peer(1), [true, true, false, true, true]),
            (Cut::Clients, [false, true, true, true, true]),
        ] {
            network.cut(0, cut).unwrap();
            check(&format!("{cut:?}"), expected);
            network.heal(0).unwrap();
            check(&format!("healed from {cut:?}"), [true; 5]);
        }
        assert!(TcpListener::bind((network.host(), 0)).is_ok(), "clients have an address");
    }
}
