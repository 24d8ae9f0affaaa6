//! Which crate may use which: the picture in ARCHITECTURE.md as a table, held against `cargo metadata`.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};
use serde::Deserialize;

use super::Finding;

/// A crate and the crates of ours it may use, tests excepted. What is not here may not exist.
const ARROWS: &[(&str, &[&str])] = &[
    ("types", &[]),
    ("records", &["types"]),
    ("protocol", &["types", "records"]),
    ("client", &["types", "records", "protocol"]),
    ("log", &["types", "records"]),
    ("consensus", &["types", "records", "log"]),
    ("replica", &["types", "records", "log"]),
    ("metadata", &["types"]),
    ("group", &["types", "metadata"]),
    ("sim", &["types", "records", "log", "replica", "metadata"]),
    ("node", &["types", "records", "log", "consensus", "replica", "metadata", "group"]),
    ("broker", &["types", "records", "protocol", "client", "log", "consensus", "replica", "metadata", "group", "node"]),
    ("cli", &["types", "records", "protocol", "log", "metadata", "node", "broker", "client"]),
    ("bench", &["types", "records", "protocol"]),
    ("fuzz", &["types", "records", "protocol", "log", "metadata", "group", "node"]),
    ("xtask", &["client", "fuzz", "records", "types"]),
    // Stands in for a crate of others.
    ("base2histogram", &[]),
];

/// Crates that may have an async runtime. Everything else is plain functions that anybody can call from anywhere.
const ASYNC: [&str; 4] = ["broker", "client", "cli", "xtask"];
const RUNTIMES: [&str; 5] = ["tokio", "tokio-util", "futures", "async-std", "smol"];

/// A crate of the workspace and what its manifest asks for.
#[derive(Debug)]
pub(super) struct Crate {
    name: String,
    manifest: String,
    dependencies: Vec<(String, Kind)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Normal,
    Dev,
}

#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Package>,
}

#[derive(Deserialize)]
struct Package {
    name: String,
    manifest_path: String,
    dependencies: Vec<Dependency>,
}

#[derive(Deserialize)]
struct Dependency {
    name: String,
    kind: Option<String>,
}

/// The workspace's crates, by their names without `ottla-`.
pub(super) fn crates(root: &Path) -> Result<Vec<Crate>> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .args(["metadata", "--no-deps", "--format-version", "1", "--offline"])
        .current_dir(root)
        .output()
        .context("cargo metadata")?;
    if !output.status.success() {
        bail!("cargo metadata: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    let metadata: Metadata = serde_json::from_slice(&output.stdout).context("cargo metadata")?;
    let relative = |path: &str| {
        let path = Path::new(path);
        path.strip_prefix(root).unwrap_or(path).display().to_string()
    };
    Ok(metadata
        .packages
        .into_iter()
        .map(|package| Crate {
            name: short(&package.name).to_owned(),
            manifest: relative(&package.manifest_path),
            dependencies: package
                .dependencies
                .into_iter()
                .map(|each| (each.name, if each.kind.as_deref() == Some("dev") { Kind::Dev } else { Kind::Normal }))
                .collect(),
        })
        .collect())
}

/// `types` of `ottla-types`; the program `ottla` is the crate `cli`.
fn short(package: &str) -> &str {
    if package == "ottla" { "cli" } else { package.strip_prefix("ottla-").unwrap_or(package) }
}

pub(super) fn check(crates: &[Crate]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for each in crates {
        let mut say = |what: String| findings.push(Finding { path: each.manifest.clone(), line: 1, what });
        let Some((_, allowed)) = ARROWS.iter().find(|(name, _)| *name == each.name) else {
            say(format!("`{}` is not in ARROWS of xtask/src/tidy/arrows.rs: say what it may use", each.name));
            continue;
        };
        for (dependency, _) in each.dependencies.iter().filter(|(_, kind)| *kind == Kind::Normal) {
            let name = short(dependency);
            let ours = name == "cli" || name != dependency;
            if ours && !allowed.contains(&name) {
                say(format!("{} must not know {name}: move what it needs to where both may look", each.name));
            }
            if RUNTIMES.contains(&dependency.as_str()) && !ASYNC.contains(&each.name.as_str()) {
                say(format!("{} has no async runtime, and `{dependency}` is one: keep it in the broker", each.name));
            }
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::super::tests::one;
    use super::*;

    fn with(name: &str, dependency: &str, kind: Kind) -> Vec<Finding> {
        let dependencies = vec![("bytes".to_owned(), Kind::Normal), (dependency.to_owned(), kind)];
        check(&[Crate { name: name.to_owned(), manifest: format!("crates/{name}/Cargo.toml"), dependencies }])
    }

    #[test]
    fn an_arrow_that_is_not_drawn_is_found() {
        one(with("log", "ottla-protocol", Kind::Normal), "crates/log/Cargo.toml:1:", "log must not know protocol");
        one(with("client", "ottla-log", Kind::Normal), "crates/client/Cargo.toml:1:", "client must not know log");
        one(with("broker", "ottla", Kind::Normal), "crates/broker/Cargo.toml:1:", "broker must not know cli");
        assert_eq!(with("log", "ottla-records", Kind::Normal), []);
        assert_eq!(with("broker", "ottla-client", Kind::Dev), []);
    }

    #[test]
    fn a_runtime_below_the_broker_is_found() {
        one(with("node", "tokio", Kind::Normal), "crates/node/Cargo.toml:1:", "no async runtime");
        assert_eq!(with("broker", "tokio", Kind::Normal), []);
    }

    #[test]
    fn a_crate_nobody_drew_is_found() {
        one(with("utils", "bytes", Kind::Normal), "crates/utils/Cargo.toml:1:", "say what it may use");
    }

    #[test]
    fn every_arrow_points_at_a_crate_above_it() {
        for (at, (name, uses)) in ARROWS.iter().enumerate().filter(|(_, (name, _))| *name != "xtask") {
            for used in *uses {
                assert!(ARROWS[..at].iter().any(|(each, _)| each == used), "{name} uses {used}, which comes later");
            }
        }
    }
}
