//! The shape of the workspace, asserted: which crate may depend on which, and who may name what.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use cargo_metadata::{DependencyKind, Metadata, MetadataCommand, Package};

/// What each published crate may depend on of the others: facade, then the middle row, which never depends sideways,
/// then core, then aggregation.
const DIRECTION: [(&str, &[&str]); 9] = [
    ("shardwell-aggregation", &[]),
    ("shardwell-core", &["shardwell-aggregation"]),
    ("shardwell-aws", &["shardwell-core", "shardwell-aggregation"]),
    ("shardwell-consumer", &["shardwell-core", "shardwell-aggregation"]),
    ("shardwell-file", &["shardwell-core", "shardwell-aggregation"]),
    ("shardwell-local", &["shardwell-core", "shardwell-aggregation"]),
    ("shardwell-producer", &["shardwell-core", "shardwell-aggregation"]),
    ("shardwell-sqlite", &["shardwell-core", "shardwell-aggregation"]),
    (
        "shardwell",
        &[
            "shardwell-aggregation",
            "shardwell-aws",
            "shardwell-consumer",
            "shardwell-core",
            "shardwell-file",
            "shardwell-local",
            "shardwell-producer",
            "shardwell-sqlite",
        ],
    ),
];

/// Members that nobody depends on and that may use anything.
const UNPUBLISHED: [&str; 3] = ["shardwell-examples", "shardwell-integration", "shardwell-sim"];

fn metadata() -> Metadata {
    // The lockfile and the sources are there, or this test would not have been built: no network is needed.
    MetadataCommand::new()
        .manifest_path(manifest_directory().join("Cargo.toml"))
        .no_deps()
        .other_options(["--offline".to_owned()])
        .exec()
        .expect("cargo describes the workspace")
}

fn manifest_directory() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn members(metadata: &Metadata) -> BTreeMap<&str, &Package> {
    metadata.workspace_packages().into_iter().map(|package| (package.name.as_str(), package)).collect()
}

/// The names that a package depends on in the given kinds.
fn dependencies<'a>(package: &'a Package, kinds: &[DependencyKind]) -> BTreeSet<&'a str> {
    let wanted = package.dependencies.iter().filter(|dependency| kinds.contains(&dependency.kind));
    wanted.map(|dependency| dependency.name.as_str()).collect()
}

const SHIPPED: [DependencyKind; 2] = [DependencyKind::Normal, DependencyKind::Build];
const ALL: [DependencyKind; 3] = [DependencyKind::Normal, DependencyKind::Build, DependencyKind::Development];

#[test]
fn dependencies_point_one_way() {
    let metadata = metadata();
    let members = members(&metadata);
    let allowed: BTreeMap<_, _> = DIRECTION.into_iter().collect();
    let mut checked = 0;
    for (name, package) in &members {
        if UNPUBLISHED.contains(name) {
            assert_eq!(package.publish.as_deref(), Some(&[][..]), "{name} must say `publish = false`");
            continue;
        }
        let allowed = allowed.get(name).unwrap_or_else(|| panic!("{name} has no place in the direction"));
        for dependency in dependencies(package, &SHIPPED).into_iter().filter(|name| members.contains_key(name)) {
            assert!(allowed.contains(&dependency), "{name} must not depend on {dependency}");
        }
        checked += 1;
    }
    assert!(checked >= 7, "only {checked} crates were found");
}

#[test]
fn only_the_aws_crate_names_the_sdk() {
    let sdk = |name: &str| {
        ["aws-sdk-", "aws-smithy-", "aws-types", "aws-credential-types"].iter().any(|prefix| name.starts_with(prefix))
    };
    let may = ["shardwell-aws", "shardwell-examples", "shardwell-integration"];
    assert_eq!(who_names(sdk).difference(&names(may)).collect::<Vec<_>>(), Vec::<&String>::new());
}

/// Where credentials come from is the user's to say; the command and the examples are users.
#[test]
fn only_the_command_and_the_examples_look_for_credentials() {
    let may = names(["shardwell", "shardwell-examples"]);
    assert_eq!(who_names(|name| name == "aws-config").difference(&may).collect::<Vec<_>>(), Vec::<&String>::new());
}

#[test]
fn only_the_sqlite_crate_names_sqlx() {
    let sqlite = |name: &str| name.starts_with("sqlx") || name == "libsqlite3-sys" || name == "rusqlite";
    assert_eq!(who_names(sqlite), names(["shardwell-sqlite"]));
}

fn names<const N: usize>(names: [&str; N]) -> BTreeSet<String> {
    names.into_iter().map(str::to_owned).collect()
}

/// The members that name a matching crate in any table of their manifest.
fn who_names(matches: impl Fn(&str) -> bool) -> BTreeSet<String> {
    let metadata = metadata();
    let mut found = BTreeSet::new();
    for (name, package) in members(&metadata) {
        if dependencies(package, &ALL).into_iter().any(&matches) {
            found.insert(name.to_owned());
        }
    }
    found
}

#[test]
fn nothing_comes_from_git() {
    let metadata = metadata();
    for (name, package) in members(&metadata) {
        for dependency in &package.dependencies {
            let source = dependency.source.as_ref().map(ToString::to_string).unwrap_or_default();
            let of_the_registry = source.starts_with("registry+") || dependency.path.is_some();
            assert!(of_the_registry, "{name} takes {} from {source}", dependency.name);
        }
    }
}

#[test]
fn every_member_shares_the_settings_of_the_workspace() {
    let metadata = metadata();
    let root = metadata.workspace_root.as_std_path().join("Cargo.toml");
    let root = std::fs::read_to_string(root).expect("the root manifest");
    for (name, package) in members(&metadata) {
        let manifest = std::fs::read_to_string(&package.manifest_path).expect("a manifest");
        for setting in ["edition.workspace = true", "rust-version.workspace = true", "[lints]\nworkspace = true"] {
            assert!(manifest.contains(setting), "{name} lacks `{setting}`");
        }
        let rust_version = package.rust_version.as_ref().expect("inherited").to_string();
        assert!(root.contains(&format!("rust-version = \"{}\"", rust_version.trim_end_matches(".0"))), "{name}");
    }
}

#[test]
fn every_module_says_what_it_is() {
    let metadata = metadata();
    let crates = metadata.workspace_root.as_std_path().join("crates");
    let mut files = Vec::new();
    for entry in std::fs::read_dir(&crates).expect("crates") {
        collect_sources(&entry.expect("an entry").path().join("src"), &mut files);
    }
    assert!(files.len() > 30, "only {} files were found", files.len());
    // A file of tests beside a module is named by that module, which says what it is.
    let modules = files.iter().filter(|path| !path.ends_with("tests.rs"));
    let silent: Vec<_> = modules
        .filter(|path| !std::fs::read_to_string(path).expect("a source file").starts_with("//! "))
        .map(|path| path.strip_prefix(&crates).unwrap_or(path).display().to_string())
        .collect();
    assert!(silent.is_empty(), "these begin without a `//!` line: {}", silent.join(", "));
}

fn collect_sources(directory: &Path, files: &mut Vec<PathBuf>) {
    let Ok(entries) = std::fs::read_dir(directory) else { return };
    for path in entries.map(|entry| entry.expect("an entry").path()) {
        if path.is_dir() {
            collect_sources(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
}
