//! Rules that one file alone keeps or breaks.
//!
//! Rust is looked at as tokens, so that words in comments and strings are no findings.

use proc_macro2::{Delimiter, TokenStream, TokenTree};

use super::{Finding, Tree};

/// Columns of code and prose, counted in characters.
const COLUMNS_MAX: usize = 120;
/// The only file that may hold `unsafe`.
const UNSAFE: &str = "crates/log/src/sys.rs";
/// Crates that are told the time and asked for nothing: no clock, no disk, no network, no threads.
const PURE: [&str; 7] = ["types", "records", "protocol", "metadata", "replica", "group", "transaction"];
/// Hosts that manifests and lock files may name: where anybody gets these packages.
const HOSTS: [&str; 10] = [
    "github.com",
    "crates.io",
    "registry.npmjs.org",
    "opencollective.com",
    "www.apache.org",
    "maven.apache.org",
    "www.w3.org",
    "repo.maven.apache.org",
    "docs.rs",
    "embarkstudios.github.io",
];

const TEXT: &[&str] = &[".rs", ".md", ".toml", ".msg", ".sh", ".py", ".js", ".java", ".yml", ".yaml", "/run", "/start"];
const MANIFESTS: &[&str] =
    &[".toml", ".lock", "package.json", "package-lock.json", "pom.xml", "go.mod", "requirements.txt", ".npmrc", ".yml"];

pub(super) fn check(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (path, text) in tree.ending(&[".rs"]) {
        header(path, text, &mut findings);
        rust(path, text, &mut findings);
    }
    for (path, text) in tree.ending(TEXT) {
        lines(path, text, &mut findings);
    }
    for (path, text) in tree.ending(MANIFESTS) {
        hosts(path, text, &mut findings);
    }
    for (path, text) in &tree.files {
        private_paths(tree, path, text, &mut findings);
    }
    findings
}

fn found(findings: &mut Vec<Finding>, path: &str, line: usize, what: impl Into<String>) {
    findings.push(Finding { path: path.to_owned(), line, what: what.into() });
}

fn header(path: &str, text: &str, findings: &mut Vec<Finding>) {
    if !text.starts_with("//! ") {
        found(findings, path, 1, "open with `//! `: what this file is, what it is not, where to go next");
    }
}

fn lines(path: &str, text: &str, findings: &mut Vec<Finding>) {
    for (line, content) in text.lines().enumerate().map(|(index, content)| (index + 1, content)) {
        let columns = content.chars().count();
        // A manifest's value, a table's row and an address can't be broken.
        let page = path.ends_with(".md");
        let unbreakable = path.ends_with(".toml") || page && (content.starts_with('|') || content.contains("://"));
        if columns > COLUMNS_MAX && !unbreakable {
            found(findings, path, line, format!("{columns} columns, {COLUMNS_MAX} are allowed: break the line"));
        }
        if content.contains('\t') {
            found(findings, path, line, "a tab: indent with spaces, write `\\t` in strings");
        }
        if content.ends_with([' ', '\r']) {
            found(findings, path, line, "space at the end of the line: remove it");
        }
    }
    if !text.is_empty() && (!text.ends_with('\n') || text.ends_with("\n\n")) {
        found(findings, path, text.lines().count(), "end the file with one line break");
    }
}

fn hosts(path: &str, text: &str, findings: &mut Vec<Finding>) {
    for (index, line) in text.lines().enumerate() {
        for rest in line.split("://").skip(1) {
            let end = rest.find(|c: char| !(c.is_ascii_alphanumeric() || "-.:@".contains(c))).unwrap_or(rest.len());
            let host = &rest[..end];
            if !HOSTS.contains(&host) {
                let what = format!("`{host}` is not where everybody gets packages: see HOSTS in xtask/src/tidy");
                found(findings, path, index + 1, what);
            }
        }
    }
}

fn private_paths(tree: &Tree, path: &str, text: &str, findings: &mut Vec<Finding>) {
    for (index, line) in text.lines().enumerate() {
        for private in &tree.private {
            let named = line.match_indices(private).any(|(at, _)| {
                let before = line[..at].chars().next_back();
                !before.is_some_and(|c| c.is_alphanumeric() || "_-.*}/".contains(c))
            });
            // The list itself, and its tests.
            if named && !path.starts_with("xtask/src/tidy") {
                found(findings, path, index + 1, format!("`{private}` is a path of one machine: make it relative"));
            }
        }
    }
}

/// The rules about Rust code.
fn rust(path: &str, text: &str, findings: &mut Vec<Finding>) {
    let stream = match text.parse::<TokenStream>() {
        Ok(stream) => stream,
        Err(error) => return found(findings, path, error.span().start().line, "this is not Rust"),
    };
    let in_tests = is_test_file(path);
    let scripts = path.split('/').any(|part| part == "build" || part == "build.rs");
    let context = Rust { path, text, pure: is_pure(path), scripts };
    context.walk(stream, in_tests, findings);
}

fn is_test_file(path: &str) -> bool {
    path.starts_with("fuzz/") || path.split('/').any(|part| matches!(part, "tests" | "tests.rs" | "benches"))
}

fn is_pure(path: &str) -> bool {
    let mut parts = path.split('/');
    parts.next() == Some("crates")
        && parts.next().is_some_and(|name| PURE.contains(&name))
        && parts.next() == Some("src")
}

struct Rust<'a> {
    path: &'a str,
    text: &'a str,
    pure: bool,
    /// Build scripts panic to say what is wrong.
    scripts: bool,
}

impl Rust<'_> {
    fn walk(&self, stream: TokenStream, in_tests: bool, findings: &mut Vec<Finding>) {
        let tokens: Vec<TokenTree> = stream.into_iter().collect();
        let mut item_is_test = false;
        for (at, token) in tokens.iter().enumerate() {
            let rest = &tokens[at..];
            if is_cfg_test(rest) {
                item_is_test = true;
            }
            let tests = in_tests || item_is_test;
            self.look(rest, at.checked_sub(1).map(|before| &tokens[before]), tests, findings);
            if let TokenTree::Group(group) = token {
                self.walk(group.stream(), tests, findings);
                item_is_test &= group.delimiter() != Delimiter::Brace;
            } else if is_punct(token, ';') {
                item_is_test = false;
            }
        }
    }

    fn look(&self, rest: &[TokenTree], before: Option<&TokenTree>, tests: bool, findings: &mut Vec<Finding>) {
        let TokenTree::Ident(ident) = &rest[0] else { return };
        let name = ident.to_string();
        let line = ident.span().start().line;
        let mut say = |what: String| found(findings, self.path, line, what);
        let called =
            matches!(rest.get(1), Some(TokenTree::Group(group)) if group.delimiter() == Delimiter::Parenthesis);
        let is_macro = rest.get(1).is_some_and(|next| is_punct(next, '!'));
        match name.as_str() {
            "todo" | "unimplemented" | "dbg" if is_macro => {
                say(format!("`{name}!` is for the desk: finish it, or take it out"));
            }
            "unwrap" | "expect"
                if called && !tests && !self.scripts && before.is_some_and(|token| is_punct(token, '.')) =>
            {
                say(format!("`.{name}()` outside tests: return an error, or make the case impossible by a type"));
            }
            "sleep" if called && tests => say("a test that sleeps is slow or flaky: wait for the event itself".into()),
            "unsafe" => self.unsafe_code(line, &mut say),
            "SystemTime" | "Instant" if self.pure && !tests && calls(rest, "now") => {
                say(format!("`{name}::now` in a crate without a clock: take `now` as an argument"));
            }
            "std" if self.pure && !tests => {
                if let Some(part) = ["fs", "net", "thread", "process", "env"].into_iter().find(|part| calls(rest, part))
                {
                    say(format!("`std::{part}` in a crate without I/O: leave it to `log`, `node` or `broker`"));
                }
            }
            _ => {}
        }
    }

    fn unsafe_code(&self, line: usize, say: &mut impl FnMut(String)) {
        if self.path != UNSAFE {
            return say(format!("`unsafe` lives in {UNSAFE} alone: put a safe function there"));
        }
        let above = self.text.lines().take(line - 1).collect::<Vec<_>>();
        let comment = above.iter().rev().take_while(|line| line.trim_start().starts_with("//"));
        if !comment.into_iter().any(|line| line.trim_start().starts_with("// SAFETY:")) {
            say("an `unsafe` needs `// SAFETY:` above it: why it can't go wrong".into());
        }
    }
}

fn is_punct(token: &TokenTree, wanted: char) -> bool {
    matches!(token, TokenTree::Punct(punct) if punct.as_char() == wanted)
}

fn is_ident(token: Option<&TokenTree>, wanted: &str) -> bool {
    matches!(token, Some(TokenTree::Ident(ident)) if ident == wanted)
}

/// Whether the tokens are `head :: wanted`.
fn calls(tokens: &[TokenTree], wanted: &str) -> bool {
    let colons = |at: usize| tokens.get(at).is_some_and(|token| is_punct(token, ':'));
    colons(1) && colons(2) && is_ident(tokens.get(3), wanted)
}

/// Whether an attribute `#[cfg(test)]` or `#[test]` begins here.
fn is_cfg_test(tokens: &[TokenTree]) -> bool {
    let (Some(hash), Some(TokenTree::Group(group))) = (tokens.first(), tokens.get(1)) else { return false };
    if !is_punct(hash, '#') || group.delimiter() != Delimiter::Bracket {
        return false;
    }
    let inner: Vec<TokenTree> = group.stream().into_iter().collect();
    match &inner[..] {
        [test] => is_ident(Some(test), "test"),
        [cfg, TokenTree::Group(group)] if is_ident(Some(cfg), "cfg") => {
            is_ident(group.stream().into_iter().next().as_ref(), "test")
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{lines, one, tree};
    use super::*;

    /// What is found in a file of that name with a proper header.
    fn in_file(path: &str, code: &str) -> Vec<Finding> {
        check(&tree(&[(path, &format!("//! A file.\n{code}"))]))
    }

    fn in_code(code: &str) -> Vec<Finding> {
        in_file("crates/node/src/x.rs", code)
    }

    #[test]
    fn a_file_without_a_header_is_found() {
        one(check(&tree(&[("a.rs", "fn a() {}\n")])), "a.rs:1:", "open with `//! `");
    }

    #[test]
    fn long_lines_tabs_and_loose_ends_are_found() {
        one(in_code(&format!("// {}\n", "ü".repeat(118))), "crates/node/src/x.rs:2:", "121 columns");
        assert_eq!(in_code(&format!("// {}\n", "ü".repeat(117))), []);
        one(in_code("\tfn a() {}\n"), "crates/node/src/x.rs:2:", "a tab");
        one(in_code("fn a() {} \n"), "crates/node/src/x.rs:2:", "space at the end");
        one(in_code("fn a() {}"), "crates/node/src/x.rs:2:", "one line break");
        one(in_code("fn a() {}\n\n"), "crates/node/src/x.rs:3:", "one line break");
        let row = format!("| {} |\n", "x".repeat(200));
        assert_eq!(check(&tree(&[("a.md", &row)])), []);
        one(check(&tree(&[("a.md", &row.replace('|', "-"))])), "a.md:1:", "columns");
    }

    #[test]
    fn unfinished_code_is_found() {
        one(in_code("fn a() { todo!() }\n"), "crates/node/src/x.rs:2:", "`todo!`");
        one(in_code("fn a() { unimplemented!(\"x\") }\n"), "crates/node/src/x.rs:2:", "`unimplemented!`");
        one(in_code("\nfn a() { dbg!(1); }\n"), "crates/node/src/x.rs:3:", "`dbg!`");
        assert_eq!(in_code("/// todo!()\nfn a() -> &'static str { \"todo!()\" }\n"), []);
    }

    #[test]
    fn unwrapping_outside_tests_is_found() {
        one(in_code("fn a() { b().unwrap(); }\n"), "crates/node/src/x.rs:2:", "`.unwrap()`");
        one(in_code("fn a() { b()\n.expect(\"x\"); }\n"), "crates/node/src/x.rs:3:", "`.expect()`");
        let after = "#[cfg(test)]\nmod tests { fn a() { b().unwrap() } }\nfn c() { d().unwrap() }\n";
        one(in_code(after), "crates/node/src/x.rs:4:", "`.unwrap()`");
        assert_eq!(in_code("#[test]\nfn a() { b().unwrap() }\nfn c() { d().unwrap_or(1) }\n"), []);
        assert_eq!(in_file("crates/node/tests/x.rs", "fn a() { b().unwrap(); }\n"), []);
    }

    #[test]
    fn sleeping_tests_are_found() {
        one(in_file("crates/node/tests/x.rs", "fn a() { thread::sleep(b); }\n"), "crates/node/tests/x.rs:2:", "sleeps");
        one(in_code("#[cfg(test)]\nmod tests { fn a() { sleep(b) } }\n"), "crates/node/src/x.rs:3:", "sleeps");
        assert_eq!(in_code("fn a() { thread::sleep(b) }\n"), []);
    }

    #[test]
    fn unsafe_code_is_found_outside_its_file_and_without_its_reason() {
        let code = "fn a() { unsafe { b() } }\n";
        one(in_code(code), "crates/node/src/x.rs:2:", "lives in crates/log/src/sys.rs");
        one(in_file(UNSAFE, code), "crates/log/src/sys.rs:2:", "// SAFETY:");
        assert_eq!(in_file(UNSAFE, "// SAFETY: b may always\n// be called.\nfn a() { unsafe { b() } }\n"), []);
        assert_eq!(in_code("#![forbid(unsafe_code)]\n"), []);
    }

    #[test]
    fn a_clock_or_a_disk_in_a_pure_crate_is_found() {
        let clock = "fn a() { let b = Instant::now(); }\n";
        one(in_file("crates/replica/src/x.rs", clock), "crates/replica/src/x.rs:2:", "take `now` as an argument");
        one(in_file("crates/types/src/x.rs", "use std::fs::File;\n"), "crates/types/src/x.rs:2:", "`std::fs`");
        assert_eq!(in_code(clock), []);
        assert_eq!(in_file("crates/types/src/x.rs", "#[cfg(test)]\nmod tests { use std::fs; }\n"), []);
    }

    #[test]
    fn paths_of_one_machine_and_private_registries_are_found() {
        let path = in_code("const A: &str = \"/secret/data\";\n");
        one(path, "crates/node/src/x.rs:2:", "path of one machine");
        assert_eq!(in_code("const A: &str = \"a/secret/data\";\n"), []);
        let lock = "[registry]\nindex = \"https://packages.example.com:443/crates\"\n";
        one(check(&tree(&[("Cargo.lock", lock)])), "Cargo.lock:2:", "`packages.example.com:443`");
        let github = "source = \"registry+https://github.com/rust-lang/crates.io-index\"\n";
        assert_eq!(lines(check(&tree(&[("Cargo.lock", github)]))), Vec::<String>::new());
    }

    #[test]
    fn what_is_not_rust_is_found() {
        one(check(&tree(&[("a.rs", "//! A file.\nfn a( {}\n")])), "a.rs:2:", "not Rust");
    }
}
