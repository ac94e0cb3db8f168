//! The command `warmbus` on captures of a simulated fabric, and on a boot that
//! QEMU recorded. The oracles are the fabric, `lspci` and
//! traces whose outcome was worked out by hand.

mod boot_script;
mod calls;
mod compare;
mod generated;
mod installing;
mod kernels;
mod machine;
mod memory;
mod names;
mod replay;
mod status;
mod survey;
mod sysfs;
mod view;

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

/// How a run of `warmbus` ended.
#[derive(Debug)]
struct Ran {
    status: Option<i32>,
    out: String,
    err: String,
}

impl Ran {
    /// The output as JSON.
    fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// The output of a run that ended with `status`.
    fn ended(self, status: i32) -> Self {
        assert_eq!(self.status, Some(status), "{self:?}");
        self
    }
}

fn warmbus(arguments: &[&str]) -> Ran {
    let output = Command::new(env!("CARGO_BIN_EXE_warmbus"))
        .args(arguments)
        .output()
        .expect("the command starts");
    Ran {
        status: output.status.code(),
        out: String::from_utf8(output.stdout).expect("text"),
        err: String::from_utf8(output.stderr).expect("text"),
    }
}

/// A recorded file.
fn data(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data");
    path.join(name).display().to_string()
}

/// A fixture of the tests of the project.
fn fixture(name: &str) -> PathBuf {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures");
    fixtures.join(name)
}

/// A folder for the files of one test.
struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Self {
        Self(tempfile::tempdir().expect("a folder for the test"))
    }

    /// Writes a file and returns its name.
    fn file(&self, name: &str, bytes: impl AsRef<[u8]>) -> String {
        let path: PathBuf = self.0.path().join(name);
        std::fs::write(&path, bytes).expect("the folder is writable");
        path.display().to_string()
    }
}

/// A folder that may not be entered, until the end of the test.
struct Locked<'a>(&'a Path);

impl<'a> Locked<'a> {
    fn new(folder: &'a Path) -> Self {
        Self::set(folder, 0o000);
        Self(folder)
    }

    fn set(folder: &Path, mode: u32) {
        use std::os::unix::fs::PermissionsExt;
        let permissions = std::fs::Permissions::from_mode(mode);
        std::fs::set_permissions(folder, permissions).expect("the folder is ours");
    }

    /// Whether it can be entered all the same, as by root.
    fn is_ignored(&self) -> bool {
        std::fs::read_dir(self.0).is_ok()
    }
}

impl Drop for Locked<'_> {
    fn drop(&mut self) {
        Self::set(self.0, 0o755);
    }
}
