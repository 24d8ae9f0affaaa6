//! Rules that hold documents and code together: what a page names exists, and what exists has its page or its row.

use std::collections::BTreeSet;
use std::path::{Component, Path, PathBuf};

use super::{Finding, Tree};

const ARCHITECTURE: &str = "ARCHITECTURE.md";
const API_TABLE: &str = "crates/broker/src/api/mod.rs";
const API_FILES: &str = "crates/broker/src/api/";
/// Files beside the API files that serve several of them.
const API_SHARED: [&str; 4] = ["configs", "group", "leaders", "nearest"];
const INVARIANTS: &str = "docs/non-obvious.md";
const FORMATS: &str = "docs/formats/";

pub(super) fn check(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    links(tree, &mut findings);
    named_paths(tree, &mut findings);
    formats(tree, &mut findings);
    api_table(tree, &mut findings);
    architecture(tree, &mut findings);
    invariants(tree, &mut findings);
    findings
}

/// Lines of a page outside its code blocks, from 1.
fn prose(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut fenced = false;
    text.lines().enumerate().filter_map(move |(index, line)| {
        let fence = line.trim_start().starts_with("```");
        fenced ^= fence;
        (!fenced && !fence).then_some((index + 1, line))
    })
}

/// `[text](target)` in a page: the target exists.
fn links(tree: &Tree, findings: &mut Vec<Finding>) {
    for (path, text) in tree.ending(&[".md"]) {
        for (line, content) in prose(text) {
            for rest in content.split("](").skip(1) {
                let Some(target) = rest.split([')', ' ']).next() else { continue };
                let file = target.split('#').next().unwrap_or(target);
                if file.is_empty() || target.contains("://") || target.starts_with("mailto:") {
                    continue;
                }
                let resolved = resolve(path, file);
                if resolved.is_none_or(|resolved| !tree.paths.contains(&resolved)) {
                    let what = format!("the link to `{target}` leads nowhere: mend or remove it");
                    findings.push(Finding { path: path.to_owned(), line, what });
                }
            }
        }
    }
}

/// The path of a link from the repository's root, none if it leaves the repository.
fn resolve(page: &str, target: &str) -> Option<String> {
    let mut resolved = PathBuf::new();
    let joined = Path::new(page).parent()?.join(target);
    for part in joined.components() {
        match part {
            Component::Normal(name) => resolved.push(name),
            Component::ParentDir => {
                if !resolved.pop() {
                    return None;
                }
            }
            Component::CurDir => {}
            Component::RootDir | Component::Prefix(_) => return None,
        }
    }
    resolved.to_str().map(str::to_owned)
}

/// Paths of this repository in backticks, in pages and in the comments of code: they exist.
fn named_paths(tree: &Tree, findings: &mut Vec<Finding>) {
    const TOPS: [&str; 7] = ["crates/", "docs/", "compat/", "xtask/", "fuzz/", "bench/", ".ci/"];
    let is_path = |word: &str| {
        TOPS.iter().any(|top| word.starts_with(top))
            && word.chars().all(|c| c.is_ascii_alphanumeric() || "_-./".contains(c))
    };
    for (path, text) in tree.ending(&[".md", ".rs"]) {
        // The tests of these rules name what does not exist.
        if path.starts_with("xtask/src/tidy") {
            continue;
        }
        for (line, content) in prose(text) {
            if path.ends_with(".rs") && !content.trim_start().starts_with("//") {
                continue;
            }
            for word in content.split('`').skip(1).step_by(2).filter(|word| is_path(word)) {
                let word = word.trim_end_matches('/');
                // What a command makes and Git ignores; `formats` says more about its pages.
                let other = word.contains("/.") || path.ends_with(".rs") && word.starts_with(FORMATS);
                if !other && !tree.paths.contains(word) {
                    let what = format!("there is no `{word}`: name what is there");
                    findings.push(Finding { path: path.to_owned(), line, what });
                }
            }
        }
    }
}

/// Every byte format has a page, and every page code that names it.
fn formats(tree: &Tree, findings: &mut Vec<Finding>) {
    let mut named = BTreeSet::new();
    for (path, text) in tree.ending(&[".rs"]).filter(|(path, _)| !path.starts_with("xtask/src/tidy")) {
        for (index, line) in text.lines().enumerate() {
            for rest in line.split(FORMATS).skip(1) {
                let end = rest.find(|c: char| !(c.is_ascii_alphanumeric() || "_-".contains(c))).unwrap_or(rest.len());
                if !rest[end..].starts_with(".md") {
                    continue;
                }
                let page = format!("{FORMATS}{}.md", &rest[..end]);
                if !tree.paths.contains(&page) {
                    let what = format!("`{page}` is not written: a grammar and a worked example");
                    findings.push(Finding { path: path.to_owned(), line: index + 1, what });
                }
                named.insert(page);
            }
        }
    }
    let pages = tree.paths.iter().filter(|path| path.starts_with(FORMATS) && path.ends_with(".md"));
    for page in pages.filter(|page| !page.ends_with("/README.md") && !named.contains(*page)) {
        let what = "no code names this page: link it from the module that reads and writes the format".to_owned();
        findings.push(Finding { path: page.clone(), line: 1, what });
    }
}

/// One file for each row of the table of requests, and one row for each file.
fn api_table(tree: &Tree, findings: &mut Vec<Finding>) {
    let Some(table) = tree.files.get(API_TABLE) else { return };
    let mut rows = BTreeSet::new();
    for (index, line) in table.lines().enumerate() {
        let line_start = line.trim_start();
        let name = line_start.strip_prefix("row!(").or_else(|| line_start.strip_prefix("Row { key: ApiKey::"));
        let Some(name) = name.and_then(|rest| rest.split(',').next()) else { continue };
        let file = snake_case(name);
        let exists = |path: String| tree.paths.contains(&path);
        if !exists(format!("{API_FILES}{file}.rs")) && !exists(format!("{API_FILES}{file}/mod.rs")) {
            let what = format!("{name} has no file of its own: {API_FILES}{file}.rs");
            findings.push(Finding { path: API_TABLE.to_owned(), line: index + 1, what });
        }
        rows.insert(file);
    }
    for path in tree.paths.iter().filter(|path| path.starts_with(API_FILES) && path.ends_with(".rs")) {
        let file = path[API_FILES.len()..].trim_end_matches(".rs");
        let direct = !file.contains('/') && file != "mod" && !API_SHARED.contains(&file);
        if direct && !rows.contains(file) {
            let what = "no row of the table of requests: serve it, or move it beside `api`".to_owned();
            findings.push(Finding { path: path.clone(), line: 1, what });
        }
    }
}

fn snake_case(name: &str) -> String {
    let mut snake = String::new();
    for c in name.chars() {
        if c.is_ascii_uppercase() && !snake.is_empty() {
            snake.push('_');
        }
        snake.push(c.to_ascii_lowercase());
    }
    snake
}

/// The map of the house names every crate.
fn architecture(tree: &Tree, findings: &mut Vec<Finding>) {
    let crates: BTreeSet<&str> = tree
        .paths
        .iter()
        .filter_map(|path| path.strip_prefix("crates/")?.strip_suffix("/Cargo.toml"))
        .filter(|name| !name.contains('/'))
        .collect();
    let page = tree.files.get(ARCHITECTURE).map_or("", String::as_str);
    for name in crates {
        let named = [format!("`{name}`"), format!("crates/{name}"), format!("ottla-{name}"), format!("[{name}]")];
        let in_list = page.lines().any(|line| line.split_whitespace().next() == Some(name));
        if !in_list && !named.iter().any(|each| page.contains(each)) {
            let what = format!("`{name}` is missing: what it is, and what it must not know");
            findings.push(Finding { path: ARCHITECTURE.to_owned(), line: 1, what });
        }
    }
}

/// Every rule of `docs/non-obvious.md` names a test that is there.
fn invariants(tree: &Tree, findings: &mut Vec<Finding>) {
    let Some(page) = tree.files.get(INVARIANTS) else { return };
    let is_name = |word: &&str| word.contains('_') && word.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    for (line, content) in prose(page) {
        for name in content.split('`').skip(1).step_by(2).filter(is_name) {
            let declared = format!("fn {name}(");
            if !tree.ending(&[".rs"]).any(|(_, text)| text.contains(&declared)) {
                let what = format!("there is no test `{name}`: name the one that holds this rule");
                findings.push(Finding { path: INVARIANTS.to_owned(), line, what });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{lines, one, tree};
    use super::*;

    #[test]
    fn a_link_to_nowhere_is_found() {
        let page =
            |link: &str| check(&tree(&[("docs/a.md", &format!("# A\n\nSee [b]({link}).\n")), ("b.md", "# B\n")]));
        one(page("c.md"), "docs/a.md:3:", "`c.md` leads nowhere");
        one(page("../../b.md"), "docs/a.md:3:", "leads nowhere");
        for good in ["../b.md", "../b.md#part", "#part", "https://example.com/c.md", "../docs/"] {
            assert_eq!(lines(page(good)), Vec::<String>::new());
        }
        assert_eq!(check(&tree(&[("a.md", "```\n[b](c.md)\n```\n")])), []);
    }

    #[test]
    fn a_path_that_does_not_exist_is_found() {
        let code = "//! As in `docs/b.md` and `crates/<name>`.\n";
        one(check(&tree(&[("xtask/src/a.rs", code)])), "xtask/src/a.rs:1:", "no `docs/b.md`");
        assert_eq!(check(&tree(&[("xtask/src/a.rs", code), ("docs/b.md", "# B\n")])), []);
        one(check(&tree(&[("a.md", "`crates/x/src`\n")])), "a.md:1:", "no `crates/x/src`");
    }

    #[test]
    fn a_format_without_page_and_a_page_without_code_are_found() {
        let code = ("crates/log/src/index.rs", "//! See docs/formats/index.md for it.\n");
        one(check(&tree(&[code])), "crates/log/src/index.rs:1:", "docs/formats/index.md` is not written");
        let page = ("docs/formats/index.md", "# Index\n");
        one(check(&tree(&[page])), "docs/formats/index.md:1:", "no code names this page");
        assert_eq!(check(&tree(&[code, page])), []);
    }

    #[test]
    fn a_row_without_file_and_a_file_without_row_are_found() {
        let table = "//! The table.\n    row!(ListOffsets, Describe, Blocking(list_offsets::handle)),\n\
                     Row { key: ApiKey::Fetch, operation: Operation::Read },\n";
        let files = [
            (API_TABLE, table),
            ("crates/broker/src/api/list_offsets.rs", "//! A.\n"),
            ("crates/broker/src/api/fetch.rs", "//! A.\n"),
            ("crates/broker/src/api/fetch/session.rs", "//! A.\n"),
            ("crates/broker/src/api/configs.rs", "//! A.\n"),
        ];
        assert_eq!(check(&tree(&files)), []);
        one(check(&tree(&[files[0], files[2]])), "crates/broker/src/api/mod.rs:2:", "ListOffsets has no file");
        let more = [&files[..], &[("crates/broker/src/api/vote.rs", "//! A.\n")]].concat();
        one(check(&tree(&more)), "crates/broker/src/api/vote.rs:1:", "no row");
    }

    #[test]
    fn a_crate_the_architecture_does_not_name_is_found() {
        let manifest = ("crates/log/Cargo.toml", "[package]\n");
        one(check(&tree(&[manifest])), "ARCHITECTURE.md:1:", "`log` is missing");
        one(check(&tree(&[manifest, (ARCHITECTURE, "# The catalogue\n")])), "ARCHITECTURE.md:1:", "`log` is missing");
        assert_eq!(check(&tree(&[manifest, (ARCHITECTURE, "  log     one partition's files\n")])), []);
        assert_eq!(check(&tree(&[manifest, (ARCHITECTURE, "- `log`: one partition's files\n")])), []);
    }

    #[test]
    fn a_rule_whose_test_is_gone_is_found() {
        let page = (INVARIANTS, "- **L1** A rule. `l1_a_test`\n");
        one(check(&tree(&[page])), "docs/non-obvious.md:1:", "no test `l1_a_test`");
        assert_eq!(check(&tree(&[page, ("crates/log/tests/x.rs", "fn l1_a_test() {}\n")])), []);
    }
}
