//! Checks the code against ARCHITECTURE.md: which module may import which, which module owns which library, the form of
//! every file, and that the pages name files that exist. Cycles within a module are in `module_cycles.rs`.
//!
//! It reads all tokens of each file under `src/`, not only the `use` lines, so that a path written out in the middle of
//! a function counts as well.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

const MAX_FILE_LINES: usize = 600;

/// Every module, and the modules that it may import.
const MODULE_IMPORTS: &[(&str, &[&str])] = &[
    ("domain", &[]),
    ("store", &["domain"]),
    ("auth", &["domain", "store"]),
    ("tree", &["domain", "store", "auth"]),
    ("tokens", &["domain", "store", "auth", "tree"]),
    ("net", &["domain"]),
    ("http", &["domain", "auth", "net"]),
    ("webdav", &["domain", "store", "auth", "tree", "tokens", "http"]),
    ("sftp", &["domain", "store", "auth", "tree", "tokens", "net", "telemetry"]),
    ("api", &["domain", "store", "auth", "tree", "tokens", "http"]),
    ("console", &["domain", "store", "auth", "tree", "tokens", "http"]),
    ("config", &["domain"]),
    ("telemetry", &["domain"]),
    (
        "gateway",
        &[
            "domain",
            "store",
            "auth",
            "tree",
            "tokens",
            "net",
            "http",
            "webdav",
            "sftp",
            "api",
            "console",
            "config",
            "telemetry",
        ],
    ),
    (
        "cli",
        &[
            "domain",
            "store",
            "auth",
            "tree",
            "tokens",
            "net",
            "api",
            "webdav",
            "sftp",
            "gateway",
            "config",
            "telemetry",
        ],
    ),
    // Of builds for tests and fuzzing alone.
    ("fuzzing", &["domain", "net", "http", "webdav", "sftp", "api", "console"]),
    ("lib", &[]),
    ("main", &["cli"]),
];

/// Libraries that any module may name.
const COMMON_LIBRARIES: &[&str] = &[
    "arc_swap",
    "base64",
    "bytes",
    "memchr",
    "parking_lot",
    "serde",
    "subtle",
    "thiserror",
    "tokio",
    "tokio_util",
    "tracing",
    "uuid",
    "zeroize",
];

/// Every other library, and the modules that may name it. A directory stands for all below it.
const LIBRARY_OWNERS: &[(&str, &[&str])] = &[
    ("anyhow", &["main", "cli"]),
    ("argon2", &["auth"]),
    ("askama", &["console", "gateway/notices"]),
    ("axum", &["api", "console"]),
    ("blake3", &["store", "auth", "tree", "console", "cli"]),
    ("clap", &["cli"]),
    ("clap_complete", &["cli"]),
    ("clap_mangen", &["cli"]),
    ("crc32fast", &["domain"]),
    ("data_encoding", &["webdav"]),
    ("getrandom", &["domain", "store", "auth", "tree", "sftp"]),
    ("h2", &["http", "gateway"]),
    ("hmac", &["auth", "gateway/notices"]),
    ("http", &["http", "webdav", "api", "console", "gateway"]),
    ("http_body_util", &["http", "webdav", "api", "console", "gateway"]),
    ("httpdate", &["http", "webdav"]),
    ("hyper", &["http", "webdav", "console", "gateway"]),
    ("hyper_util", &["http", "webdav", "gateway"]),
    ("icu_normalizer", &["domain"]),
    ("infer", &["tree"]),
    ("instant_acme", &["gateway/acme"]),
    ("ipnet", &["domain", "net", "http", "config", "gateway", "cli"]),
    ("jiff", &["domain", "webdav", "sftp", "cli"]),
    ("landlock", &["cli"]),
    ("lettre", &["gateway/notices"]),
    ("listenfd", &["net"]),
    ("md5", &["webdav", "sftp"]),
    ("mimalloc", &["main"]),
    ("mime_guess", &["domain", "webdav", "tree", "console"]),
    ("moka", &["auth"]),
    ("percent_encoding", &["domain", "webdav", "api", "console", "cli", "telemetry"]),
    ("prometheus", &["telemetry"]),
    ("proxy_header", &["net"]),
    ("qrcode", &["console"]),
    ("quick_xml", &["webdav"]),
    ("rcgen", &["net/acme_challenges"]),
    ("reqwest", &["cli", "gateway/notices"]),
    ("rusqlite", &["store"]),
    ("rusqlite_migration", &["store"]),
    ("russh", &["sftp"]),
    ("ssh_key", &["domain", "sftp"]),
    ("rustix", &["auth/clock", "tree/fs", "store", "net", "cli"]),
    ("rustls", &["net", "gateway"]),
    (
        "serde_json",
        &["store", "api", "console", "cli", "telemetry", "domain/roundtrip_tests", "gateway/acme", "gateway/notices"],
    ),
    ("sha1", &["webdav", "sftp"]),
    ("strsim", &["config"]),
    ("sha2", &["auth", "tree", "webdav", "sftp", "gateway/notices"]),
    ("socket2", &["net"]),
    ("tar", &["cli"]),
    ("tokio_rustls", &["net", "gateway"]),
    ("toml", &["config"]),
    ("tower_service", &["gateway", "api", "console"]),
    ("tracing_subscriber", &["telemetry"]),
    ("x509_cert", &["net/certificate"]),
    // The schema of a value stands beside its parser, so that a field is described where it is declared.
    (
        "utoipa",
        &[
            "api",
            "domain/schema",
            "domain/limits",
            "tokens/requests",
            "store/tokens",
            "store/located_scopes",
            "store/audit_chain",
        ],
    ),
    ("utoipa_axum", &["api"]),
];

/// A piece of a Rust file that is neither comment nor literal, with its line.
#[derive(Clone, Copy, Debug, PartialEq)]
struct SourceToken<'a> {
    text: &'a str,
    line: usize,
}

/// The tokens of a file: identifiers whole, `::` whole, every other sign by itself.
fn tokenize(source: &str) -> Vec<SourceToken<'_>> {
    let bytes = source.as_bytes();
    let (mut found, mut at, mut line) = (Vec::new(), 0, 1);
    while at < bytes.len() {
        let end = at + token_length(&source[at..]);
        let text = &source[at..end];
        let is_word = text.starts_with(|c: char| c.is_alphabetic() || c == '_') && !text.contains(['"', '\'']);
        if is_word || text == "::" || (text.len() == 1 && bytes[at].is_ascii_punctuation()) {
            found.push(SourceToken { text, line });
        }
        line += text.matches('\n').count();
        at = end;
    }
    found
}

/// Returns the length in bytes of the token, comment, literal or white space at the start of the text.
fn token_length(text: &str) -> usize {
    let first = text.chars().next().map_or(0, char::len_utf8);
    if text.starts_with("//") {
        return text.find('\n').unwrap_or(text.len());
    }
    if text.starts_with("/*") {
        return block_comment_length(text);
    }
    if text.starts_with("::") {
        return 2;
    }
    if let Some(length) = literal_length(text) {
        return length;
    }
    let word = text.find(|c: char| !(c.is_alphanumeric() || c == '_')).unwrap_or(text.len());
    if word > 0 { word } else { first }
}

fn block_comment_length(text: &str) -> usize {
    let (mut depth, mut at) = (0, 0);
    while at < text.len() {
        let rest = &text.as_bytes()[at..];
        if rest.starts_with(b"/*") {
            depth += 1;
            at += 2;
        } else if rest.starts_with(b"*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                return at;
            }
        } else {
            at += 1;
        }
    }
    text.len()
}

/// The length of the string, byte string, raw string or character at the start of the text, if there is one.
fn literal_length(text: &str) -> Option<usize> {
    let prefix = ["br", "cr", "b", "c", "r"].into_iter().find(|p| {
        text.strip_prefix(p).is_some_and(|rest| rest.starts_with('"') || (p.ends_with('r') && rest.starts_with("#")))
    });
    let start = prefix.map_or(0, str::len);
    let rest = &text[start..];
    if prefix.is_some_and(|p| p.ends_with('r')) {
        let hashes = rest.len() - rest.trim_start_matches('#').len();
        let body = rest[hashes..].strip_prefix('"')?;
        let close = format!("\"{}", "#".repeat(hashes));
        return Some(start + hashes + 1 + body.find(&close).map_or(body.len(), |i| i + close.len()));
    }
    if rest.starts_with('"') {
        return Some(start + quoted_length(rest, b'"'));
    }
    let quote = if text.starts_with("b'") { 1 } else { 0 };
    let body = text[quote..].strip_prefix('\'')?;
    let mut characters = body.chars();
    match (characters.next(), characters.next()) {
        (Some('\\'), _) | (Some(_), Some('\'')) => Some(quote + quoted_length(&text[quote..], b'\'')),
        _ => None,
    }
}

fn quoted_length(text: &str, quote: u8) -> usize {
    let bytes = text.as_bytes();
    let mut at = 1;
    while at < bytes.len() {
        match bytes[at] {
            b'\\' => at += 2,
            b if b == quote => return at + 1,
            _ => at += 1,
        }
    }
    bytes.len()
}

/// The first names that follow a `::`: one for `a::b`, each of the branches for `{a::b, c as d, self}`.
fn path_roots<'a>(tokens: &[SourceToken<'a>]) -> Vec<SourceToken<'a>> {
    match tokens.first() {
        Some(first) if first.text == "{" => {
            let (mut depth, mut expected, mut found) = (0, false, Vec::new());
            for token in tokens {
                match token.text {
                    "{" => {
                        depth += 1;
                        expected = depth == 1;
                    }
                    "}" => {
                        depth -= 1;
                        if depth == 0 {
                            break;
                        }
                    }
                    "," => expected = depth == 1,
                    _ if expected => {
                        found.push(*token);
                        expected = false;
                    }
                    _ => {}
                }
            }
            found
        }
        Some(first) => vec![*first],
        None => Vec::new(),
    }
}

/// Returns the names that a file uses: modules of the crate by `crate::`, `patgate::` or `super::`, and libraries.
fn referenced_modules_and_libraries<'a>(
    module: &[&'a str],
    tokens: &[SourceToken<'a>],
) -> (Vec<SourceToken<'a>>, Vec<SourceToken<'a>>) {
    let (mut modules, mut libraries) = (Vec::new(), Vec::new());
    let (mut depth, mut inner) = (0_usize, Vec::new());
    for (at, token) in tokens.iter().enumerate() {
        let before = at.checked_sub(1).map_or("", |i| tokens[i].text);
        let next = |n: usize| tokens.get(at + n).map_or("", |t| t.text);
        match token.text {
            "{" => depth += 1,
            "}" => {
                depth = depth.saturating_sub(1);
                inner.retain(|opened| *opened <= depth);
            }
            "mod" if next(2) == "{" => inner.push(depth + 1),
            "crate" | "patgate" if before != "::" && next(1) == "::" => modules.extend(path_roots(&tokens[at + 2..])),
            "super" if before != "::" && next(1) == "::" => {
                let ups = (0..).take_while(|n| next(2 * n) == "super" && next(2 * n + 1) == "::").count();
                if ups == module.len() + inner.len() {
                    modules.extend(path_roots(&tokens[at + 2 * ups..]));
                }
            }
            "use" | "crate" if next(2) == ";" || next(2) == "as" => libraries.extend(tokens.get(at + 1)),
            "use" if next(1) == "{" => libraries.extend(path_roots(&tokens[at + 1..])),
            "use" if next(1) == "::" => libraries.extend(tokens.get(at + 2)),
            _ if before != "::" && before != "." && next(1) == "::" => libraries.push(*token),
            _ => {}
        }
    }
    libraries.sort_by_key(|token| (token.line, token.text));
    libraries.dedup();
    (modules, libraries)
}

/// The module path of a file below `src/`: `["tree", "host"]` for `tree/fs/mod.rs`, none for `lib.rs`.
fn module_path(path: &str) -> Vec<&str> {
    let path = path.trim_end_matches(".rs").trim_end_matches("/mod");
    if path == "lib" || path == "main" { Vec::new() } else { path.split('/').collect() }
}

fn top_level_module(path: &str) -> &str {
    path.trim_end_matches(".rs").split('/').next().unwrap_or_default()
}

fn is_owner(path: &str, owner: &str) -> bool {
    let file = path.trim_end_matches(".rs");
    file == owner || file.strip_prefix(owner).is_some_and(|rest| rest.starts_with('/'))
}

/// All that is wrong with a file; its path is relative to `src/`.
fn violations(path: &str, source: &str) -> Vec<String> {
    let mut found = Vec::new();
    let module = top_level_module(path);
    let lines = source.lines().count();
    if !source.starts_with("//!") {
        found.push(format!("{path}:1: does not begin with a `//!` that says what the module is for"));
    }
    if lines > MAX_FILE_LINES {
        found.push(format!("{path}: {lines} lines, more than {MAX_FILE_LINES}"));
    }
    let tokens = tokenize(source);
    for pair in tokens.windows(2) {
        let SourceToken { text, line } = pair[0];
        if text == "unsafe" {
            found.push(format!("{path}:{line}: unsafe"));
        }
        if ["todo", "unimplemented", "dbg"].contains(&text) && pair[1].text == "!" {
            found.push(format!("{path}:{line}: {text}!"));
        }
    }
    let Some((_, allowed)) = MODULE_IMPORTS.iter().find(|(name, _)| *name == module) else {
        found.push(format!("{path}: the module `{module}` is not in the plan"));
        return found;
    };
    let (modules, libraries) = referenced_modules_and_libraries(&module_path(path), &tokens);
    for SourceToken { text, line } in modules {
        let is_module = MODULE_IMPORTS.iter().any(|(name, _)| *name == text);
        if is_module && text != module && !allowed.contains(&text) {
            found.push(format!("{path}:{line}: `{module}` may not import `{text}`"));
        }
        if text == "*" || text == "self" {
            found.push(format!("{path}:{line}: imports the whole crate"));
        }
    }
    for SourceToken { text, line } in libraries {
        let owners = LIBRARY_OWNERS.iter().find(|(name, _)| *name == text).map(|(_, owners)| *owners);
        if owners.is_some_and(|owners| !owners.iter().any(|owner| is_owner(path, owner))) {
            found.push(format!(
                "{path}:{line}: the library `{text}` belongs to {}",
                owners.unwrap_or_default().join(", ")
            ));
        }
    }
    found
}

/// The dependencies a manifest names, as the code spells them.
fn dependencies(manifest: &str) -> BTreeSet<String> {
    let section = manifest.split("\n[").find_map(|part| part.strip_prefix("dependencies]\n")).unwrap_or_default();
    section
        .lines()
        .filter_map(|line| line.split_once('='))
        .map(|(name, _)| name.trim().replace('-', "_"))
        .filter(|name| !name.starts_with('#'))
        .collect()
}

fn rust_files(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            found.extend(rust_files(&path)?);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

#[test]
fn every_file_follows_the_architecture() {
    let source = repository().join("src");
    let mut seen = BTreeSet::new();
    let mut found = Vec::new();
    for file in rust_files(&source).expect("a readable folder") {
        let path = file.strip_prefix(&source).expect("a file below src").to_str().expect("a plain name").to_owned();
        found.extend(violations(&path, &fs::read_to_string(&file).expect("a readable file")));
        seen.insert(top_level_module(&path).to_owned());
    }
    for module in ["domain", "store", "auth", "tree", "tokens", "webdav", "sftp"] {
        assert!(seen.contains(module), "the walker saw no file of `{module}`, but {seen:?}");
    }
    assert!(found.is_empty(), "\n{}", found.join("\n"));
}

#[test]
fn every_dependency_has_an_owning_module() {
    let manifest = fs::read_to_string(repository().join("Cargo.toml")).expect("a readable manifest");
    let used = dependencies(&manifest);
    assert!(used.contains("rusqlite") && used.contains("tokio_rustls"), "the manifest was not understood: {used:?}");
    let planned: BTreeSet<String> = COMMON_LIBRARIES
        .iter()
        .chain(LIBRARY_OWNERS.iter().map(|(name, _)| name))
        .map(|&name| name.to_owned())
        .collect();
    let unplanned: Vec<_> = used.difference(&planned).collect();
    assert!(unplanned.is_empty(), "say in this test which modules may name {unplanned:?}");
    let gone: Vec<_> = planned.difference(&used).collect();
    assert!(gone.is_empty(), "no longer a dependency: {gone:?}");
}

#[test]
fn test_files_stay_below_the_line_limit() {
    for folder in ["tests", "examples", "benches"] {
        for file in rust_files(&repository().join(folder)).expect("a readable folder") {
            let lines = fs::read_to_string(&file).expect("a readable file").lines().count();
            assert!(lines <= MAX_FILE_LINES, "{}: {lines} lines", file.display());
        }
    }
}

#[test]
fn import_against_the_layer_order_is_a_violation() {
    let table = [
        ("store/mod.rs", "use crate::tree::View;", "`store` may not import `tree`"),
        ("domain/path.rs", "use crate::{store::Store, domain::Name};", "`domain` may not import `store`"),
        ("domain/path.rs", "pub(crate) use crate::{domain::{self, Name}, auth};", "`domain` may not import `auth`"),
        ("webdav/get.rs", "fn f() { let x = crate::sftp::open(); }", "`webdav` may not import `sftp`"),
        ("sftp/mod.rs", "use super::webdav::Verb;", "`sftp` may not import `webdav`"),
        ("sftp/read/mod.rs", "use super::super::webdav;", "`sftp` may not import `webdav`"),
        ("tree/fs/open.rs", "use super::super::super::{tokens::Tokens};", "`tree` may not import `tokens`"),
        ("tree/lock.rs", "mod tests { use super::super::super::tokens::Tokens; }", "`tree` may not import `tokens`"),
        ("net/tls.rs", "use crate::auth::Session;", "`net` may not import `auth`"),
        ("http/mod.rs", "use crate::tree;", "`http` may not import `tree`"),
        ("tokens/mod.rs", "use crate::config::Config;", "`tokens` may not import `config`"),
        ("main.rs", "use patgate::store::Store;", "`main` may not import `store`"),
        ("store/mod.rs", "use crate::*;", "imports the whole crate"),
        ("cellar/mod.rs", "", "the module `cellar` is not in the plan"),
    ];
    for (path, line, expected) in table {
        let found = violations(path, &format!("//! A module.\n{line}\n"));
        assert_eq!(found.len(), 1, "{path}: {line}: {found:?}");
        assert!(found[0].contains(expected), "{path}: {line}: {found:?}");
    }
}

#[test]
fn library_used_outside_its_module_is_a_violation() {
    let table = [
        ("webdav/lock.rs", "use rusqlite::Connection;", "`rusqlite`"),
        ("webdav/lock.rs", "use rusqlite as database;", "`rusqlite`"),
        ("webdav/lock.rs", "use ::rusqlite::Connection;", "`rusqlite`"),
        ("webdav/lock.rs", "use {std::io, rusqlite::Connection};", "`rusqlite`"),
        ("webdav/lock.rs", "extern crate rusqlite;", "`rusqlite`"),
        ("webdav/lock.rs", "fn f(c: &rusqlite::Connection) {}", "`rusqlite`"),
        ("webdav/lock.rs", "impl From<russh::Error> for Error {}", "`russh`"),
        ("tree/view.rs", "use rustix::fs::openat2;", "`rustix`"),
        ("tree/file_tree.rs", "use rustix::fs::openat2;", "`rustix`"),
        ("store/mod.rs", "use hyper::Request;", "`hyper`"),
        ("tokens/mod.rs", "#[derive(clap::Args)] struct A;", "`clap`"),
    ];
    for (path, line, library) in table {
        let found = violations(path, &format!("//! A module.\n{line}\n"));
        assert_eq!(found.len(), 1, "{path}: {line}: {found:?}");
        assert!(found[0].contains(library) && found[0].starts_with(&format!("{path}:2:")), "{path}: {line}: {found:?}");
    }
}

#[test]
fn missing_header_excess_length_or_todo_is_a_violation() {
    let long = format!("//! A module.\n{}", "const _: () = ();\n".repeat(MAX_FILE_LINES));
    let table = [
        ("use std::io;\n", "does not begin with a `//!`"),
        ("// A comment.\n//! Too late.\n", "does not begin with a `//!`"),
        ("//! A module.\nfn f() { unsafe { g() } }\n", ":2: unsafe"),
        ("//! A module.\nfn f() {\n    todo!()\n}\n", ":3: todo!"),
        ("//! A module.\nfn f() { unimplemented!(\"later\") }\n", ":2: unimplemented!"),
        ("//! A module.\nfn f() { std::dbg!(1); }\n", ":2: dbg!"),
        (&long, "601 lines"),
    ];
    for (source, expected) in table {
        let found = violations("store/mod.rs", source);
        assert_eq!(found.len(), 1, "{source:.80}: {found:?}");
        assert!(found[0].contains(expected), "{source:.80}: {found:?}");
    }
}

#[test]
fn conforming_source_has_no_violations() {
    let table = [
        ("tree/fs/open.rs", "use rustix::fs::openat2; use crate::{auth::Session, domain::TreePath, store};"),
        ("tree/fs/open.rs", "use super::super::View; use super::*; use crate::tree::fs::Handle;"),
        ("webdav/get.rs", "use crate::http::Body; use http::Request; fn f() { crate::tree::view() }"),
        ("gateway.rs", "use crate::{config, net, sftp::Server, webdav}; mod tests { use super::super::tokens; }"),
        ("main.rs", "fn main() { patgate::cli::run() }"),
        ("store/mod.rs", "// use crate::tree::View;\n/* unsafe /* todo!() */ russh::x */\n"),
        ("store/mod.rs", r###"const A: &str = "crate::tree::x \" unsafe"; const B: &str = r#"russh::" todo!()"#;"###),
        ("store/mod.rs", "const A: char = '\"'; fn f<'a>(x: &'a u8) {} const B: u8 = b'\\''; // unsafe"),
        ("store/mod.rs", "#![forbid(unsafe_code)] fn todo() {} fn f() { self.russh(); other::hyper::x(); }"),
    ];
    for (path, source) in table {
        assert_eq!(violations(path, &format!("//! A module.\n{source}\n")), Vec::<String>::new(), "{path}: {source}");
    }
}

#[test]
fn manifest_dependencies_are_parsed() {
    let manifest = "[package]\nname = \"a\"\n\n[dependencies]\n# a-note = 1\na-b = \"1\"\nc = { version = \"2\" }\n\n\
                    [dev-dependencies]\nd = \"1\"\n";
    assert_eq!(dependencies(manifest), BTreeSet::from(["a_b".to_owned(), "c".to_owned()]));
}

#[test]
fn pages_name_files_that_exist() {
    let mut files: Vec<String> = Vec::new();
    for folder in ["src", "tests", "benches", "examples"] {
        let found = rust_files(&repository().join(folder)).expect("a readable folder");
        files.extend(found.iter().map(|file| file.display().to_string()));
    }
    for page in ["ARCHITECTURE.md", "CONTRIBUTING.md", "SECURITY.md", "docs/limits.md", "docs/russh-login.md"] {
        let text = fs::read_to_string(repository().join(page)).expect("a page");
        for name in text.split('`').skip(1).step_by(2) {
            let is_path = name.chars().all(|c| c.is_ascii_alphanumeric() || "_./-".contains(c));
            // russh's own files are named beside ours.
            let is_ours = is_path && !name.starts_with("src/server/");
            let is_known = match name.ends_with(".rs") {
                true => files.iter().any(|file| file.ends_with(&format!("/{name}"))),
                false => {
                    ["src/", "tests/"].iter().all(|top| !name.starts_with(top)) || repository().join(name).exists()
                }
            };
            assert!(!is_ours || is_known, "{page} names {name}, which does not exist");
        }
    }
}
