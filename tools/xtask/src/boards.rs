//! `cargo xtask boards`: the table of what `warmbus survey` has found on boards.
//!
//! The file of a survey is `boards/NAME/*.json`. The table is in
//! `boards/README.md`, between two comments.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::{UsageError, paths};

/// The schema of a survey that is understood.
const SCHEMA: &str = "warmbus-survey/1";
/// The lines around the table.
const BEGIN: &str = "<!-- surveys: written by `cargo xtask boards` -->";
const END: &str = "<!-- surveys: end -->";
const HEAD: &str = "\
| board | functions | host bridges handed over | a read: median, 99 % | cacheable | a boot | saved | saved by a kexec |
| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |
";

/// What to do with the table.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
A survey for boards/NAME is made there with
  sudo warmbus survey --json > survey.json

Examples:
  cargo xtask boards
  cargo xtask boards --check")]
pub struct Options {
    /// Change nothing; fail if the table is not that of the surveys
    #[arg(long)]
    check: bool,
}

/// Writes the table of all surveys, or checks it.
pub fn run(options: &Options) -> Result<()> {
    let folder = paths::root().join("boards");
    let page = folder.join("README.md");
    let old =
        fs::read_to_string(&page).with_context(|| format!("cannot read {}", page.display()))?;
    let surveys = surveys(&folder)?;
    let new = with_table(&old, &table(&surveys)?)?;
    if options.check && new != old {
        let page = page.display();
        return Err(UsageError(format!(
            "the table in {page} is not that of the surveys: cargo xtask boards writes it"
        ))
        .into());
    }
    if new != old {
        fs::write(&page, new).with_context(|| format!("cannot write {}", page.display()))?;
    }
    println!("{}: {} surveys", page.display(), surveys.len());
    Ok(())
}

/// A survey, and the board that it is of.
struct Survey {
    file: PathBuf,
    /// The folder of the board.
    board: String,
    /// The title of its page.
    title: String,
    found: Value,
}

/// The surveys of all boards, in the order of their files.
fn surveys(folder: &Path) -> Result<Vec<Survey>> {
    let mut files = Vec::new();
    for board in listed(folder)? {
        if board.is_dir() {
            let below = listed(&board)?.into_iter();
            files.extend(below.filter(|file| file.extension().is_some_and(|end| end == "json")));
        }
    }
    files.into_iter().map(Survey::read).collect()
}

/// What is in `folder`, in the order of names.
fn listed(folder: &Path) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(folder);
    let entries = entries.with_context(|| format!("cannot list {}", folder.display()))?;
    let mut all = Vec::new();
    for entry in entries {
        all.push(entry?.path());
    }
    all.sort();
    Ok(all)
}

impl Survey {
    fn read(file: PathBuf) -> Result<Self> {
        let refuse = |why: String| UsageError(format!("{}: {why}", file.display()));
        let text = fs::read_to_string(&file).map_err(|error| refuse(error.to_string()))?;
        let found: Value =
            serde_json::from_str(&text).map_err(|error| refuse(format!("no {SCHEMA}: {error}")))?;
        let schema = found["schema"].as_str();
        if schema != Some(SCHEMA) {
            let schema = &found["schema"];
            return Err(refuse(format!("the schema is {schema}, not {SCHEMA}")).into());
        }
        let folder = file.parent().unwrap_or(Path::new("."));
        let page = folder.join("README.md");
        let page = fs::read_to_string(&page)
            .map_err(|error| refuse(format!("its board has no page: {error}")))?;
        let title = page.lines().find_map(|line| line.strip_prefix("# "));
        let title = title.ok_or_else(|| refuse("the page of its board has no title".into()))?;
        Ok(Self {
            board: folder
                .file_name()
                .unwrap_or_default()
                .to_string_lossy()
                .into_owned(),
            title: title.to_owned(),
            found,
            file,
        })
    }

    fn number(&self, path: &str) -> Result<i64> {
        let number = self.found.pointer(path).and_then(Value::as_i64);
        let file = self.file.display();
        number.ok_or_else(|| UsageError(format!("{file}: no number at {path}")).into())
    }

    fn list(&self, name: &str) -> Result<&[Value]> {
        let list = self.found[name].as_array();
        let file = self.file.display();
        let list = list.ok_or_else(|| UsageError(format!("{file}: no list {name}")))?;
        Ok(list)
    }

    /// Its row.
    fn row(&self) -> Result<String> {
        let hosts = self.list("host_bridges")?;
        let handed = hosts
            .iter()
            .filter(|host| host["handed_over"] == true)
            .count();
        let hosts = if self.found["host_bridges_unknown"].is_null() {
            format!("{handed} of {}", hosts.len())
        } else {
            "unknown".to_owned()
        };
        let time = if self.found["time"].is_null() {
            "not read".to_owned()
        } else {
            let [median, slow] =
                ["median", "p99"].map(|name| self.number(&format!("/time/{name}_nanoseconds")));
            format!("{}, {} µs", thousandths(median?), thousandths(slow?))
        };
        let cacheable = if self.found["cacheable_bytes"].is_null() {
            "unknown".to_owned()
        } else {
            let (cacheable, all) = (
                self.number("/cacheable_bytes")?,
                self.number("/config_bytes")?,
            );
            ensure!(all > 0, "{}: config_bytes is {all}", self.file.display());
            let permille = cacheable * 1000 / all;
            format!("{}.{} %", permille / 10, permille % 10)
        };
        let mut row = format!(
            "| [{}]({}) | {} | {hosts} | {time} | {cacheable} |",
            self.title,
            self.link(),
            self.list("functions")?.len(),
        );
        for what in ["boot", "boot_saved", "kexec_saved"] {
            let microseconds = self.number(&format!("/forecast_microseconds/{what}/middle"))?;
            write!(row, " {} ms |", thousandths(microseconds))?;
        }
        row.push('\n');
        Ok(row)
    }

    /// The file below the folder of all boards.
    fn link(&self) -> String {
        let name = self.file.file_name().unwrap_or_default().to_string_lossy();
        format!("{}/{name}", self.board)
    }
}

/// `number` thousandths, with one decimal place.
fn thousandths(number: i64) -> String {
    let tenths = (number.abs() + 50) / 100;
    let sign = if number < 0 && tenths != 0 { "-" } else { "" };
    format!("{sign}{}.{}", tenths / 10, tenths % 10)
}

fn table(surveys: &[Survey]) -> Result<String> {
    if surveys.is_empty() {
        return Ok("There is no survey yet.\n".to_owned());
    }
    let rows: Result<Vec<_>> = surveys.iter().map(Survey::row).collect();
    Ok(HEAD.to_owned() + &rows?.concat())
}

/// `page` with `table` between the comments.
fn with_table(page: &str, table: &str) -> Result<String> {
    let parts = page.split_once(BEGIN).and_then(|(before, rest)| {
        let (_, after) = rest.split_once(END)?;
        Some((before, after))
    });
    let (before, after) =
        parts.with_context(|| format!("the page of the boards has no {BEGIN} with {END}"))?;
    Ok(format!("{before}{BEGIN}\n\n{table}\n{END}{after}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn board(folder: &Path, name: &str, survey: &Value) {
        let board = folder.join(name);
        fs::create_dir(&board).unwrap();
        fs::write(board.join("README.md"), format!("# The {name}\n")).unwrap();
        fs::write(board.join("survey.json"), survey.to_string()).unwrap();
    }

    fn survey() -> Value {
        let span = |middle: i64| json!({ "low": middle - 1, "middle": middle, "high": middle + 1 });
        json!({
            "schema": SCHEMA,
            "functions": [{}, {}, {}],
            "host_bridges": [{ "handed_over": true }, { "handed_over": false }],
            "host_bridges_unknown": null,
            "time": { "median_nanoseconds": 1250, "p99_nanoseconds": 40_040, "system_call_nanoseconds": 7 },
            "cacheable_bytes": 858,
            "config_bytes": 1536,
            "forecast_microseconds": {
                "boot": span(37_849), "boot_saved": span(-20), "kexec_saved": span(-1250),
            },
        })
    }

    #[test]
    fn a_row_has_what_was_found_and_what_is_unknown() {
        let folder = tempfile::tempdir().unwrap();
        board(folder.path(), "b", &survey());
        let mut less = survey();
        for name in ["time", "cacheable_bytes", "config_bytes"] {
            less[name] = Value::Null;
        }
        less["host_bridges_unknown"] = json!("only root may");
        board(folder.path(), "a", &less);
        fs::write(folder.path().join("README.md"), "").unwrap();
        let table = table(&surveys(folder.path()).unwrap()).unwrap();
        let rows: Vec<_> = table.lines().skip(2).collect();
        assert_eq!(
            rows,
            [
                "| [The a](a/survey.json) | 3 | unknown | not read | unknown | 37.8 ms | 0.0 ms | -1.3 ms |",
                "| [The b](b/survey.json) | 3 | 1 of 2 | 1.3, 40.0 µs | 55.8 % | 37.8 ms | 0.0 ms | -1.3 ms |",
            ]
        );
    }

    #[test]
    fn what_is_no_survey_is_named_with_its_file() {
        for (survey, words) in [
            (
                json!({ "schema": "warmbus-survey/2" }),
                "\"warmbus-survey/2\", not",
            ),
            (json!([]), "the schema is null"),
            (
                json!({ "schema": SCHEMA, "host_bridges": [] }),
                "no number at /time",
            ),
        ] {
            let folder = tempfile::tempdir().unwrap();
            board(folder.path(), "b", &{
                let mut survey = survey;
                if survey["schema"] == SCHEMA {
                    survey["time"] = json!({});
                }
                survey
            });
            let made = surveys(folder.path()).and_then(|surveys| table(&surveys));
            let error = made.unwrap_err();
            assert!(error.is::<UsageError>(), "{error:#}");
            let error = error.to_string();
            assert!(
                error.contains(words) && error.contains("b/survey.json"),
                "{error}"
            );
        }
    }

    #[test]
    fn only_what_is_between_the_comments_changes() {
        let page = format!("before\n{BEGIN}\nold\n{END}\nafter\n");
        let new = with_table(&page, "new\n").unwrap();
        assert_eq!(new, format!("before\n{BEGIN}\n\nnew\n\n{END}\nafter\n"));
        assert_eq!(with_table(&new, "new\n").unwrap(), new);
        assert!(with_table("before", "new").is_err());
    }

    #[test]
    fn the_table_in_the_page_is_that_of_the_surveys() {
        run(&Options { check: true }).unwrap();
    }
}
