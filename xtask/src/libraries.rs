//! Programs of other ecosystems that the proofs run: what must be built or installed, and how they are started.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};

/// A client library: how its program is built and started.
pub(crate) struct Library {
    pub(crate) name: &'static str,
    /// Commands that must succeed first, each in its directory.
    pub(crate) prepare: fn(cache: &Path) -> Vec<(Command, &'static str)>,
    pub(crate) program: fn(cache: &Path) -> Command,
}

impl Library {
    pub(crate) fn prepare(&self, cache: &Path) -> Result<()> {
        for (mut command, place) in (self.prepare)(cache) {
            let program = command.get_program().to_string_lossy().into_owned();
            let output = command.current_dir(place).output().with_context(|| format!("{program} cannot be run"))?;
            if !output.status.success() {
                let said = String::from_utf8_lossy(&output.stderr);
                bail!("{program} in {place}: {}: {}", output.status, said.lines().last().unwrap_or_default());
            }
        }
        Ok(())
    }
}

pub(crate) fn command(program: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new(program);
    command.args(arguments);
    command
}

pub(crate) fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}
