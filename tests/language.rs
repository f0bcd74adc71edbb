//! Counts names and comments under `src/` and compares them with thresholds: type names of one word, type names that
//! are declared more than once, and inline comments per 1,000 lines of code in the modules where the order of steps
//! matters most. `cargo test --test language -- --nocapture` prints the numbers.

#![allow(clippy::expect_used, clippy::print_stdout, reason = "a test fails by panicking, and this one prints figures")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Highest share of type names of one word, in percent of all names.
const MAX_ONE_WORD_PERCENT: usize = 30;
/// Highest share of type names that are declared more than once, in percent of all names.
const MAX_REPEATED_PERCENT: usize = 10;
/// Lowest number of inline comments for each 1,000 lines of code, in the modules whose order of steps matters most.
const MIN_COMMENTS_PER_THOUSAND: usize = 30;
const COMMENTED_MODULES: [&str; 5] = ["webdav", "sftp", "tree", "auth", "gateway"];
/// Names that every module may have.
const REPEATED_BY_DESIGN: [&str; 2] = ["Error", "Result"];

/// Returns the name of the type that a line declares (struct, enum, union, trait or alias). Associated types of an `impl`
/// are those of their trait and don't count.
fn declared_type(line: &str) -> Option<&str> {
    let mut words = line.split_whitespace().skip_while(|word| word.starts_with("pub"));
    let (mut keyword, is_indented) = (words.next()?, line.starts_with(' '));
    // `pub(in crate::tree) struct`
    if keyword.ends_with(')') {
        keyword = words.next()?;
    }
    let is_declaration = match keyword {
        "struct" | "enum" | "union" | "trait" => true,
        "type" => !is_indented,
        _ => false,
    };
    let name = words.next()?.split(|c: char| !c.is_alphanumeric()).next()?;
    (is_declaration && name.starts_with(char::is_uppercase)).then_some(name)
}

/// Tells whether a name in camel case is one word: `Session`, not `SessionFiles`.
fn is_one_word(name: &str) -> bool {
    name.chars().filter(|c| c.is_uppercase()).count() == 1
}

/// Lines of code and of inline comments. Blank lines and documentation are neither.
#[derive(Default, PartialEq, Debug)]
struct LineCounts {
    code: usize,
    comments: usize,
}

impl LineCounts {
    fn add(&mut self, line: &str) {
        let line = line.trim();
        let is_documentation = line.starts_with("///") || line.starts_with("//!");
        if line.is_empty() || is_documentation {
            return;
        }
        if line.starts_with("//") {
            self.comments += 1;
        } else {
            self.code += 1;
        }
    }

    fn per_thousand(&self) -> usize {
        self.comments * 1000 / self.code.max(1)
    }
}

fn rust_files(directory: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(directory).expect("a directory") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            rust_files(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

#[test]
fn names_and_comments_keep_to_the_thresholds() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    rust_files(&source, &mut files);
    let (mut names, mut lines) = (BTreeMap::<String, usize>::new(), BTreeMap::<String, LineCounts>::new());
    for file in &files {
        let path = file.strip_prefix(&source).expect("a file below src");
        let module = path.iter().next().and_then(|name| name.to_str()).expect("a name").trim_end_matches(".rs");
        let text = std::fs::read_to_string(file).expect("a file");
        for line in text.lines() {
            lines.entry(module.to_owned()).or_default().add(line);
            if let Some(name) = declared_type(line) {
                *names.entry(name.to_owned()).or_default() += 1;
            }
        }
    }
    let share = |count: usize| (count * 1000).div_ceil(names.len());
    let one_word: Vec<_> = names.keys().filter(|name| is_one_word(name)).collect();
    let is_repeated = |(name, count): &(&String, &usize)| **count > 1 && !REPEATED_BY_DESIGN.contains(&name.as_str());
    let repeated: Vec<_> = names.iter().filter(is_repeated).collect();
    println!("type names: {}", names.len());
    println!("of one word: {} ({} per thousand): {one_word:?}", one_word.len(), share(one_word.len()));
    println!("declared more than once: {} ({} per thousand): {repeated:?}", repeated.len(), share(repeated.len()));
    for (module, counts) in &lines {
        let LineCounts { code, comments } = counts;
        println!("{module}: {comments} inline comments, {code} lines of code, {} per thousand", counts.per_thousand());
    }
    for module in COMMENTED_MODULES {
        let per_thousand = lines[module].per_thousand();
        assert!(
            per_thousand >= MIN_COMMENTS_PER_THOUSAND,
            "{module}: {per_thousand} inline comments per thousand lines"
        );
    }
    assert!(names.len() > 300, "the walker saw {} names only", names.len());
    assert!(share(one_word.len()) < MAX_ONE_WORD_PERCENT * 10, "type names of one word: {one_word:?}");
    assert!(share(repeated.len()) < MAX_REPEATED_PERCENT * 10, "type names declared more than once: {repeated:?}");
}

#[test]
fn declarations_and_comments_are_counted() {
    for (line, name) in [
        ("pub struct Session {", Some("Session")),
        ("    pub(in crate::tree) enum EntryKind {", Some("EntryKind")),
        ("pub(super) type Result<T> = std::result::Result<T, Error>;", Some("Result")),
        ("trait BodySink: Send {", Some("BodySink")),
        ("struct BlockCount(u64);", Some("BlockCount")),
        ("    type Output = u8;", None),
        ("let struct_name = type_of(x);", None),
        ("// struct Commented;", None),
        ("impl Session {", None),
        ("pub fn type_name() {", None),
    ] {
        assert_eq!(declared_type(line), name, "{line}");
    }
    assert!(is_one_word("Etag") && !is_one_word("EtagTracker"));
    let mut counts = LineCounts::default();
    for line in ["//! Head.", "/// Doc.", "", "// Why.", "fn f() {} // beside", "    // More."] {
        counts.add(line);
    }
    assert_eq!(counts, LineCounts { code: 1, comments: 2 });
}
