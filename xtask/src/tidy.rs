//! `cargo xtask tidy`, and a test of `cargo test`: the rules of this house that a program can check.
//!
//! A rule is a function from the files of the repository to what breaks it; each says where and what to do. The rules
//! of one file are in `tidy/source.rs`, those that hold documents and code together in `tidy/documents.rs`, the arrows
//! between crates in `tidy/arrows.rs`. Not here: what rustfmt, clippy and cargo-deny know (`.ci/run` runs them).

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context, Result, bail};

mod arrows;
mod documents;
mod source;

/// Something that breaks a rule. `line` counts from 1.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Finding {
    path: String,
    line: usize,
    what: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.path, self.line, self.what)
    }
}

/// The repository's files by path from its root: what Git knows or would add. Files that are not text have no content.
#[derive(Debug, Default)]
struct Tree {
    files: BTreeMap<String, String>,
    paths: BTreeSet<String>,
    /// Paths of this machine that nothing in the repository may name.
    private: Vec<String>,
}

impl Tree {
    fn read(root: &Path) -> Result<Tree> {
        let listed = Command::new("git")
            .args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"])
            .current_dir(root)
            .output()
            .context("tidy asks git which files there are")?;
        if !listed.status.success() {
            bail!("git ls-files: {}", String::from_utf8_lossy(&listed.stderr).trim());
        }
        let mut tree = Tree { private: private_paths(root), ..Tree::default() };
        for path in String::from_utf8(listed.stdout)?.split_terminator('\0') {
            let file = root.join(path);
            if !file.is_file() {
                continue; // Deleted and not committed yet.
            }
            if let Ok(text) = String::from_utf8(std::fs::read(&file).with_context(|| path.to_owned())?) {
                tree.files.insert(path.to_owned(), text);
            }
            tree.insert_path(path);
        }
        Ok(tree)
    }

    fn insert_path(&mut self, path: &str) {
        let with_parents = Path::new(path).ancestors().filter_map(Path::to_str).filter(|each| !each.is_empty());
        self.paths.extend(with_parents.map(str::to_owned));
    }

    /// Files whose name ends in one of `ends`.
    fn ending(&self, ends: &'static [&'static str]) -> impl Iterator<Item = (&str, &str)> {
        let wanted = move |path: &str| ends.iter().any(|end| path.ends_with(end));
        self.files.iter().filter(move |(path, _)| wanted(path)).map(|(path, text)| (path.as_str(), text.as_str()))
    }
}

/// The checkout, the directory it lies in and the user's home, with a slash at the end.
/// Directories that any machine has, and any text may name, also where the repository happens to lie in one.
const EVERYWHERE: [&str; 4] = ["/tmp", "/var/tmp", "/opt", "/srv"];

fn private_paths(root: &Path) -> Vec<String> {
    let home = std::env::var_os("HOME").map(PathBuf::from);
    let mut paths: Vec<String> = [root.parent().map(Path::to_owned), home]
        .into_iter()
        .flatten()
        .filter(|path| path.components().count() > 1 && !EVERYWHERE.map(Path::new).contains(&path.as_path()))
        .filter_map(|path| path.to_str().map(|path| format!("{path}/")))
        .collect();
    paths.extend(["/home/", "/Users/", "/root/"].map(str::to_owned));
    paths
}

/// All findings, in the order of the files.
fn check(root: &Path) -> Result<Vec<Finding>> {
    let tree = Tree::read(root)?;
    let mut findings = source::check(&tree);
    findings.extend(documents::check(&tree));
    findings.extend(arrows::check(&arrows::crates(root)?));
    findings.sort();
    findings.dedup();
    Ok(findings)
}

pub(crate) fn run() -> Result<ExitCode> {
    let findings = check(&crate::root())?;
    for finding in &findings {
        println!("{finding}");
    }
    if findings.is_empty() {
        println!("tidy");
        return Ok(ExitCode::SUCCESS);
    }
    println!("{} to mend", findings.len());
    Ok(ExitCode::FAILURE)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A repository of these files.
    pub(super) fn tree(files: &[(&str, &str)]) -> Tree {
        let mut tree = Tree { private: vec!["/secret/".to_owned()], ..Tree::default() };
        for (path, text) in files {
            tree.files.insert((*path).to_owned(), (*text).to_owned());
            tree.insert_path(path);
        }
        tree
    }

    /// What is found, as it would be printed.
    pub(super) fn lines(findings: Vec<Finding>) -> Vec<String> {
        findings.iter().map(Finding::to_string).collect()
    }

    /// One finding, at that place, whose words contain `what`.
    pub(super) fn one(findings: Vec<Finding>, place: &str, what: &str) {
        let lines = lines(findings);
        let [line] = &lines[..] else { panic!("one finding expected: {lines:#?}") };
        assert!(line.starts_with(place) && line.contains(what), "{line}");
    }

    #[test]
    fn the_repository_is_tidy() {
        let findings = lines(check(&crate::root()).unwrap());
        assert!(findings.is_empty(), "\n{}\n", findings.join("\n"));
    }

    #[test]
    fn paths_of_this_machine_are_known() {
        let private = private_paths(Path::new("/some/where/ottla"));
        assert!(private.contains(&"/some/where/".to_owned()), "{private:?}");
        assert!(!private_paths(Path::new("/tmp/ottla")).contains(&"/tmp/".to_owned()));
        assert!(!private_paths(Path::new("/ottla")).contains(&"//".to_owned()));
    }
}
