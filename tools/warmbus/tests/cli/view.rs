//! `warmbus view`. Where Chromium is installed, or `WARMBUS_CHROMIUM` names it,
//! the pages are opened in it, without a display.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::PathBuf;
use std::process::Command;

use serde_json::Value;
use warmbus_pci::DumpedConfigSpace;

use crate::sysfs::Tree;
use crate::{Folder, data, warmbus};

/// The page of `file`.
fn page(file: &str) -> String {
    warmbus(&["view", file]).ended(0).out
}

/// What the script of a page reads.
fn embedded(page: &str) -> Value {
    let (_, rest) = page
        .split_once("<script id=\"data\" type=\"application/json\">")
        .unwrap();
    let (text, _) = rest.split_once("</script>").unwrap();
    serde_json::from_str(text).unwrap()
}

#[test]
fn a_page_loads_nothing_and_has_every_function() {
    for file in ["small.json", "small.dump"] {
        let page = page(&data(file));
        assert!(page.contains("default-src 'none'"), "{file}");
        for loading in ["http:", "https:", "//", "src=", "@import", "url("] {
            let found = page.match_indices(loading).find(|(at, _)| {
                // Comments of the script begin with two slashes.
                !page[..*at].ends_with(['\n', ' ']) || loading != "//"
            });
            assert_eq!(found, None, "{file}");
        }
        let report: Value =
            serde_json::from_slice(&std::fs::read(data("small.json")).unwrap()).unwrap();
        let expected: BTreeMap<_, _> = report["functions"]
            .as_array()
            .unwrap()
            .iter()
            .map(|one| (one["sbdf"].as_str().unwrap(), one["parent"].as_str()))
            .collect();
        let shown = embedded(&page);
        let shown: BTreeMap<_, _> = shown["functions"]
            .as_array()
            .unwrap()
            .iter()
            .map(|one| (one["sbdf"].as_str().unwrap(), one["parent"].as_str()))
            .collect();
        assert_eq!(shown, expected, "{file}");
    }
}

#[test]
fn the_bytes_of_a_page_are_those_of_the_dump() {
    let shown = embedded(&page(&data("small.dump")));
    let dump = std::fs::read_to_string(data("small.dump")).unwrap();
    let dump = DumpedConfigSpace::parse(&dump).unwrap();
    for function in shown["functions"].as_array().unwrap() {
        let sbdf = function["sbdf"].as_str().unwrap().parse().unwrap();
        let space = &shown["spaces"][function["space"].as_u64().unwrap() as usize];
        let mut bytes = vec![0; space["size"].as_u64().unwrap() as usize];
        for piece in space["data"].as_array().unwrap().chunks_exact(2) {
            let at = piece[0].as_u64().unwrap() as usize;
            let text = piece[1].as_str().unwrap();
            for number in 0..text.len() / 2 {
                bytes[at + number] = u8::from_str_radix(&text[2 * number..][..2], 16).unwrap();
            }
        }
        assert_eq!(bytes, dump.bytes(sbdf).unwrap(), "{sbdf}");
        // Every byte has a class.
        let runs = &shown["classes"][space["classRuns"].as_u64().unwrap() as usize];
        let runs = runs.as_array().unwrap().iter().step_by(2);
        let length: u64 = runs.map(|length| length.as_u64().unwrap()).sum();
        assert_eq!(length as usize, bytes.len(), "{sbdf}");
    }
}

#[test]
fn what_a_file_says_is_no_part_of_the_page() {
    let report = std::fs::read_to_string(data("small.json")).unwrap();
    let evil = "</script><img src=x onerror=alert(1)>&quot;";
    let report = report.replace("linux,dummy-virt", &evil.replace('"', "\\\""));
    let folder = Folder::new();
    let file = folder.file("<b>report.json", report);
    let page = page(&file);
    assert!(!page.contains("<img") && !page.contains("<b>report"));
    let facts = embedded(&page)["facts"].to_string();
    assert!(facts.contains(evil), "{facts}");
}

#[test]
fn a_page_is_written_to_a_file_and_what_is_no_capture_is_refused() {
    let folder = Folder::new();
    let output = folder.0.path().join("page.html");
    let name = output.display().to_string();
    let ran = warmbus(&["view", &data("small.json"), "-o", &name]).ended(0);
    assert_eq!(ran.out, "");
    assert_eq!(
        std::fs::read_to_string(output).unwrap(),
        page(&data("small.json"))
    );
    let other = folder.file("other.json", r#"{"schema":"warmbus-survey/2"}"#);
    let ran = warmbus(&["view", &other]).ended(2);
    assert!(ran.err.contains("warmbus-survey/2"), "{}", ran.err);
    warmbus(&["view", &folder.file("text", "nothing")]).ended(2);
}

/// A dump of 4,129 functions: a host bridge, 32 root ports, and below each 128
/// functions of a controller.
fn many() -> String {
    let dump = std::fs::read_to_string(data("small.dump")).unwrap();
    let dump = DumpedConfigSpace::parse(&dump).unwrap();
    let bytes = |sbdf: &str| dump.bytes(sbdf.parse().unwrap()).unwrap().to_vec();
    let (host, port, nvme) = (
        bytes("0000:00:00.0"),
        bytes("0000:00:01.0"),
        bytes("0000:03:00.0"),
    );
    let mut text = String::new();
    let mut add = |bus: u8, devfn: u8, bytes: &[u8]| {
        writeln!(text, "{bus:02x}:{:02x}.{} Device", devfn >> 3, devfn & 7).unwrap();
        for (at, line) in bytes.chunks(16).enumerate() {
            write!(text, "{:02x}:", at * 16).unwrap();
            for byte in line {
                write!(text, " {byte:02x}").unwrap();
            }
            text.push('\n');
        }
        text.push('\n');
    };
    add(0, 0, &host);
    for number in 1..=32_u8 {
        let mut port = port.clone();
        port[0x19..0x1b].fill(number);
        add(0, number, &port);
        // Extended space of one of them is enough.
        add(number, 0, &nvme);
        for devfn in 1..128 {
            add(number, devfn, &nvme[..256]);
        }
    }
    text
}

/// The browser.
fn chromium() -> Option<PathBuf> {
    let named = std::env::var_os("WARMBUS_CHROMIUM").map(PathBuf::from);
    let search = std::env::var_os("PATH")?;
    let programs = ["chromium-headless-shell", "chromium", "chromium-browser"];
    let folders = std::env::split_paths(&search);
    let installed = folders.flat_map(|folder| programs.map(|name| folder.join(name)));
    named
        .into_iter()
        .chain(installed)
        .find(|file| file.is_file())
}

/// The page `html` after its script has run, and the lines of the console.
fn opened(browser: &PathBuf, html: &str) -> (String, Vec<String>) {
    let folder = Folder::new();
    let file = folder.file("page.html", html);
    let output = Command::new(browser)
        .args([
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--dump-dom",
            "--enable-logging=stderr",
        ])
        .arg(format!("--user-data-dir={}", folder.0.path().display()))
        .arg(format!("file://{file}"))
        .output()
        .unwrap();
    let lines = String::from_utf8_lossy(&output.stderr);
    let console = lines.lines().filter(|line| line.contains("CONSOLE"));
    let console = console.map(str::to_owned).collect();
    (String::from_utf8(output.stdout).unwrap(), console)
}

#[test]
fn pages_open_in_chromium_without_an_error() {
    let Some(browser) = chromium() else {
        eprintln!("skipped: Chromium is not installed");
        return;
    };
    let tree = Tree::small(4096);
    let survey = warmbus(&["survey", "--json", "--sysfs", &tree.path()]).out;
    let folder = Folder::new();
    let survey = folder.file("survey.json", survey);
    for file in [data("small.json"), data("small.dump"), survey] {
        let (page, console) = opened(&browser, &page(&file));
        assert_eq!(console, [""; 0], "{file}");
        // The script itself has this without a number.
        let rows = page.split("data-at=\"").skip(1);
        let rows = rows.filter(|row| row.starts_with(|digit: char| digit.is_ascii_digit()));
        let rows = rows.count();
        assert_eq!(rows, 10, "{file}: 9 functions and their host bridge");
        assert!(page.contains("<h2>Overview</h2>"), "{file}");
    }
}

#[test]
fn a_page_of_4129_functions_is_small_and_opens() {
    let folder = Folder::new();
    let file = folder.file("many.dump", many());
    let page = page(&file);
    let functions = embedded(&page)["functions"].as_array().unwrap().len();
    assert_eq!(functions, 4129);
    assert!(page.len() < 8 << 20, "{} bytes", page.len());
    let Some(browser) = chromium() else {
        eprintln!("skipped: Chromium is not installed");
        return;
    };
    let (page, console) = opened(&browser, &page);
    assert_eq!(console, [""; 0]);
    // The script notes when it was ready, which depends on what else the machine does.
    let (_, rest) = page.split_once("data-ready=\"").unwrap();
    let ready: u64 = rest.split_once('"').unwrap().0.parse().unwrap();
    println!("ready after {ready} ms");
}
