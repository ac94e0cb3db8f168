//! `warmbus install` and `uninstall`: the three ways of docs/uefi.md, on a
//! mounted EFI system partition and the variables of UEFI, and the one of
//! docs/boards.md, in a folder that U-Boot reads.

mod boot_script;
mod load_option;
mod manifest;
mod state;
mod steps;
mod variables;

use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};

pub use boot_script::{Started, install_boot_script};
pub use state::state;

use load_option::Program;
use manifest::{Made, Manifest};
use steps::{Step, Target};
use variables::{Variables, entry};

/// The names of the files of a release.
const DRIVER: &str = "warmbus-driver-aa64.efi";
const APPLICATION: &str = "warmbus.efi";
/// The loader without which its folder of drivers is of no use.
const SYSTEMD_BOOT: &str = r"\EFI\systemd\systemd-bootaa64.efi";
const SYSTEMD_DRIVERS: &str = r"\EFI\systemd\drivers";
const FOLDER: &str = r"\EFI\warmbus";
/// The machine type of arm64 in a PE file (PE/COFF, 3.3.1).
const ARM64: [u8; 2] = [0x64, 0xaa];

/// How Warmbus is started.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Way {
    /// By systemd-boot, which loads the drivers in its folder.
    SystemdBoot,
    /// By the boot manager, as a driver.
    Driver,
    /// By the boot manager, as an application that starts the loader.
    Application,
    /// By a script that U-Boot runs.
    UBoot,
}

impl Way {
    const fn name(self) -> &'static str {
        match self {
            Self::SystemdBoot => "systemd-boot",
            Self::Driver => "driver",
            Self::Application => "application",
            Self::UBoot => "u-boot",
        }
    }

    /// The kind of entry that it needs.
    const fn entry(self) -> Option<&'static str> {
        match self {
            Self::SystemdBoot | Self::UBoot => None,
            Self::Driver => Some("Driver"),
            Self::Application => Some("Boot"),
        }
    }
}

/// What the machine is booted by.
#[derive(Clone, Copy, Debug)]
pub enum Loader<'a> {
    /// UEFI.
    Uefi {
        /// Where the EFI system partition is mounted.
        esp: &'a Path,
        /// Where efivarfs is mounted.
        efivars: &'a Path,
    },
    /// U-Boot, which reads this folder of a partition.
    UBoot(&'a Path),
}

/// Where to install.
#[derive(Clone, Copy, Debug)]
pub struct Place<'a> {
    /// What the machine is booted by.
    pub loader: Loader<'a>,
    /// Only show the steps.
    pub dry_run: bool,
}

/// Installs the files in `files` in `way`, which is one of UEFI. With
/// [`Way::Application`], Warmbus starts the program `next` afterwards, or the one
/// that is booted now.
///
/// # Errors
///
/// If it is installed already, if something is not as it is understood, or if
/// a step fails. [`uninstall`] removes what was made until then.
pub fn install(way: Way, place: &Place<'_>, files: &Path, next: Option<&str>) -> Result<String> {
    let target = target(place, way.entry().is_some())?;
    target.is_free()?;
    let (name, folder) = match way {
        Way::SystemdBoot => (DRIVER, SYSTEMD_DRIVERS),
        Way::Driver => (DRIVER, FOLDER),
        Way::Application => (APPLICATION, FOLDER),
        Way::UBoot => bail!("that is not a way of UEFI"),
    };
    let bytes = program(&files.join(name))?;
    if way == Way::SystemdBoot {
        ensure!(
            target.has(SYSTEMD_BOOT),
            "there is no {}: systemd-boot is not installed on this partition",
            target.file(SYSTEMD_BOOT).display()
        );
    }
    let path = format!(r"{folder}\{name}");
    target.lacks(&path)?;
    let mut steps = Vec::new();
    for folder in [FOLDER, folder] {
        let step = Step::CreateFolder(folder.to_owned());
        if !target.has(folder) && !steps.contains(&step) {
            steps.push(step);
        }
    }
    steps.push(Step::WriteFile(path.clone(), bytes));
    if let (Some(kind), Some(variables)) = (way.entry(), &target.variables) {
        steps.extend(entry_steps(kind, variables, &target, path, next)?);
    }
    perform_listed(way, &target, steps, place.dry_run)
}

/// Takes `steps`, with a list of what they make.
fn perform_listed(
    way: Way,
    target: &Target,
    mut steps: Vec<Step>,
    dry_run: bool,
) -> Result<String> {
    let made = describe(way, &steps);
    let text = serde_json::to_string_pretty(&made)? + "\n";
    // Before what it lists: what is cut off in the middle can be removed.
    let at = steps
        .iter()
        .take_while(|step| matches!(step, Step::CreateFolder(_)));
    let at = at.count();
    steps.insert(
        at,
        Step::WriteFile(target.list.to_owned(), text.into_bytes()),
    );
    perform(target, &steps, dry_run)
}

/// Removes what [`install`] made, and nothing that has changed since.
///
/// # Errors
///
/// If it is not installed, or a step fails.
pub fn uninstall(place: &Place<'_>) -> Result<String> {
    let file = target(place, false)?.list();
    let text = fs::read(&file).with_context(|| {
        format!(
            "{} is missing: this command has installed nothing here",
            file.display()
        )
    })?;
    let made: Manifest =
        serde_json::from_slice(&text).with_context(|| format!("{} is damaged", file.display()))?;
    ensure!(
        made.schema == manifest::SCHEMA,
        "{}: the schema is {:?} instead of {:?}",
        file.display(),
        made.schema,
        manifest::SCHEMA
    );
    let target = target(place, !made.variables.is_empty())?;
    let mut steps = Vec::new();
    let mut kept = String::new();
    for variable in &made.variables {
        let Some(variables) = &target.variables else {
            continue;
        };
        let (kind, number) = numbered(&variable.name)?;
        match variables.get(&variable.name)? {
            None => writeln!(kept, "the variable {} is gone already", variable.name)?,
            Some(value) if !variable.is(&value) => {
                writeln!(kept, "the variable {} has changed and stays", variable.name)?;
                continue;
            }
            Some(_) => steps.push(Step::DeleteVariable(variable.name.clone())),
        }
        let order = variables.order(kind)?;
        if order.contains(&number) {
            let rest = order.into_iter().filter(|other| *other != number);
            steps.insert(0, Step::SetOrder(kind, rest.collect()));
        }
    }
    for made in &made.files {
        match fs::read(target.file(&made.name)) {
            Err(_) => writeln!(kept, "{} is gone already", made.name)?,
            Ok(bytes) if !made.is(&bytes) => writeln!(kept, "{} has changed and stays", made.name)?,
            Ok(_) => steps.push(Step::DeleteFile(made.name.clone())),
        }
    }
    steps.push(Step::DeleteFile(target.list.to_owned()));
    let folders = made.folders.iter().rev();
    steps.extend(folders.map(|folder| Step::DeleteFolder(folder.clone())));
    Ok(perform(&target, &steps, place.dry_run)? + &kept)
}

fn target(place: &Place<'_>, needs_variables: bool) -> Result<Target> {
    match place.loader {
        Loader::Uefi { esp, efivars } => {
            ensure!(
                esp.join("EFI").is_dir() || esp.join("efi").is_dir(),
                "{} is no EFI system partition: it has no folder EFI",
                esp.display()
            );
            let variables = needs_variables.then(|| Variables::open(efivars));
            Ok(Target {
                root: esp.to_path_buf(),
                list: manifest::PATH,
                variables: variables.transpose()?,
            })
        }
        Loader::UBoot(folder) => {
            ensure!(folder.is_dir(), "{} is no folder", folder.display());
            Ok(Target {
                root: folder.to_path_buf(),
                list: boot_script::LIST,
                variables: None,
            })
        }
    }
}

/// The program in `file`, which has to be one for arm64.
fn program(file: &PathBuf) -> Result<Vec<u8>> {
    let bytes = fs::read(file).with_context(|| format!("cannot read {}", file.display()))?;
    let header = bytes.get(0x3c..0x40).map(|at| {
        let at = [at[0], at[1], at[2], at[3]];
        u32::from_le_bytes(at) as usize
    });
    let machine = header.and_then(|at| bytes.get(at..at.checked_add(6)?));
    ensure!(
        bytes.starts_with(b"MZ")
            && machine.is_some_and(|pe| pe == [&b"PE\0\0"[..], &ARM64].concat()),
        "{} is no program of UEFI for arm64",
        file.display()
    );
    Ok(bytes)
}

/// The steps for an entry of `kind` that starts `path`.
fn entry_steps(
    kind: &'static str,
    variables: &Variables,
    target: &Target,
    path: String,
    next: Option<&str>,
) -> Result<Vec<Step>> {
    let current = booted(variables, target)?;
    let options = match (kind, next) {
        ("Boot", None) => format!("next={}", current.path),
        ("Boot", Some(next)) => {
            ensure!(
                target.has(next),
                "there is no {} for Warmbus to start",
                target.file(next).display()
            );
            format!("next={next}")
        }
        _ => String::new(),
    };
    let number = variables.free(kind)?;
    let program = Program { path, ..current };
    let value = load_option::build("Warmbus", &program, &options);
    let mut order = variables.order(kind)?;
    order.insert(0, number);
    Ok(vec![
        Step::SetVariable(entry(kind, number), value),
        Step::SetOrder(kind, order),
    ])
}

/// The program that the boot manager started: its entry says how UEFI calls
/// the partition, if that is the one which is mounted.
fn booted(variables: &Variables, target: &Target) -> Result<Program> {
    let current = variables.get("BootCurrent")?;
    let current = current.filter(|value| value.len() == 2);
    let current = current.context("BootCurrent does not say which entry was booted")?;
    let name = entry("Boot", u16::from_le_bytes([current[0], current[1]]));
    let value = variables.get(&name)?;
    let value = value.with_context(|| format!("{name}, which was booted, does not exist"))?;
    let program = load_option::program(&value).with_context(|| name.clone())?;
    let program =
        program.with_context(|| format!("{name}, which was booted, is no file on a partition"))?;
    ensure!(
        target.has(&program.path),
        "{name}, which was booted, starts {}, which is not on the partition at {}",
        program.path,
        target.root.display()
    );
    Ok(program)
}

/// The kind and the number of the entry `name`.
fn numbered(name: &str) -> Result<(&'static str, u16)> {
    for kind in ["Boot", "Driver"] {
        if let Some(number) = name.strip_prefix(kind) {
            let number = u16::from_str_radix(number, 16);
            return Ok((kind, number.with_context(|| format!("{name} is no entry"))?));
        }
    }
    bail!("{name} is no entry of the boot manager")
}

/// What `steps` make.
fn describe(way: Way, steps: &[Step]) -> Manifest {
    let mut made = Manifest {
        schema: manifest::SCHEMA.into(),
        way: way.name().into(),
        version: env!("CARGO_PKG_VERSION").into(),
        ..Manifest::default()
    };
    for step in steps {
        match step {
            Step::CreateFolder(path) => made.folders.push(path.clone()),
            Step::WriteFile(path, bytes) => made.files.push(Made::new(path, bytes)),
            Step::SetVariable(name, value) => made.variables.push(Made::new(name, value)),
            Step::SetOrder(..)
            | Step::DeleteFile(_)
            | Step::DeleteFolder(_)
            | Step::DeleteVariable(_) => {}
        }
    }
    made
}

/// Takes `steps`, or only shows them.
fn perform(target: &Target, steps: &[Step], dry_run: bool) -> Result<String> {
    let mut shown = String::new();
    for step in steps {
        if !dry_run {
            let what = "stopped here; `warmbus uninstall` removes what was made until now";
            target
                .take(step)
                .with_context(|| format!("cannot {step}; {what}"))?;
        }
        writeln!(shown, "{}{step}", if dry_run { "would " } else { "" })?;
    }
    Ok(shown)
}
