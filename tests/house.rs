//! The shape of the code base: which crate may use which, and how long a file
//! may be.

use std::collections::{BTreeMap, BTreeSet};
use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

/// The libraries, lowest first: each may only use those before it.
const LAYERS: [&str; 10] = [
    "warmbus-memory",
    "warmbus-paging",
    "warmbus-fdt",
    "warmbus-pci",
    "warmbus-pcsc",
    "warmbus-kho",
    "warmbus-pcsc-format",
    "warmbus-machine",
    "warmbus-linux",
    "warmbus-boot",
];

/// Pairs that the order of [`LAYERS`] would allow and the design does not.
const FORBIDDEN: [(&str, &str); 5] = [
    ("warmbus-kho", "warmbus-pci"),
    ("warmbus-kho", "warmbus-pcsc"),
    ("warmbus-machine", "warmbus-pcsc"),
    ("warmbus-linux", "warmbus-pci"),
    ("warmbus-linux", "warmbus-pcsc"),
];

/// The libraries that others can take, lowest first. The rest of the workspace
/// is not published.
const PUBLISHED: [&str; 5] = [
    "warmbus-memory",
    "warmbus-fdt",
    "warmbus-pci",
    "warmbus-pcsc",
    "warmbus-kho",
];

/// Lines of a source file at most.
const MAX_LINES: usize = 400;
/// Direct dependencies of `warmbus-pci` at most, optional ones included.
const MAX_PCI_DEPENDENCIES: usize = 4;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// What cargo prints.
fn cargo(arguments: &[&str]) -> String {
    let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .args(arguments)
        .current_dir(root())
        .output()
        .expect("cargo runs");
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// The packages of the workspace, as cargo reads their manifests.
fn packages() -> Vec<Value> {
    let metadata = cargo(&["metadata", "--format-version=1", "--no-deps", "--offline"]);
    let mut metadata: Value = serde_json::from_str(&metadata).unwrap();
    let packages = metadata["packages"].as_array_mut().unwrap();
    std::mem::take(packages)
}

/// For each package of the workspace the names of its ordinary dependencies.
fn dependencies() -> BTreeMap<String, BTreeSet<String>> {
    let names = |package: &Value| {
        let dependencies = package["dependencies"].as_array().unwrap().iter();
        dependencies
            .filter(|dependency| dependency["kind"].is_null())
            .map(|dependency| dependency["name"].as_str().unwrap().to_owned())
            .collect()
    };
    let packages = packages();
    packages
        .iter()
        .map(|package| {
            let name = package["name"].as_str().unwrap().to_owned();
            (name, names(package))
        })
        .collect()
}

/// The test data (GPL and GFDL) and the patches (GPL) of this tree are under
/// other licences than the libraries, and must not be in a package of theirs.
#[test]
fn a_published_package_has_sources_licences_and_a_readme_only() {
    for name in PUBLISHED {
        let list = cargo(&[
            "package",
            "--list",
            "--allow-dirty",
            "--offline",
            "--package",
            name,
        ]);
        let (sources, other): (Vec<_>, Vec<_>) = list
            .lines()
            .filter(|file| *file != ".cargo_vcs_info.json")
            .map(|file| file.replace('\\', "/"))
            .partition(|file| file.starts_with("src/"));
        let generated = ["Cargo.lock", "Cargo.toml", "Cargo.toml.orig"];
        let ours = ["LICENSE-APACHE", "LICENSE-MIT", "README.md"];
        let other: BTreeSet<_> = other.iter().map(String::as_str).collect();
        let expected: BTreeSet<_> = generated.into_iter().chain(ours).collect();
        assert_eq!(other, expected, "{name}");
        let is_source = |file: &&String| Path::new(file).extension() == Some("rs".as_ref());
        let foreign = sources.iter().find(|file| !is_source(file));
        assert_eq!(foreign, None, "{name}");
        assert!(sources.contains(&"src/lib.rs".to_owned()), "{name}");

        // A file outside the package would be missing where it is built.
        let folder = root().join(name.replacen("warmbus-", "crates/", 1));
        for file in &sources {
            let text = fs::read_to_string(folder.join(file)).unwrap();
            let mut included = text.split("include_str!").chain(text.split("#[path"));
            assert!(
                included.all(|part| !part.contains("\"../")),
                "{name}: {file}"
            );
        }
        for licence in ["LICENSE-APACHE", "LICENSE-MIT"] {
            let packaged = fs::read_to_string(folder.join(licence)).unwrap();
            let whole = fs::read_to_string(root().join(licence)).unwrap();
            assert_eq!(packaged, whole, "{name}: {licence}");
        }
    }
}

#[test]
fn only_the_libraries_for_others_can_be_published_and_describe_themselves() {
    let packages = packages();
    let named: BTreeMap<_, _> = packages
        .iter()
        .map(|package| (package["name"].as_str().unwrap(), package))
        .collect();
    // A package that cannot be published has an empty list of registries.
    let published: BTreeSet<_> = named
        .iter()
        .filter(|(_, package)| package["publish"].is_null())
        .map(|(name, _)| *name)
        .collect();
    assert_eq!(published, BTreeSet::from(PUBLISHED));
    for name in PUBLISHED {
        let package = named[name];
        assert_eq!(package["license"], "MIT OR Apache-2.0", "{name}");
        assert_eq!(package["readme"], "README.md", "{name}");
        for list in ["keywords", "categories"] {
            let entries = package[list].as_array().unwrap().len();
            assert!((2..=5).contains(&entries), "{name}: {list}");
        }
        let dependencies = package["dependencies"].as_array().unwrap().iter();
        for dependency in dependencies.filter(|dependency| dependency["kind"].is_null()) {
            let other = dependency["name"].as_str().unwrap();
            let is_published = !other.starts_with("warmbus") || PUBLISHED.contains(&other);
            assert!(is_published, "{name} depends on {other}");
            assert_ne!(dependency["req"], "*", "{name}: {other}");
        }
    }
}

/// The first page of a library has an example, which `cargo test` runs.
#[test]
fn the_first_page_of_a_published_library_has_an_example_that_runs() {
    for name in PUBLISHED {
        let file = root()
            .join(name.replacen("warmbus-", "crates/", 1))
            .join("src/lib.rs");
        let text = fs::read_to_string(file).unwrap();
        let page: Vec<_> = text
            .lines()
            .map_while(|line| line.strip_prefix("//!"))
            .map(str::trim)
            .collect();
        assert!(page.contains(&"```"), "{name}: no example");
        assert!(
            page.iter().any(|line| line.starts_with("assert")),
            "{name}: the example checks nothing"
        );
    }
}

#[test]
fn every_library_uses_only_those_below_it() {
    let dependencies = dependencies();
    for (layer, name) in LAYERS.iter().enumerate() {
        let used = &dependencies[*name];
        for other in used.iter().filter(|other| other.starts_with("warmbus")) {
            let below = LAYERS[..layer].contains(&other.as_str());
            assert!(below, "{name} uses {other}, which is not below it");
            let pair = (*name, other.as_str());
            assert!(!FORBIDDEN.contains(&pair), "{name} uses {other}");
        }
    }
    let libraries = fs::read_dir(root().join("crates")).unwrap().count();
    assert_eq!(libraries, LAYERS.len(), "a crate has no place in the order");
}

#[test]
fn the_pci_library_has_few_dependencies() {
    let used = &dependencies()["warmbus-pci"];
    assert!(used.len() <= MAX_PCI_DEPENDENCIES, "{used:?}");
}

#[test]
fn the_command_for_users_depends_on_libraries_only() {
    let used = &dependencies()["warmbus-cli"];
    for other in used.iter().filter(|name| !LAYERS.contains(&name.as_str())) {
        let is_ours = other.starts_with("warmbus") || other == "xtask";
        assert!(!is_ours, "the command for users depends on {other}");
    }
}

#[test]
fn no_source_file_is_longer_than_can_be_held_in_the_head() {
    let mut folders = vec![root().join("crates"), root().join("src")];
    let mut files = 0;
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let lines = fs::read_to_string(&path).unwrap().lines().count();
                assert!(lines <= MAX_LINES, "{} has {lines} lines", path.display());
                files += 1;
            }
        }
    }
    assert!(files > 100, "only {files} files were found");
}

/// What `cargo mutants` is to run has to exist: cargo would otherwise refuse
/// every mutant, and none would be seen to live.
#[test]
fn the_tests_that_mutants_run_against_exist() {
    let read = |file: &str| fs::read_to_string(root().join(file)).unwrap();
    let parsed = |text: String| -> toml::Table { text.parse().unwrap() };
    let strings = |value: &toml::Value| -> Vec<String> {
        let values = value.as_array().unwrap().iter();
        values.map(|value| value.as_str().unwrap().into()).collect()
    };
    let manifest = parsed(read("tests/Cargo.toml"));
    let tests: BTreeSet<_> = manifest["test"]
        .as_array()
        .unwrap()
        .iter()
        .map(|test| test["name"].as_str().unwrap().to_owned())
        .collect();
    let config = parsed(read(".cargo/mutants.toml"));
    let words = strings(&config["additional_cargo_test_args"]);
    let named: Vec<_> = words
        .windows(2)
        .filter(|pair| pair[0] == "--test")
        .map(|pair| &pair[1])
        .collect();
    assert!(!named.is_empty());
    for name in named {
        assert!(tests.contains(name), "there is no test {name}");
    }
    let packages = dependencies();
    for package in strings(&config["test_package"]) {
        assert!(
            packages.contains_key(&package),
            "there is no package {package}"
        );
    }
}
