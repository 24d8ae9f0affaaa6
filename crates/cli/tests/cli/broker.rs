//! Runs the binary: brokers on ports of their own, and commands against them.

use std::{
    io::{BufRead, BufReader, Write},
    path::Path,
    process::{Child, Command, Output, Stdio},
};

use rustix::process::{Pid, Signal, kill_process};

/// A running broker; killed when it is dropped.
pub(crate) struct Broker {
    child: Child,
    /// `127.0.0.1:PORT`.
    pub(crate) address: String,
}

/// The binary, with nothing from the environment of the test.
pub(crate) fn ottla() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ottla"));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("OTTLA_") {
            command.env_remove(name);
        }
    }
    command
}

/// The command that starts a broker over `data`.
pub(crate) fn serve(data: &Path, listen: &str) -> Command {
    let mut command = ottla();
    command.args(["serve", "--listen", listen, "--data"]).arg(data);
    command
}

impl Broker {
    /// Starts a broker over `data`, on a free port or on the port of an address, and waits until it says where it is.
    pub(crate) fn start(data: &Path, listen: &str, more: &[&str]) -> Broker {
        Broker::spawn(serve(data, listen).args(more))
    }

    /// The same, from a command that [`serve`] began.
    pub(crate) fn spawn(command: &mut Command) -> Broker {
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let address = line.trim().rsplit(' ').next().unwrap_or_default().to_owned();
        assert!(line.starts_with("Ottla ") && address.starts_with("127.0.0.1:"), "the broker said {line:?}");
        Broker { child, address }
    }

    /// Runs a command against this broker.
    pub(crate) fn run(&self, args: &[&str]) -> Output {
        self.run_with(args, b"")
    }

    /// Runs a command with something on its standard input.
    pub(crate) fn run_with(&self, args: &[&str], input: &[u8]) -> Output {
        let mut child = ottla()
            .args(args)
            .env("OTTLA_BOOTSTRAP", &self.address)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdin = child.stdin.take().unwrap();
        let input = input.to_vec();
        let writer = std::thread::spawn(move || {
            // A command that takes no input closes it.
            let _ = stdin.write_all(&input);
        });
        let output = child.wait_with_output().unwrap();
        writer.join().unwrap();
        output
    }

    /// Runs a command that must succeed, and gives what it wrote.
    pub(crate) fn ok(&self, args: &[&str]) -> String {
        self.ok_with(args, b"")
    }

    /// As [`Broker::ok`], with something on its standard input.
    pub(crate) fn ok_with(&self, args: &[&str], input: &[u8]) -> String {
        let output = self.run_with(args, input);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "ottla {args:?}: {} {said}", output.status);
        String::from_utf8(output.stdout).unwrap()
    }

    /// Asks the broker to stop, and gives its exit code.
    pub(crate) fn stop(mut self) -> Option<i32> {
        self.signal(Signal::TERM);
        self.child.wait().unwrap().code()
    }

    /// How many threads the broker's process has.
    #[cfg(target_os = "linux")]
    pub(crate) fn threads(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/task", self.child.id())).unwrap().count()
    }

    /// Sends the broker's process a signal.
    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// Ends the broker without a word.
    pub(crate) fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The exit code and the words of a command that failed.
pub(crate) fn failure(output: &Output) -> (Option<i32>, String) {
    (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
}
