//! The pages: what they link to exists, they use the terms of the field, the
//! README is readable, and ARCHITECTURE.md describes the packages as they are.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Words in the longest sentence of the README.
const MAX_WORDS: usize = 30;

/// Words and phrases that the project has replaced, in lower case. They may
/// stand in quotations of code and of console lines.
const REPLACED: [&str; 21] = [
    "tell",
    "tells",
    "told",
    "telling",
    "for good",
    "for ever",
    "whoever",
    "who comes next",
    "comes next",
    "somebody",
    "nobody",
    "thinking half",
    "doing half",
    "take in",
    "takes in",
    "taken in",
    "leave out",
    "leaves out",
    "left out",
    "plainly",
    "astray",
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn text(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Adds the Markdown files below `directory`, of all depths, to `pages`.
fn add_pages(directory: &Path, pages: &mut BTreeSet<PathBuf>) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            add_pages(&path, pages);
        } else if path.extension().is_some_and(|extension| extension == "md") {
            pages.insert(path);
        }
    }
}

/// Every page of the project.
fn pages() -> BTreeSet<PathBuf> {
    let mut pages = BTreeSet::new();
    let folders = [
        "bench", "boards", "crates", "docs", "fuzz", "tests", "tools", ".github",
    ];
    for folder in folders {
        add_pages(&root().join(folder), &mut pages);
    }
    for entry in fs::read_dir(root()).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "md") {
            pages.insert(path);
        }
    }
    assert!(pages.len() > 25, "{pages:?}");
    pages
}

/// `page` without fenced and indented blocks, and without comments.
fn prose(page: &str) -> String {
    let mut kept = String::new();
    let mut fenced = false;
    let mut after_blank = true;
    let mut comment = false;
    for line in page.lines() {
        if line.trim_start().starts_with("```") {
            fenced = !fenced;
            continue;
        }
        comment |= line.starts_with("<!--");
        let indented = line.starts_with("    ") && after_blank;
        if !fenced && !comment && !indented {
            kept.extend([line, "\n"]);
            after_blank = line.is_empty();
        }
        comment &= !line.ends_with("-->");
    }
    kept
}

/// `text` with every code span replaced by `with`.
fn without_code(text: &str, with: &str) -> String {
    let parts = text.split('`').enumerate();
    parts
        .map(|(index, part)| if index % 2 == 0 { part } else { with })
        .collect()
}

/// The paragraphs, list items, headings and table cells of a page: pieces
/// that no sentence crosses.
fn blocks(page: &str) -> Vec<String> {
    let mut blocks = vec![String::new()];
    for line in prose(page).lines() {
        let line = line.trim();
        if line.starts_with('|') {
            blocks.extend(line.split('|').map(String::from));
            blocks.push(String::new());
            continue;
        }
        let begins = line.is_empty() || line.starts_with("- ") || line.starts_with('#');
        if begins {
            blocks.push(String::new());
        }
        blocks.last_mut().unwrap().extend([line, " "]);
        if line.starts_with('#') {
            blocks.push(String::new());
        }
    }
    blocks.retain(|block| !block.trim().is_empty());
    blocks
}

/// The sentences of a page, each as its words. A code span is one word.
fn sentences(page: &str) -> Vec<Vec<String>> {
    let mut sentences = Vec::new();
    for block in blocks(page) {
        let mut words = Vec::new();
        for word in without_code(&block, "CODE").split_whitespace() {
            if word.contains(char::is_alphanumeric) {
                words.push(word.to_owned());
            }
            let bare = word.trim_end_matches(['"', ')', '*']);
            if bare.ends_with(['.', '?', '!']) {
                sentences.push(std::mem::take(&mut words));
            }
        }
        sentences.push(words);
    }
    sentences.retain(|words| !words.is_empty());
    sentences
}

#[test]
fn sentences_end_where_a_reader_ends_them() {
    let page = "# A title\n\nOne two\nthree `a. b` four. Five (six.) Seven\n\n- eight\n- nine 1.5 ten\n\n\
                | a b | c |\n| --- | --- |\n\n```sh\nnot this\n```\n\n    nor this\n<!-- nor this -->\nlast\n";
    let counts: Vec<usize> = sentences(page).iter().map(Vec::len).collect();
    assert_eq!(counts, [2, 5, 2, 1, 1, 3, 2, 1, 1], "{:?}", sentences(page));
}

#[test]
fn no_sentence_of_the_readme_is_too_long() {
    let page = text(&root().join("README.md"));
    let sentences = sentences(&page);
    assert!(sentences.len() > 60, "{}", sentences.len());
    for words in sentences {
        assert!(
            words.len() <= MAX_WORDS,
            "{} words: {}",
            words.len(),
            words.join(" ")
        );
    }
}

/// The first of `phrases` in `text`, if there is one.
fn first_of(mut phrases: impl Iterator<Item = &'static str>, text: &str) -> Option<&'static str> {
    let separate = |letter: char| !(letter.is_alphanumeric() || letter == '\'');
    let words: Vec<&str> = text
        .split(separate)
        .filter(|word| !word.is_empty())
        .collect();
    let spaced = format!(" {} ", words.join(" ").to_lowercase());
    phrases.find(|phrase| spaced.contains(&format!(" {phrase} ")))
}

/// The first of the replaced words in `text`, if there is one.
fn replaced(text: &str) -> Option<&'static str> {
    first_of(REPLACED.into_iter(), text)
}

#[test]
fn replaced_words_are_found() {
    assert_eq!(replaced("It Tells\nall."), Some("tells"));
    assert_eq!(replaced("constant, for\ngood"), Some("for good"));
    assert_eq!(replaced("foretold, for goods, teller"), None);
}

#[test]
fn pages_use_the_terms_of_the_field() {
    for page in pages() {
        let prose = without_code(&prose(&text(&page)), "CODE");
        assert_eq!(replaced(&prose), None, "{}", page.display());
    }
}

/// Replaced words that a comment of the code may have, where the reader decides.
const FREE_IN_COMMENTS: [&str; 2] = ["somebody", "nobody"];

/// Adds the Rust files below `directory`, of all depths, to `files`.
fn add_sources(directory: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            if !path.ends_with("target") {
                add_sources(&path, files);
            }
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
}

/// The comments that have lines of their own, one after the other.
fn comments(source: &str) -> String {
    let lines = source.lines().map(str::trim_start);
    let comments = lines.filter_map(|line| line.strip_prefix("//"));
    let texts = comments.map(|comment| comment.trim_start_matches(['/', '!', ' ']));
    texts.collect::<Vec<_>>().join("\n")
}

/// The names of the functions, as words, one name a line.
fn function_names(source: &str) -> String {
    let names = source.split("fn ").skip(1).filter_map(|rest| {
        let name = rest.split(['(', '<']).next()?;
        let is_name = name.chars().all(|c| c.is_alphanumeric() || c == '_');
        is_name.then(|| name.replace('_', " "))
    });
    names.collect::<Vec<_>>().join("\n")
}

#[test]
fn comments_and_names_use_the_terms_of_the_field() {
    let mut files = Vec::new();
    for folder in ["crates", "src", "tests", "tools", "fuzz"] {
        add_sources(&root().join(folder), &mut files);
    }
    assert!(files.len() > 200, "{}", files.len());
    for file in files {
        let source = text(&file);
        let comments = without_code(&comments(&source), "CODE");
        for words in [comments, function_names(&source)] {
            let phrases = REPLACED.into_iter();
            let phrases = phrases.filter(|phrase| !FREE_IN_COMMENTS.contains(phrase));
            assert_eq!(first_of(phrases, &words), None, "{}", file.display());
        }
    }
}

/// The anchor that a heading gets: lower case, without punctuation, spaces as
/// hyphens.
fn anchor(heading: &str) -> String {
    let kept = heading.trim_start_matches('#').trim().chars();
    let kept = kept.filter(|letter| letter.is_alphanumeric() || " -_".contains(*letter));
    let kept: String = kept.collect();
    kept.to_lowercase().replace(' ', "-")
}

/// The targets of the links in a page.
fn links(page: &str) -> impl Iterator<Item = &str> {
    let rests = page.split("](").skip(1);
    rests.filter_map(|rest| rest.split(')').next())
}

/// The paths between backquotes in a page.
fn paths(page: &str) -> impl Iterator<Item = &str> {
    let folders = [
        "docs/", "tests/", "boards/", "bench/", "linux/", "fuzz/", "crates/", "tools/",
    ];
    page.split('`').skip(1).step_by(2).filter(move |quoted| {
        let is_path = folders.iter().any(|folder| quoted.starts_with(folder));
        is_path && !quoted.contains(['<', ' ', '\n', '*']) && !quoted.contains("NAME")
    })
}

#[test]
fn what_the_pages_link_to_exists() {
    let mut checked = 0;
    for page in pages() {
        // The corpus lists paths of other repositories.
        if page.ends_with("tests/corpus/README.md") {
            continue;
        }
        let prose = prose(&text(&page));
        let outside = |target: &&str| !target.contains("://");
        for target in links(&prose).filter(outside).chain(paths(&prose)) {
            checked += 1;
            let (file, section) = target.split_once('#').unwrap_or((target, ""));
            let beside = page.parent().unwrap().join(file);
            let from_root = root().join(file);
            let found = [beside, from_root].into_iter().find(|path| path.exists());
            let found = if file.is_empty() {
                Some(page.clone())
            } else {
                found
            };
            let Some(found) = found else {
                panic!("{}: {target}", page.display());
            };
            if !section.is_empty() {
                let anchors = text(&found);
                let mut headings = anchors.lines().filter(|line| line.starts_with('#'));
                assert!(
                    headings.any(|heading| anchor(heading) == section),
                    "{}: {target}",
                    page.display()
                );
            }
        }
    }
    assert!(checked > 100, "{checked}");
}

/// The folders of the packages in the table of ARCHITECTURE.md, in its order,
/// with their names.
fn described() -> Vec<(String, String)> {
    let page = text(&root().join("ARCHITECTURE.md"));
    let rows = page.lines().filter_map(|line| {
        let mut cells = line.strip_prefix("| `")?.split('`');
        let folder = cells.next()?;
        let package = cells.nth(1)?;
        Some((folder.to_owned(), package.to_owned()))
    });
    rows.collect()
}

/// What the manifest in `folder` says: the name of the package, and the
/// packages of this project that it is built from.
fn manifest(folder: &str) -> (String, BTreeSet<String>) {
    let folder = if folder == "src" { "." } else { folder };
    let manifest = text(&root().join(folder).join("Cargo.toml"));
    let mut section = "";
    let mut name = None;
    let mut needs = BTreeSet::new();
    for line in manifest.lines() {
        if line.starts_with('[') {
            section = line;
        }
        let Some((key, value)) = line.split_once('=') else {
            continue;
        };
        let key = key.trim().split('.').next().unwrap();
        if section == "[package]" && key == "name" {
            name = Some(value.trim().trim_matches('"').to_owned());
        }
        let is_built_from = section.ends_with("dependencies]")
            && !section.contains("dev-")
            && !section.contains("workspace");
        if is_built_from && (key.starts_with("warmbus-") || key == "xtask") {
            needs.insert(key.to_owned());
        }
    }
    (name.expect(folder), needs)
}

#[test]
fn every_package_is_described_and_depends_on_what_is_above_it() {
    let described = described();
    let mut above = BTreeSet::new();
    let mut edges = 0;
    for (folder, package) in &described {
        let (name, needs) = manifest(folder);
        assert_eq!(&name, package, "{folder}");
        let missing: Vec<_> = needs.difference(&above).collect();
        assert!(missing.is_empty(), "{folder}: {missing:?} are not above");
        edges += needs.len();
        above.insert(name);
    }
    assert!(edges > 20, "{edges}");

    let described: BTreeSet<_> = described.into_iter().map(|(folder, _)| folder).collect();
    for group in ["crates", "tools"] {
        for entry in fs::read_dir(root().join(group)).unwrap() {
            let entry = entry.unwrap();
            let folder = format!("{group}/{}", entry.file_name().to_string_lossy());
            if entry.path().join("Cargo.toml").exists() {
                assert!(described.contains(&folder), "{folder} is not described");
            }
        }
    }
}

#[test]
fn pci_is_independent_of_the_cache_and_the_handover() {
    let (_, needs) = manifest("crates/pci");
    assert_eq!(needs, BTreeSet::from(["warmbus-memory".to_owned()]));
}

/// The names of the functions in `source` that are tests, and of `KUnit` cases.
fn test_names(source: &str) -> impl Iterator<Item = &str> {
    source.lines().filter_map(|line| {
        let line = line.trim_start_matches('+').trim_start();
        let name = line
            .strip_prefix("fn ")
            .or_else(|| line.strip_prefix("KUNIT_CASE("))?;
        name.split(['(', ')']).next()
    })
}

#[test]
fn every_event_of_the_linux_page_has_a_test() {
    let mut sources = Vec::new();
    for folder in ["tests/qemu/e2e", "linux/patches"] {
        for entry in fs::read_dir(root().join(folder)).unwrap() {
            sources.push(text(&entry.unwrap().path()));
        }
    }
    let tests: BTreeSet<_> = sources
        .iter()
        .flat_map(|source| test_names(source))
        .collect();
    let page = text(&root().join("docs/linux-consumer.md"));
    let rows = page
        .split("| event | tests |")
        .nth(1)
        .expect("it has a table");
    let rows: Vec<_> = rows
        .lines()
        .skip(2)
        .take_while(|line| line.starts_with('|'))
        .collect();
    assert!(rows.len() > 20, "{rows:?}");
    for row in rows {
        let cell = row.trim_end_matches(" |").rsplit(" | ").next().unwrap();
        assert!(!cell.is_empty());
        for name in cell.split(", ") {
            assert!(tests.contains(name.trim_matches('`')), "{name} of {row}");
        }
    }
}

/// The rows of a table of a letter: a name, and a number for each topology.
fn rows_of_letter(letter: &str) -> Vec<Vec<u64>> {
    let rows = letter.lines().map(|line| {
        let words = line
            .split_whitespace()
            .rev()
            .map_while(|word| word.parse().ok());
        let mut numbers: Vec<_> = words.collect();
        numbers.reverse();
        numbers
    });
    rows.filter(|numbers| numbers.len() == 4).collect()
}

#[test]
fn letters_of_the_series_have_the_counts_of_the_benchmark() {
    let results = text(&root().join("bench/results/README.md"));
    // Of stock Linux, of series A, and of both after Warmbus.
    let mut counted = [const { Vec::new() }; 3];
    for topology in ["small", "switch", "fan", "sriov"] {
        let section = results.split(&format!("## {topology}: ")).nth(1).unwrap();
        let names = ["Linux, stock", "Linux, cache cold", "Linux, after Warmbus"];
        for (name, counts) in names.into_iter().zip(&mut counted) {
            let row = section.split(&format!("| {name} | ")).nth(1).unwrap();
            let reads = row.split(' ').next().unwrap().replace(',', "");
            counts.push(reads.parse::<u64>().unwrap());
        }
    }
    for (letter, rows) in [("a", 2), ("b", 3)] {
        let file = format!("linux/patches/{letter}-0000-cover-letter.patch");
        assert_eq!(rows_of_letter(&text(&root().join(file))), counted[..rows]);
    }
}
