//! Checks that the SQL of the store is understood by SQLite and PostgreSQL alike: what only SQLite has is in
//! `src/store/sqlite.rs` and in the schema, and no other module contains SQL.
//!
//! It reads the literals of the files under `src/`, and not their comments. Tests are held to the same, so that they
//! can run on either engine.

#![allow(clippy::expect_used, reason = "a test fails by panicking")]

use std::fs;
use std::path::{Path, PathBuf};

/// The one file that may hold what only SQLite has.
const SQLITE_FILE: &str = "store/sqlite.rs";

/// Functions that only SQLite has, that PostgreSQL has by another name, or (`max` and `min` of several values) that mean
/// something else there.
const SQLITE_FUNCTIONS: &[&str] = &[
    "changes",
    "char",
    "date",
    "datetime",
    "glob",
    "group_concat",
    "hex",
    "ifnull",
    "iif",
    "instr",
    "json_each",
    "json_extract",
    "julianday",
    "last_insert_rowid",
    "printf",
    "quote",
    "randomblob",
    "strftime",
    "total",
    "total_changes",
    "typeof",
    "unhex",
    "unixepoch",
    "unlikely",
    "zeroblob",
];

/// Words and sequences of words that only SQLite has. `?` stands for any parameter.
const SQLITE_PHRASES: &[&str] = &[
    "as blob",
    "as integer",
    "autoincrement",
    "collate nocase",
    "explain query plan",
    "glob",
    "indexed by",
    "insert or",
    "is ?",
    "is not ?",
    "limit -",
    "not indexed",
    "on conflict do update",
    "pragma",
    "regexp",
    "replace into",
    "rowid",
    "sqlite_master",
    "sqlite_schema",
    "sqlite_sequence",
    "update or",
    "vacuum",
    "without rowid",
];

/// Calls of rusqlite that exist for SQLite alone.
const SQLITE_CALLS: &[&str] = &["last_insert_rowid", "pragma_query_value", "pragma_update", "pragma_query"];

/// Names of columns that PostgreSQL reserves: unquoted, they are errors or, as `user`, values of their own.
const RESERVED_COLUMNS: &[&str] = &["only", "user"];

/// A string literal of a Rust file, with its first line.
struct Literal {
    text: String,
    line: usize,
}

/// Returns the string literals of a file, without those in comments, and the rest of the code.
fn split_literals(source: &str) -> (Vec<Literal>, String) {
    let (mut literals, mut code, mut rest, mut line) = (Vec::new(), String::new(), source, 1);
    while let Some(first) = rest.chars().next() {
        let length = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if let Some(raw) = raw_string(rest) {
            literals.push(Literal { text: raw.1.to_owned(), line });
            raw.0
        } else if first == '"' {
            let length = quoted_length(rest);
            literals.push(Literal { text: unescape(&rest[1..length - 1]), line });
            length
        } else if rest.starts_with("'\"'") || rest.starts_with("'\\\"'") {
            // A character that is a quote begins no string.
            rest[1..].find('\'').map_or(rest.len(), |end| end + 2)
        } else {
            code.push(first);
            first.len_utf8()
        };
        line += rest[..length].matches('\n').count();
        rest = &rest[length..];
    }
    (literals, code)
}

/// Returns length and content of the raw string at the start of a text.
fn raw_string(text: &str) -> Option<(usize, &str)> {
    let body = text.strip_prefix('r')?;
    let hashes = body.len() - body.trim_start_matches('#').len();
    let content = body[hashes..].strip_prefix('"')?;
    let close = format!("\"{}", "#".repeat(hashes));
    let end = content.find(&close)?;
    Some((1 + hashes + 1 + end + close.len(), &content[..end]))
}

fn quoted_length(text: &str) -> usize {
    let mut escaped = false;
    for (at, byte) in text.bytes().enumerate().skip(1) {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => return at + 1,
            _ => {}
        }
    }
    text.len()
}

/// Replaces what matters for SQL: escaped quotes and line breaks.
fn unescape(literal: &str) -> String {
    literal.replace("\\\"", "\"").replace("\\n", "\n").replace("\\\n", " ")
}

/// Returns the words and signs of a piece of SQL in lower case, without texts in quotes. A name in double quotes keeps
/// them; a parameter is `?`, a blob `x''`.
fn sql_words(sql: &str) -> Vec<String> {
    let (mut words, mut rest) = (Vec::new(), sql);
    while let Some(first) = rest.chars().next() {
        let is_word = |c: char| c.is_alphanumeric() || c == '_';
        let length = match first {
            '\'' | '"' => rest[1..].find(first).map_or(rest.len(), |end| end + 2),
            _ if is_word(first) => rest.find(|c| !is_word(c)).unwrap_or(rest.len()),
            // `:name` and `?1`, not the sign at the end of a sentence.
            '?' | ':' if rest[1..].starts_with(is_word) => {
                1 + rest[1..].find(|c| !is_word(c)).unwrap_or(rest.len() - 1)
            }
            _ => first.len_utf8(),
        };
        let word = &rest[..length];
        rest = &rest[length..];
        match first {
            '\'' if words.last().is_some_and(|last| last == "x") => {
                words.pop();
                words.push("x''".to_owned());
            }
            '\'' => words.push("''".to_owned()),
            '?' | ':' if length > 1 => words.push("?".to_owned()),
            _ if first.is_whitespace() => {}
            _ => words.push(word.to_lowercase()),
        }
    }
    words
}

/// Tells whether a literal is SQL or a part of it, and no message: names of columns are judged in SQL alone.
fn is_sql(words: &[String]) -> bool {
    let has = |word: &str| words.iter().any(|other| other == word);
    let is_pair = |pair: &[String]| {
        let pair = [pair[0].as_str(), pair[1].as_str()];
        matches!(pair, ["insert", "into"] | ["delete", "from"] | ["is", "null"] | ["order" | "group", "by"])
    };
    has("?") || (has("select") && has("from")) || (has("update") && has("set")) || words.windows(2).any(is_pair)
}

/// Tells whether a literal of another module is a statement, by the words in capitals that begin one.
fn is_statement(literal: &str) -> bool {
    let words: Vec<&str> = literal.split_whitespace().collect();
    let begins = |pair: &[&str]| {
        matches!(pair, ["INSERT", "INTO"] | ["DELETE", "FROM"] | ["ALTER" | "CREATE" | "DROP", "TABLE"])
    };
    let has = |word: &str| words.contains(&word);
    words.windows(2).any(begins) || (has("SELECT") && words.len() > 1) || (has("UPDATE") && has("SET")) || has("PRAGMA")
}

/// Returns what in a piece of SQL another engine does not understand.
fn sqlite_only(words: &[String]) -> Vec<String> {
    let mut found = Vec::new();
    let text = format!(" {} ", words.join(" "));
    for phrase in SQLITE_PHRASES {
        if text.contains(&format!(" {} ", phrase.replace("limit -", "limit - 1"))) {
            found.push((*phrase).to_owned());
        }
    }
    for (at, word) in words.iter().enumerate() {
        let next = words.get(at + 1).map_or("", String::as_str);
        let before = at.checked_sub(1).map_or("", |before| words[before].as_str());
        if next == "(" && SQLITE_FUNCTIONS.contains(&word.as_str()) {
            found.push(format!("{word}()"));
        }
        if next == "(" && ["max", "min"].contains(&word.as_str()) && has_several_arguments(&words[at + 1..]) {
            found.push(format!("{word}() of several values"));
        }
        if word == "x''" {
            found.push("a blob literal".to_owned());
        }
        if is_sql(words) && RESERVED_COLUMNS.contains(&word.as_str()) && before != "." {
            found.push(format!("{word} without double quotes"));
        }
    }
    found
}

/// Tells whether the parentheses at the start of a piece of SQL have a comma that no inner ones have.
fn has_several_arguments(words: &[String]) -> bool {
    let mut depth = 0;
    for word in words {
        match word.as_str() {
            "(" => depth += 1,
            ")" if depth == 1 => return false,
            ")" => depth -= 1,
            "," if depth == 1 => return true,
            _ => {}
        }
    }
    false
}

/// Returns all that is wrong with a file; its path is relative to `src/`.
fn violations(path: &str, source: &str) -> Vec<String> {
    let (literals, code) = split_literals(source);
    let mut found = Vec::new();
    let is_store = path.starts_with("store/");
    for Literal { text, line } in literals {
        if !is_store && is_statement(&text) {
            found.push(format!("{path}:{line}: SQL outside of the store"));
        }
        if is_store && path != SQLITE_FILE {
            found.extend(sqlite_only(&sql_words(&text)).iter().map(|what| format!("{path}:{line}: {what}")));
        }
    }
    if path != SQLITE_FILE {
        let calls = SQLITE_CALLS.iter().filter(|call| code.contains(&format!("{call}(")));
        found.extend(calls.map(|call| format!("{path}: {call}")));
    }
    found
}

fn rust_files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).expect("a readable directory") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            found.extend(rust_files(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    found
}

#[test]
fn sql_of_the_store_is_portable_and_no_other_module_has_any() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let (mut found, mut statements) = (Vec::new(), 0);
    for file in rust_files(&source) {
        let path = file.strip_prefix(&source).expect("a file below src").to_str().expect("a plain name").to_owned();
        let text = fs::read_to_string(&file).expect("a readable file");
        statements += split_literals(&text).0.iter().filter(|literal| is_statement(&literal.text)).count();
        found.extend(violations(&path, &text));
    }
    assert!(statements > 100, "the reader found only {statements} statements");
    assert!(found.is_empty(), "move it to src/{SQLITE_FILE}, or say it portably:\n{}", found.join("\n"));
}

#[test]
fn sqlite_specific_sql_is_a_violation() {
    let table = [
        (r#"c.execute("SELECT iif(a, b, c) FROM nodes", [])"#, "iif()"),
        (r#"const A: &str = "instr(lower(t.id), lower(:text)) > 0";"#, "instr()"),
        (r#""t.id || char(10) || t.name""#, "char()"),
        (r#""UPDATE tokens SET scoped = max(scoped, :scoped)""#, "max() of several values"),
        (r#""SELECT min(coalesce(a, 1), 2) FROM t""#, "min() of several values"),
        (r#""INSERT OR REPLACE INTO clock (seen_at) VALUES (?1)""#, "insert or, replace into"),
        (r#""INSERT INTO policy (key) VALUES (?1) ON CONFLICT DO UPDATE SET key = ?1""#, "on conflict do update"),
        ("\"SELECT id FROM nodes\n    WHERE parent IS\n ?1\"", "is ?"),
        (r#"format!("{A} WHERE n.parent IS :parent")"#, "is ?"),
        (r##"r#"SELECT CAST(place || x'2f' AS BLOB)"#"##, "as blob, a blob literal"),
        (r#""SELECT X'2F'""#, "a blob literal"),
        (r#""SELECT id FROM journals LIMIT -1 OFFSET ?1""#, "limit -"),
        (r#""pragma journal_mode""#, "pragma"),
        (r#""VACUUM INTO ?1""#, "vacuum"),
        (r#""SELECT rowid FROM nodes""#, "rowid"),
        (r#""SELECT user FROM events""#, "user without double quotes"),
        (r#""INSERT INTO meta (only) VALUES (1)""#, "only without double quotes"),
        (r#"let c = '"'; c.execute("SELECT ifnull(a, 1) FROM t")"#, "ifnull()"),
        ("// \"\nc.execute(\"SELECT zeroblob(4)\")", "zeroblob()"),
        ("connection.last_insert_rowid()", "last_insert_rowid"),
        (r#"c.pragma_update(None, A, B)"#, "pragma_update"),
    ];
    for (source, expected) in table {
        let found = violations("store/nodes.rs", source).join(", ");
        let found: Vec<_> =
            found.split(", ").map(|violation| violation.rsplit(": ").next().unwrap_or_default()).collect();
        assert_eq!(found.join(", "), expected, "{source}");
    }
    let elsewhere = violations("auth/mod.rs", r#"fn f() { c.execute("DELETE FROM tokens") }"#);
    assert_eq!(elsewhere, ["auth/mod.rs:1: SQL outside of the store"]);
}

#[test]
fn portable_sql_and_messages_are_no_violations() {
    let table = [
        r#""SELECT max(id), min(coalesce(a, b)), count(*) FROM events WHERE \"user\" = :user AND m.only = 1""#,
        r#""INSERT INTO t (a) VALUES (?1) ON CONFLICT (a) DO UPDATE SET a = excluded.a""#,
        r#""INSERT INTO t (a) VALUES ('x') ON CONFLICT DO NOTHING RETURNING id""#,
        r#""SELECT 1 FROM t WHERE a IS NOT NULL AND b IS NOT DISTINCT FROM ?1 LIMIT 1""#,
        r#""the user {login} is the only one: delete it from the list""#,
        r#"let most = max(a, b); // pragma_update(x) iif("y") instr(z)"#,
        r#""SELECT 'a pragma, an iif(b, c)' FROM t""#,
    ];
    for source in table {
        assert_eq!(violations("store/nodes.rs", source), Vec::<String>::new(), "{source}");
    }
    assert_eq!(violations(SQLITE_FILE, r#"c.execute("PRAGMA quick_check(1)")"#), Vec::<String>::new());
    assert_eq!(violations("console/mod.rs", r#""Select a file from the list to UPDATE""#), Vec::<String>::new());
}
