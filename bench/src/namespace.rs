//! A network of our own for a whole run: only a loopback, and TCP with `reno`.
//!
//! The system's default is often BBR, whose pacing timers cost the sender three to five times the CPU on a loopback;
//! and ports that are ours alone cannot be taken by anybody while a broker restarts.

use std::env;
use std::fs;
use std::os::unix::process::CommandExt;
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

/// Set for the process that was started again inside.
const INSIDE: &str = "OTTLA_BENCH_NAMESPACE";
const CONGESTION: &str = "/proc/sys/net/ipv4/tcp_congestion_control";

/// Whether this is the process that was started again.
pub(crate) fn is_inside() -> bool {
    env::var_os(INSIDE).is_some()
}

/// Goes on inside a network of its own: this very command line is started again there, and never returns here.
pub(crate) fn enter() -> Result<()> {
    if is_inside() {
        return prepare();
    }
    let mut command = Command::new("unshare");
    if !rustix::process::geteuid().is_root() {
        // One is root in a user namespace of one's own, where the system permits that.
        command.arg("--map-root-user");
    }
    command.arg("--net").arg(env::current_exe()?).args(env::args_os().skip(1)).env(INSIDE, "1");
    bail!("no network namespace: unshare (util-linux) does not start: {}", command.exec());
}

fn prepare() -> Result<()> {
    let up = Command::new("ip").args(["link", "set", "lo", "up"]).status().context("ip (iproute2) does not start")?;
    ensure!(up.success(), "the loopback of the network namespace does not come up: {up}");
    fs::write(CONGESTION, "reno").context("reno cannot be set in the network namespace")?;
    let now = fs::read_to_string(CONGESTION)?;
    ensure!(now.trim() == "reno", "the network namespace has {} instead of reno", now.trim());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What [`enter`] does first, in a process that has nothing to go on with.
    #[test]
    fn inside_there_is_reno_and_nothing_but_a_loopback() {
        // This test again, inside.
        if is_inside() {
            prepare().unwrap();
            let devices = fs::read_to_string("/proc/net/dev").unwrap();
            assert_eq!(devices.lines().skip(2).count(), 1, "{devices}");
            std::net::TcpListener::bind("127.0.0.1:9092").unwrap();
            return;
        }
        let all = format!("ip link set lo up && echo reno > {CONGESTION}");
        let permitted = Command::new("unshare").args(["--net", "sh", "-c", &all]).output();
        if !permitted.is_ok_and(|output| output.status.success()) {
            eprintln!("SKIPPED: no network namespace for us, or there is no unshare or ip");
            return;
        }
        let outside = fs::read_to_string("/proc/net/dev").unwrap();
        let name = "inside_there_is_reno_and_nothing_but_a_loopback";
        let mut again = Command::new("unshare");
        again.arg("--net").arg(env::current_exe().unwrap()).arg(name).env(INSIDE, "1");
        let output = again.output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
        assert!(String::from_utf8_lossy(&output.stdout).contains("1 passed"), "it was not run inside");
        assert_eq!(fs::read_to_string("/proc/net/dev").unwrap().lines().count(), outside.lines().count());
    }
}
