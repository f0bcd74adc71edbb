//! Checks that the files of each module under `src/` import one way: no file imports a file that imports it, directly
//! or through others.
//!
//! A child may import from the modules around it and they from it: that is no cycle. What counts is a name that a
//! module takes from another file. A name that a `mod.rs` re-exports from one of its files counts as that file's.

#![allow(clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use syn::visit::{self, Visit};
use syn::{Attribute, Item, UseTree};

/// Path of a module below the crate: `["tree", "fs"]`.
type ModulePath = Vec<String>;

/// Items and imports of one file.
#[derive(Default)]
struct ModuleSource {
    /// Paths that the file names, as written: `["super", "authorize", "OpenEntry"]`.
    named: BTreeSet<Vec<String>>,
    /// Names that the file imports, each with its path.
    imported: BTreeMap<String, Vec<String>>,
    /// Modules that the file declares for tests only.
    test_modules: BTreeSet<String>,
}

/// Collects the paths of a file outside of its tests.
struct PathCollector(ModuleSource);

fn is_test_only(attributes: &[Attribute]) -> bool {
    attributes.iter().any(|attribute| {
        attribute.path().is_ident("cfg")
            && attribute.meta.require_list().is_ok_and(|list| list.tokens.to_string() == "test")
    })
}

fn item_attributes(item: &Item) -> &[Attribute] {
    match item {
        Item::Fn(item) => &item.attrs,
        Item::Impl(item) => &item.attrs,
        Item::Mod(item) => &item.attrs,
        Item::Struct(item) => &item.attrs,
        Item::Use(item) => &item.attrs,
        _ => &[],
    }
}

impl PathCollector {
    fn collect_use(&mut self, tree: &UseTree, before: &[String]) {
        let with = |name: &syn::Ident| [before, &[name.to_string()]].concat();
        match tree {
            UseTree::Path(path) => self.collect_use(&path.tree, &with(&path.ident)),
            UseTree::Name(name) if name.ident == "self" => self.import(before.last().cloned(), before.to_vec()),
            UseTree::Name(name) => self.import(Some(name.ident.to_string()), with(&name.ident)),
            UseTree::Rename(rename) => self.import(Some(rename.rename.to_string()), with(&rename.ident)),
            UseTree::Glob(_) => self.import(None, before.to_vec()),
            UseTree::Group(group) => group.items.iter().for_each(|item| self.collect_use(item, before)),
        }
    }

    fn import(&mut self, name: Option<String>, path: Vec<String>) {
        self.0.named.insert(path.clone());
        self.0.imported.extend(name.map(|name| (name, path)));
    }
}

impl<'ast> Visit<'ast> for PathCollector {
    fn visit_item(&mut self, item: &'ast Item) {
        match item {
            Item::Mod(module) if is_test_only(&module.attrs) => {
                self.0.test_modules.insert(module.ident.to_string());
            }
            item if is_test_only(item_attributes(item)) => {}
            Item::Use(item) => self.collect_use(&item.tree, &[]),
            item => visit::visit_item(self, item),
        }
    }

    fn visit_impl_item_fn(&mut self, function: &'ast syn::ImplItemFn) {
        if !is_test_only(&function.attrs) {
            visit::visit_impl_item_fn(self, function);
        }
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        let segments: Vec<String> = path.segments.iter().map(|segment| segment.ident.to_string()).collect();
        if segments.len() > 1 {
            self.0.named.insert(segments);
        }
        visit::visit_path(self, path);
    }
}

/// Returns what a file says.
fn read_source(text: &str) -> ModuleSource {
    let file = syn::parse_file(text).expect("Rust");
    let mut collector = PathCollector(ModuleSource::default());
    collector.visit_file(&file);
    collector.0
}

/// Returns the module that a path leads to, as seen from `from`: the file that declares its last name, as far as names are
/// handed on by `use`.
fn resolve(sources: &BTreeMap<ModulePath, ModuleSource>, from: &[String], path: &[String]) -> Option<ModulePath> {
    let mut module = from.to_vec();
    let mut rest = path;
    match rest.first()?.as_str() {
        "crate" => {
            module.clear();
            rest = &rest[1..];
        }
        "self" | "super" => {
            while let Some(first) = rest.first().filter(|name| *name == "super" || *name == "self") {
                if first == "super" {
                    module.pop()?;
                }
                rest = &rest[1..];
            }
        }
        child => {
            module.push(child.to_owned());
            if !sources.contains_key(&module) {
                return None;
            }
            rest = &rest[1..];
        }
    }
    while let Some((name, after)) = rest.split_first() {
        let child = [&module[..], std::slice::from_ref(name)].concat();
        if sources.contains_key(&child) {
            (module, rest) = (child, after);
            continue;
        }
        // A name that is handed on belongs to the file from which it comes.
        let handed_on = sources.get(&module).and_then(|source| source.imported.get(name));
        return match handed_on.filter(|origin| origin[..] != path[..]) {
            Some(origin) if module != from => resolve(sources, &module, origin).or(Some(module)),
            _ => Some(module),
        };
    }
    Some(module)
}

fn is_ancestor(ancestor: &[String], module: &[String]) -> bool {
    ancestor.len() < module.len() && module.starts_with(ancestor)
}

/// Returns each circle among the files of one top-level module, as the names of its files.
fn cycles(sources: &BTreeMap<ModulePath, ModuleSource>) -> Vec<String> {
    let edges: BTreeMap<&ModulePath, BTreeSet<ModulePath>> = sources
        .iter()
        .map(|(module, source)| {
            let targets = source.named.iter().filter_map(|path| resolve(sources, module, path));
            let is_sibling = |target: &ModulePath| {
                target.first() == module.first()
                    && target != module
                    && !is_ancestor(target, module)
                    && !is_ancestor(module, target)
            };
            (module, targets.filter(is_sibling).collect())
        })
        .collect();
    let reachable = |from: &ModulePath| {
        let (mut seen, mut waiting) = (BTreeSet::new(), vec![from.clone()]);
        while let Some(next) = waiting.pop() {
            for target in &edges[&next] {
                if seen.insert(target.clone()) {
                    waiting.push(target.clone());
                }
            }
        }
        seen
    };
    let from_each: BTreeMap<&ModulePath, BTreeSet<ModulePath>> =
        edges.keys().map(|module| (*module, reachable(module))).collect();
    let mut found = BTreeSet::new();
    for (module, reached) in &from_each {
        if reached.contains(*module) {
            let together = reached.iter().filter(|other| from_each[other].contains(*module));
            found.insert(together.map(|module| module.join("::")).collect::<Vec<_>>().join(", "));
        }
    }
    found.into_iter().collect()
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

fn module_path(file: &Path) -> ModulePath {
    let names = file.with_extension("");
    let mut path: ModulePath = names.iter().map(|name| name.to_str().expect("a plain name").to_owned()).collect();
    path.pop_if(|last| last == "mod" || last == "lib" || last == "main");
    path
}

#[test]
fn files_of_a_module_import_one_way() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    rust_files(&root, &mut files);
    let mut sources: BTreeMap<ModulePath, ModuleSource> = files
        .iter()
        .map(|file| (module_path(file.strip_prefix(&root).expect("below src")), file))
        .filter(|(path, _)| !path.is_empty())
        .map(|(path, file)| (path, read_source(&std::fs::read_to_string(file).expect("a file"))))
        .collect();
    let test_modules: Vec<ModulePath> = sources
        .iter()
        .flat_map(|(path, source)| {
            source.test_modules.iter().map(|name| [&path[..], std::slice::from_ref(name)].concat())
        })
        .collect();
    sources.retain(|path, _| !test_modules.iter().any(|test| path.starts_with(test)));
    assert!(sources.len() > 200, "the walker saw {} files only", sources.len());
    let found = cycles(&sources);
    assert!(found.is_empty(), "files that import one another:\n{}", found.join("\n"));
}

#[test]
fn import_cycle_is_found_across_files_and_reexported_names() {
    let tree = |files: &[(&str, &str)]| {
        let source = |(name, text): &(&str, &str)| (name.split('/').map(str::to_owned).collect(), read_source(text));
        cycles(&files.iter().map(source).collect())
    };
    let one_way =
        [("m", "mod a; mod b; use a::A;"), ("m/a", "use super::b::B; pub struct A;"), ("m/b", "pub struct B;")];
    assert_eq!(tree(&one_way), Vec::<String>::new());
    let two = [("m", "mod a; mod b;"), ("m/a", "use super::b::B;"), ("m/b", "fn f(a: crate::m::a::A) {}")];
    assert_eq!(tree(&two), ["m::a, m::b"]);
    let handed_on = [
        ("m", "mod a; mod b; mod c; use a::A;"),
        ("m/a", "use super::c;"),
        ("m/b", "use super::A;"),
        ("m/c", "use super::b;"),
    ];
    assert_eq!(tree(&handed_on), ["m::a, m::b, m::c"]);
    let in_tests = [
        ("m", "mod a; mod b;"),
        ("m/a", "use super::b::B;"),
        ("m/b", "#[cfg(test)] mod tests { use super::super::a::A; }"),
    ];
    assert_eq!(tree(&in_tests), Vec::<String>::new());
}
