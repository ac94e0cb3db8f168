//! The device trees of all arm64 boards in the source of Linux.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::thread;

use anyhow::{Context, Result};

use super::source::Source;
use super::{Options, Store, key};
use crate::process;
use crate::progress::Progress;

/// Goes into the key: to be raised when the steps change.
const RECIPE: &str = "1";
/// Where they are in the source.
const BOARDS: &str = "arch/arm64/boot/dts";

/// What was compiled, and from what.
#[derive(Clone, Debug)]
pub struct Trees {
    /// The source of Linux.
    pub source: PathBuf,
    /// A folder with a `.dtb` for each board.
    pub folder: PathBuf,
}

/// The device trees of the Linux of the tests; compiled where they are not there
/// yet.
pub(super) fn compiled(store: &Store) -> Result<Trees> {
    let options = Options::default();
    let found = Source::find(store, &options, false)?;
    // The folder that kernels are built from.
    let work = store.path(&format!("work-linux-source-{}-4k", options.version));
    fs::create_dir_all(&work).with_context(|| format!("cannot make {}", work.display()))?;
    let source = found.unpack(&work)?;
    let key = key([RECIPE, &found.identity()].map(str::as_bytes));
    let folder = store.path(&format!("trees-{key}"));
    if !folder.is_dir() {
        compile(&source, &folder)?;
    }
    Ok(Trees { source, folder })
}

/// Compiles all trees of `source` into `folder`. What the device tree compiler
/// refuses is named in its file `refused`.
fn compile(source: &Path, folder: &Path) -> Result<()> {
    let boards = source.join(BOARDS);
    let mut files = Vec::new();
    for vendor in fs::read_dir(&boards)? {
        add_sources(&vendor?.path(), &mut files)?;
    }
    files.sort();
    let step = Progress::begin("compiling the device trees of Linux");
    let new = folder.with_extension("new");
    if new.exists() {
        fs::remove_dir_all(&new)?;
    }
    fs::create_dir_all(&new)?;
    let left = Mutex::new(files.into_iter());
    let next = || left.lock().ok()?.next();
    let refused = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for _ in 0..thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                while let Some(file) = next() {
                    let name = file.strip_prefix(&boards).unwrap_or(&file);
                    let name = name.to_string_lossy().replace('/', "_");
                    step.detail(&name);
                    let target = new.join(&name).with_extension("dtb");
                    if let Err(error) = compile_one(source, &file, &target)
                        && let Ok(mut refused) = refused.lock()
                    {
                        refused.push(format!("{name}: {error:#}\n"));
                    }
                }
            });
        }
    });
    let mut refused = refused.into_inner().unwrap_or_default();
    refused.sort();
    fs::write(new.join("refused"), refused.concat())?;
    // Under its name only once it is whole.
    fs::rename(&new, folder)?;
    Ok(())
}

/// Adds the `.dts` files below `folder`.
fn add_sources(folder: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    if !folder.is_dir() {
        return Ok(());
    }
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            add_sources(&path, files)?;
        } else if path.extension().is_some_and(|end| end == "dts") {
            files.push(path);
        }
    }
    Ok(())
}

/// As the makefiles of Linux do it.
fn compile_one(source: &Path, file: &Path, target: &Path) -> Result<()> {
    let folder = file.parent().unwrap_or(source);
    let text = target.with_extension("tmp");
    let mut preprocessor = Command::new("cpp");
    preprocessor
        .args([
            "-nostdinc",
            "-undef",
            "-D__DTS__",
            "-x",
            "assembler-with-cpp",
        ])
        .arg("-I")
        .arg(source.join("scripts/dtc/include-prefixes"))
        .arg("-I")
        .arg(folder)
        .arg(file)
        .arg("-o")
        .arg(&text);
    process::output(&mut preprocessor)?;
    let mut compiler = Command::new("dtc");
    compiler
        .args(["-q", "-I", "dts", "-O", "dtb", "-i"])
        .arg(folder)
        .arg("-o")
        .arg(target)
        .arg(&text);
    let result = process::output(&mut compiler);
    fs::remove_file(&text)?;
    if result.is_err() && target.exists() {
        fs::remove_file(target)?;
    }
    result.map(drop)
}
