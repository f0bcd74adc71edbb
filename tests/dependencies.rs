//! Checks every library that the program and its tests are built from against `deny.toml`: licences, sources, bans and
//! versions. It needs no network; the advisories of that file are left to `cargo deny check`.

#![allow(clippy::expect_used, reason = "a test fails by panicking")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;

use serde_json::Value;
use spdx::{Expression, ParseMode};
use toml::Table;

/// A library of the dependency graph.
struct Package {
    name: String,
    version: String,
    license: String,
    /// Registry or repository that it comes from; none for what lies in this repository.
    source: Option<String>,
}

/// Rules of `deny.toml` that need no network.
struct Rules {
    licenses: BTreeSet<String>,
    registries: BTreeSet<String>,
    banned: BTreeSet<String>,
    /// `name@version prefix` of libraries that may be there in a second version.
    skipped: Vec<String>,
}

impl Rules {
    fn read(text: &str) -> Self {
        let table: Table = toml::from_str(text).expect("deny.toml is TOML");
        let texts = |section: &str, key: &str| -> Vec<String> {
            let items = table[section][key].as_array().expect("a list").iter();
            let text =
                |item: &toml::Value| item.as_str().or_else(|| item["crate"].as_str()).expect("a text").to_owned();
            items.map(text).collect()
        };
        Self {
            licenses: texts("licenses", "allow").into_iter().collect(),
            registries: texts("sources", "allow-registry").into_iter().collect(),
            banned: texts("bans", "deny").into_iter().collect(),
            skipped: texts("bans", "skip"),
        }
    }

    /// Returns a sentence for each way in which the libraries break the rules.
    fn violations(&self, packages: &[Package]) -> Vec<String> {
        let mut found: Vec<String> = packages.iter().flat_map(|package| self.violations_of(package)).collect();
        let mut versions: BTreeMap<&str, Vec<&Package>> = BTreeMap::new();
        for package in packages.iter().filter(|package| !self.is_skipped(package)) {
            versions.entry(&package.name).or_default().push(package);
        }
        for (name, several) in versions.into_iter().filter(|(_, several)| several.len() > 1) {
            let numbers: Vec<_> = several.iter().map(|package| package.version.as_str()).collect();
            found.push(format!("{name} is there in several versions: {}", numbers.join(", ")));
        }
        found
    }

    fn violations_of(&self, package: &Package) -> Vec<String> {
        let Package { name, license, .. } = package;
        let mut found = Vec::new();
        match Expression::parse_mode(license, ParseMode::LAX) {
            Ok(terms) if terms.evaluate(|term| self.licenses.contains(&term.license.to_string())) => {}
            Ok(_) => found.push(format!("{name}: its licence {license} is not allowed")),
            Err(error) => found.push(format!("{name}: its licence {license:?} can't be read: {error}")),
        }
        if self.banned.contains(name) {
            found.push(format!("{name} is banned"));
        }
        if let Some(source) = &package.source
            && !self.registries.iter().any(|registry| source.as_str() == format!("registry+{registry}"))
        {
            found.push(format!("{name} comes from {source}"));
        }
        found
    }

    fn is_skipped(&self, package: &Package) -> bool {
        self.skipped.iter().filter_map(|skipped| skipped.split_once('@')).any(|(name, version)| {
            let rest = package.version.strip_prefix(version);
            package.name == name && rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
        })
    }
}

/// Runs cargo in the repository and returns what it prints.
fn cargo(arguments: &[&str]) -> Vec<u8> {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned());
    let mut command = Command::new(cargo);
    let output = command.args(arguments).current_dir(env!("CARGO_MANIFEST_DIR")).output().expect("cargo runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

/// Returns all libraries that a build for this platform needs, those of tests and build scripts included.
fn packages() -> Vec<Package> {
    let platform = "x86_64-unknown-linux-gnu";
    let metadata = cargo(&["metadata", "--format-version", "1", "--locked", "--filter-platform", platform]);
    let metadata: Value = serde_json::from_slice(&metadata).expect("JSON");
    // Metadata names optional libraries that no feature turns on; the tree does not.
    let tree = cargo(&["tree", "--locked", "--prefix", "none", "--edges", "all", "--target", platform]);
    let tree = String::from_utf8(tree).expect("text");
    let built: BTreeSet<_> = tree.lines().filter_map(|line| line.split_once(" v")).collect();
    let is_built = |package: &Package| {
        let version = |rest: &str| rest.split_whitespace().next() == Some(package.version.as_str());
        built.iter().any(|(name, rest)| *name == package.name && version(rest))
    };
    let text = |package: &Value, key: &str| package[key].as_str().map(str::to_owned);
    let package = |package: &Value| Package {
        name: text(package, "name").expect("a name"),
        version: text(package, "version").expect("a version"),
        license: text(package, "license").unwrap_or_default(),
        source: text(package, "source"),
    };
    metadata["packages"].as_array().expect("a list").iter().map(package).filter(is_built).collect()
}

fn rules() -> Rules {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("deny.toml");
    Rules::read(&std::fs::read_to_string(file).expect("deny.toml"))
}

#[test]
fn all_dependencies_comply_with_deny_toml() {
    let packages = packages();
    assert!(packages.len() > 100, "cargo names {} libraries only", packages.len());
    let found = rules().violations(&packages);
    assert!(found.is_empty(), "\n{}", found.join("\n"));
}

#[test]
fn each_kind_of_violation_is_found() {
    let package = |name: &str, version: &str, license: &str, source: Option<&str>| Package {
        name: name.to_owned(),
        version: version.to_owned(),
        license: license.to_owned(),
        source: source.map(str::to_owned),
    };
    let index = Some("registry+https://github.com/rust-lang/crates.io-index");
    let table = [
        (vec![package("a", "1.0.0", "GPL-3.0-only", index)], "a: its licence GPL-3.0-only is not allowed"),
        (vec![package("a", "1.0.0", "MIT AND GPL-3.0-only", index)], "is not allowed"),
        (vec![package("a", "1.0.0", "", index)], "can't be read"),
        (vec![package("a", "1.0.0", "MIT", Some("git+https://example.com/a"))], "a comes from git+"),
        (vec![package("openssl-sys", "0.9.0", "MIT", index)], "openssl-sys is banned"),
        (
            vec![package("a", "1.0.0", "MIT", index), package("a", "2.0.0", "MIT", index)],
            "a is there in several versions: 1.0.0, 2.0.0",
        ),
    ];
    for (packages, expected) in table {
        let found = rules().violations(&packages);
        assert!(found.len() == 1 && found[0].contains(expected), "{expected}: {found:?}");
    }
    let fine = [
        package("a", "1.0.0", "GPL-3.0-only OR MIT", index),
        package("b", "1.0.0", "MIT/Apache-2.0", None),
        package("syn", "2.0.1", "MIT", index),
        package("syn", "3.0.0", "MIT", index),
    ];
    assert_eq!(rules().violations(&fine), Vec::<String>::new());
}
