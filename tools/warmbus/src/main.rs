//! `warmbus`: see `warmbus --help`.

mod command;
mod generate;

use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::Parser;
use warmbus_cli::input::{Capture, Place};
use warmbus_cli::{
    Verdict, check_kernel, diff, inspect, install, lspci, replay, status, survey, view,
};

use command::{Command, Task};

fn main() -> ExitCode {
    // Usage errors end with status 2 here.
    let command = Command::parse();
    match run(command.task) {
        Ok(Verdict::Good) => ExitCode::SUCCESS,
        Ok(Verdict::Bad) => ExitCode::from(1),
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::from(2)
        }
    }
}

fn run(task: Task) -> Result<Verdict> {
    let (text, verdict) = match task {
        Task::Survey {
            vfs,
            samples,
            sysfs,
            progress,
            json,
        } => {
            let options = survey::Options {
                sysfs: &sysfs,
                samples: samples as usize,
                vfs,
                progress,
                json,
            };
            (survey::run(&options)?, Verdict::Good)
        }
        Task::Status {
            boot: true, place, ..
        } => install::state(&place.place(None, true))?,
        Task::Status {
            sysfs,
            proc,
            log,
            json,
            ..
        } => status::run(&status::Options {
            sysfs: &sysfs,
            proc: &proc,
            log: log.as_deref(),
            json,
        })?,
        Task::Install {
            way,
            place,
            started,
            files,
            next,
            dry_run,
        } => {
            let place = place.place(Some(way), dry_run);
            let done = match way {
                install::Way::UBoot => started.install(&place, &files)?,
                _ => install::install(way, &place, &files, next.as_deref())?,
            };
            (done, Verdict::Good)
        }
        Task::Uninstall { place, dry_run } => (
            install::uninstall(&place.place(None, dry_run))?,
            Verdict::Good,
        ),
        Task::Generate { what, output } => (what.write(output.as_deref())?, Verdict::Good),
        Task::CheckKernel {
            image,
            from,
            acpi,
            json,
        } => check_kernel::run(&image, from.as_deref(), acpi, json)?,
        Task::Inspect {
            capture,
            place,
            function,
            json,
        } => {
            let capture = Capture::load(&capture, place.into())?;
            inspect::run(&capture, function, json)?
        }
        Task::Lspci {
            capture,
            place,
            json,
        } => lspci::run(&Capture::load(&capture, place.into())?, json)?,
        Task::View {
            file,
            place,
            output,
        } => (page(&file, place.into(), output.as_deref())?, Verdict::Good),
        Task::Diff { a, b, place, json } => {
            let place = Place::from(place);
            diff::run(&Capture::load(&a, place)?, &Capture::load(&b, place)?, json)
        }
        Task::Replay {
            trace,
            cache,
            place,
            segment,
            top,
            json,
        } => {
            let accesses = replay::read_trace(&trace)?;
            let capture = Capture::load(&cache, place.into())?;
            replay::run(&accesses, &capture, segment, top, json)?
        }
    };
    match io::stdout().write_all(text.as_bytes()) {
        // The reader of the pipe has closed it.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {}
        written => written.context("cannot write the result")?,
    }
    Ok(verdict)
}

/// The page for `file`, or nothing where it was written to `output`.
fn page(file: &Path, place: Place, output: Option<&Path>) -> Result<String> {
    let page = view::run(file, place)?;
    let Some(output) = output else {
        return Ok(page);
    };
    std::fs::write(output, page).with_context(|| format!("cannot write {}", output.display()))?;
    Ok(String::new())
}
