//! Our patches for Linux, and the kernel source that they are put on.
//!
//! The source stays where it is, because `make` builds anew what it finds under
//! another path. Only files whose content changes are written: what was built
//! from the others is still good.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::{paths, process, programs};

/// The patches of `linux/patches`, in their order.
pub(crate) struct Series {
    patches: Vec<(PathBuf, String)>,
}

impl Series {
    /// Reads those whose names start with one of `prefixes`. The letter that
    /// goes with a series is none.
    pub(crate) fn read(prefixes: &[&str]) -> Result<Self> {
        Self::read_from(&paths::root().join("linux/patches"), prefixes)
    }

    fn read_from(directory: &Path, prefixes: &[&str]) -> Result<Self> {
        let listed = fs::read_dir(directory)
            .with_context(|| format!("cannot read {}", directory.display()))?;
        let mut files: Vec<_> = listed
            .flatten()
            .map(|entry| entry.path())
            .filter(|file| {
                let name = file.file_name().unwrap_or_default().to_string_lossy();
                name.ends_with(".patch") && prefixes.iter().any(|start| name.starts_with(start))
            })
            .collect();
        files.sort();
        let patches = files.into_iter().map(|file| {
            let text = fs::read_to_string(&file)
                .with_context(|| format!("cannot read {}", file.display()))?;
            Ok((file, text))
        });
        let patches: Result<Vec<_>> = patches.collect();
        Ok(Self {
            patches: patches?
                .into_iter()
                .filter(|(_, text)| !touched(text).is_empty())
                .collect(),
        })
    }

    /// Its text, for the key of kernels that are built with it.
    pub(crate) fn text(&self) -> impl Iterator<Item = &str> {
        self.patches.iter().map(|(_, text)| text.as_str())
    }

    fn touched(&self) -> BTreeSet<String> {
        self.text().flat_map(touched).collect()
    }
}

/// The files that a patch changes, makes or removes, by their paths in the
/// source.
fn touched(patch: &str) -> BTreeSet<String> {
    let named = patch.lines().filter_map(|line| {
        line.strip_prefix("--- a/")
            .or_else(|| line.strip_prefix("+++ b/"))
    });
    // Git ends a name that has a space in it with a tab.
    named
        .map(|name| name.trim_end_matches('\t').to_owned())
        .collect()
}

/// A kernel source, with what is needed to take patches off again.
pub(super) struct Patched<'a> {
    /// The source.
    source: &'a Path,
    /// The files that were changed, as they were.
    originals: PathBuf,
    /// The names of these and of the files that were added.
    list: PathBuf,
}

impl<'a> Patched<'a> {
    /// The source in `source`; notes about it are kept in `beside`.
    pub(super) fn new(source: &'a Path, beside: &Path) -> Self {
        Self {
            source,
            originals: beside.join("originals"),
            list: beside.join("patched"),
        }
    }

    /// Makes the source what it is with `series`, or without any patch.
    /// Whatever was on it before is off. Fails if a patch does not apply, and
    /// leaves the source as it was then.
    pub(super) fn set(&self, series: Option<&Series>) -> Result<()> {
        let before: BTreeSet<_> = match fs::read_to_string(&self.list) {
            Ok(list) => list.lines().map(str::to_owned).collect(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => BTreeSet::new(),
            Err(error) => return Err(error).context("cannot read the list of patched files"),
        };
        let after = series.map(Series::touched).unwrap_or_default();
        for name in after.difference(&before) {
            copy(&self.source.join(name), &self.originals.join(name))?;
        }

        let made = tempfile::tempdir()?;
        for name in &after {
            copy(&self.originals.join(name), &made.path().join(name))?;
        }
        for (file, _) in series.iter().flat_map(|series| &series.patches) {
            let mut command = programs::command("patch");
            command
                .args(["--strip=1", "--batch", "--forward", "--silent"])
                .arg("--no-backup-if-mismatch")
                .arg("--directory")
                .arg(made.path())
                .arg("--input")
                .arg(file);
            process::output(&mut command)
                .with_context(|| format!("{} does not apply to this Linux", file.display()))?;
        }

        // Whatever happens now, what is changed is on the list.
        let all: BTreeSet<_> = before.union(&after).cloned().collect();
        self.note(&all)?;
        for name in &all {
            let from = if after.contains(name) {
                made.path()
            } else {
                &self.originals
            };
            replace(&from.join(name), &self.source.join(name))?;
        }
        self.note(&after)
    }

    fn note(&self, names: &BTreeSet<String>) -> Result<()> {
        let text: String = names.iter().flat_map(|name| [name, "\n"]).collect();
        fs::write(&self.list, text).with_context(|| format!("cannot write {}", self.list.display()))
    }
}

/// The content of `file`; `None` if there is no such file.
fn content(file: &Path) -> Result<Option<Vec<u8>>> {
    match fs::read(file) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("cannot read {}", file.display())),
    }
}

/// Makes `to` what `from` is, also where that is no file at all.
fn copy(from: &Path, to: &Path) -> Result<()> {
    match content(from)? {
        Some(bytes) => {
            let parent = to.parent().context("a file is in a directory")?;
            fs::create_dir_all(parent)?;
            fs::write(to, bytes).with_context(|| format!("cannot write {}", to.display()))
        }
        None if to.exists() => {
            fs::remove_file(to).with_context(|| format!("cannot remove {}", to.display()))
        }
        None => Ok(()),
    }
}

/// The same, but leaves `to` alone, and its time with it, where nothing
/// changes.
fn replace(from: &Path, to: &Path) -> Result<()> {
    if content(from)? == content(to)? {
        return Ok(());
    }
    copy(from, to)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::{Duration, SystemTime};

    const CHANGE: &str = "--- a/one\n+++ b/one\n@@ -1,2 +1,2 @@\n a\n-b\n+B\n";
    const MORE: &str = "--- a/one\n+++ b/one\n@@ -1,2 +1,3 @@\n a\n B\n+c\n";
    const ADD: &str = "--- /dev/null\n+++ b/new/two\n@@ -0,0 +1 @@\n+x\n";

    struct Place {
        directory: tempfile::TempDir,
    }

    impl Place {
        fn new() -> Self {
            let place = Self {
                directory: tempfile::tempdir().unwrap(),
            };
            for name in ["source", "patches"] {
                fs::create_dir(place.path(name)).unwrap();
            }
            for (name, text) in [("one", "a\nb\n"), ("other", "o\n")] {
                fs::write(place.path("source").join(name), text).unwrap();
            }
            place
        }

        fn path(&self, name: &str) -> PathBuf {
            self.directory.path().join(name)
        }

        fn set(&self, patches: &[&str]) -> Result<()> {
            let directory = self.path("patches");
            fs::remove_dir_all(&directory).unwrap();
            fs::create_dir(&directory).unwrap();
            fs::write(directory.join("0000-letter.patch"), "a letter\n").unwrap();
            for (number, text) in patches.iter().enumerate() {
                let name = format!("{:04}.patch", number + 1);
                fs::write(directory.join(name), format!("a reason\n\n{text}")).unwrap();
            }
            let series = Series::read_from(&directory, &["0"]).unwrap();
            assert_eq!(series.text().count(), patches.len());
            let source = self.path("source");
            let tree = Patched::new(&source, self.directory.path());
            tree.set((!patches.is_empty()).then_some(&series))
        }

        fn source(&self) -> [Option<String>; 3] {
            ["one", "new/two", "other"]
                .map(|name| fs::read_to_string(self.path("source").join(name)).ok())
        }

        fn is(&self, one: &str, two: Option<&str>) {
            let [real_one, real_two, other] = self.source();
            assert_eq!(real_one.as_deref(), Some(one));
            assert_eq!(real_two.as_deref(), two);
            assert_eq!(other.as_deref(), Some("o\n"));
        }
    }

    #[test]
    fn patches_go_on_and_off_and_give_way_to_others() {
        let place = Place::new();
        place.set(&[CHANGE, MORE, ADD]).unwrap();
        place.is("a\nB\nc\n", Some("x\n"));
        place.set(&[CHANGE]).unwrap();
        place.is("a\nB\n", None);
        place.set(&[ADD]).unwrap();
        place.is("a\nb\n", Some("x\n"));
        place.set(&[]).unwrap();
        place.is("a\nb\n", None);
    }

    #[test]
    fn only_the_series_that_are_asked_for_are_read() {
        let directory = tempfile::tempdir().unwrap();
        for (name, text) in [("b-0001.patch", ADD), ("a-0001.patch", CHANGE)] {
            fs::write(directory.path().join(name), text).unwrap();
        }
        let read = |prefixes: &[&str]| {
            let series = Series::read_from(directory.path(), prefixes).unwrap();
            series.text().map(str::to_owned).collect::<Vec<_>>()
        };
        assert_eq!(read(&["a-"]), [CHANGE]);
        assert_eq!(read(&["a-", "b-"]), [CHANGE, ADD]);
        assert!(read(&["c-"]).is_empty());
    }

    #[test]
    fn a_file_that_stays_as_it_is_keeps_its_time() {
        let place = Place::new();
        place.set(&[CHANGE, ADD]).unwrap();
        let file = place.path("source/one");
        let past = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000);
        fs::File::options()
            .write(true)
            .open(&file)
            .unwrap()
            .set_modified(past)
            .unwrap();
        let time = || fs::metadata(&file).unwrap().modified().unwrap();
        place.set(&[CHANGE]).unwrap();
        assert_eq!(time(), past);
        place.set(&[CHANGE, MORE]).unwrap();
        assert!(time() > past);
    }

    #[test]
    fn a_patch_that_does_not_apply_is_named_and_changes_nothing() {
        let place = Place::new();
        place.set(&[CHANGE]).unwrap();
        let error = place.set(&[CHANGE, ADD, CHANGE]).unwrap_err();
        assert!(error.to_string().contains("0003.patch"), "{error}");
        place.is("a\nB\n", None);
        place.set(&[]).unwrap();
        place.is("a\nb\n", None);
    }
}
