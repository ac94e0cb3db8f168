//! Configuring and building a kernel.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::patches::{Patched, Series};
use super::source::Source;
use super::{CROSS, Options, Store, VERSION, key};
use crate::progress::Progress;
use crate::{UsageError, paths, process, programs};

/// Goes into the key: to be raised when the steps of a build change.
const RECIPE: &str = "1";
/// How long a build may take on a slow machine.
const LIMIT: Duration = Duration::from_hours(4);
/// What our patches add to the configuration.
const CONSUMER: &str = "CONFIG_PCI_PCSC";
/// Their unit tests, which run with `kunit.enable=1` on the command line. They are for
/// the Linux that the series is for: others lack what some of them use.
const UNIT_TESTS: &str = "CONFIG_KUNIT=y\nCONFIG_PCI_KUNIT_TEST=y\n\
                          # CONFIG_KUNIT_DEBUGFS is not set\n\
                          # CONFIG_KUNIT_DEFAULT_ENABLED is not set\n";

/// The size of the kernel's pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PageSize {
    /// 4 KiB.
    K4,
    /// 16 KiB.
    K16,
    /// 64 KiB.
    K64,
}

impl PageSize {
    /// Reads a number of KiB.
    pub fn parse(text: &str) -> Result<Self, String> {
        [Self::K4, Self::K16, Self::K64]
            .into_iter()
            .find(|size| size.kib() == text)
            .ok_or_else(|| "pages have 4, 16 or 64 KiB".into())
    }

    fn kib(self) -> &'static str {
        match self {
            Self::K4 => "4",
            Self::K16 => "16",
            Self::K64 => "64",
        }
    }
}

/// How a kernel is compressed that unpacks itself as a program of UEFI (`zboot`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Zboot {
    /// gzip.
    Gzip,
    /// Zstandard.
    Zstd,
}

impl Zboot {
    const fn config(self) -> &'static str {
        match self {
            Self::Gzip => "CONFIG_EFI_ZBOOT=y\nCONFIG_KERNEL_GZIP=y\n",
            Self::Zstd => "CONFIG_EFI_ZBOOT=y\nCONFIG_KERNEL_ZSTD=y\n",
        }
    }
}

/// What the names of the patches that `options` select start with.
fn prefixes(options: &Options) -> &'static [&'static str] {
    match (options.consumer, options.fewer_reads) {
        (true, _) => &["a-", "b-"],
        (false, true) => &["a-"],
        (false, false) => &[],
    }
}

/// The Image for `options`, built if it is not in `store`.
pub(super) fn image(store: &Store, options: &Options) -> Result<PathBuf> {
    let wanted = paths::root().join("linux/config/warmbus.config");
    let wanted =
        fs::read_to_string(&wanted).with_context(|| format!("cannot read {}", wanted.display()))?;
    let prefixes = prefixes(options);
    let series = (!prefixes.is_empty()).then(|| Series::read(prefixes));
    let series = series.transpose()?;
    let tests = match options.version.as_str() {
        VERSION => UNIT_TESTS,
        _ => "",
    };
    let consumer = options.consumer.then(|| format!("{CONSUMER}=y\n{tests}"));
    let wanted = format!(
        "{wanted}CONFIG_ARM64_{}K_PAGES=y\n{}{}",
        options.page_size.kib(),
        consumer.unwrap_or_default(),
        options.zboot.map_or("", Zboot::config)
    );
    let compiler = process::output(programs::command(&format!("{CROSS}gcc")).arg("--version"))?;

    let mut source = Source::find(store, options, options.refresh)?;
    if let (Source::Directory(path), Some(_)) = (&source, &series) {
        return Err(UsageError(format!(
            "the series would be applied to {}: apply linux/patches there, switch {CONSUMER} on, \
             and pass neither --consumer nor --fewer-reads",
            path.display()
        ))
        .into());
    }
    let series = series.as_ref();
    let mut build = Build::new(store, &source, options, &wanted, series, &compiler);
    if matches!(source, Source::Debian { archive: None, .. }) && !build.is_done() {
        // What Debian offered once may be gone.
        source = Source::find(store, options, true)?;
        build = Build::new(store, &source, options, &wanted, series, &compiler);
    }
    if !build.is_done() || matches!(source, Source::Directory(_)) {
        build.run(&source)?;
    }
    Ok(build.image())
}

/// One build: what it is from, and where it is and goes.
struct Build<'a> {
    /// What people call it.
    label: String,
    wanted: &'a str,
    series: Option<&'a Series>,
    /// The file that `make` is to make.
    target: &'static str,
    /// What was built.
    results: PathBuf,
    /// Source and objects.
    work: PathBuf,
    /// What of its inputs source and objects are only good for.
    base: String,
}

impl<'a> Build<'a> {
    fn new(
        store: &Store,
        source: &Source,
        options: &Options,
        wanted: &'a str,
        series: Option<&'a Series>,
        compiler: &str,
    ) -> Self {
        let identity = source.identity();
        let compiler = compiler.lines().next().unwrap_or_default();
        let inputs = [RECIPE, &identity, wanted, compiler].into_iter();
        let key = key(inputs
            .chain(series.iter().flat_map(|series| series.text()))
            .map(str::as_bytes));
        let mut label = format!("{}-{}k", source.label(), options.page_size.kib());
        // Kept under one name for all revisions of a package.
        let work = match source {
            Source::Debian { package, .. } => format!("{package}-{}k", options.page_size.kib()),
            Source::Tarball { .. } | Source::Directory(_) => key.clone(),
        };
        if options.consumer {
            label += "-consumer";
        } else if options.fewer_reads {
            label += "-fewer-reads";
        }
        let target = match options.zboot {
            Some(_) => "vmlinuz.efi",
            None => "Image",
        };
        Self {
            target,
            results: store.path(&format!("{label}-{key}")),
            work: store.path(&format!("work-{work}")),
            base: format!("{RECIPE}, {identity}, {compiler}"),
            label,
            wanted,
            series,
        }
    }

    fn image(&self) -> PathBuf {
        self.results.join(self.target)
    }

    fn is_done(&self) -> bool {
        self.image().is_file()
    }

    fn run(&self, source: &Source) -> Result<()> {
        let objects = self.work.join("objects");
        self.start_over_if_stale()?;
        fs::create_dir_all(&objects)
            .with_context(|| format!("cannot make {}", objects.display()))?;
        let from = source.unpack(&self.work)?;
        if !matches!(source, Source::Directory(_)) {
            Patched::new(&from, &self.work).set(self.series)?;
        }
        let config = self.configure(&from, &objects)?;
        self.compile(&from, &objects)?;

        fs::create_dir_all(&self.results)?;
        fs::write(self.results.join("config"), config)?;
        // Under its name only once it is whole.
        let whole = self.image().with_extension("new");
        fs::copy(objects.join("arch/arm64/boot").join(self.target), &whole)
            .with_context(|| format!("the build left no {}", self.target))?;
        fs::rename(&whole, self.image())?;
        if matches!(source, Source::Tarball { .. }) {
            fs::remove_dir_all(&self.work)?;
        }
        Ok(())
    }

    /// Removes source and objects of another revision.
    fn start_over_if_stale(&self) -> Result<()> {
        let note = self.work.join("base");
        if fs::read_to_string(&note).is_ok_and(|base| base == self.base) {
            return Ok(());
        }
        if self.work.exists() {
            let step = Progress::begin("removing the source and objects of another revision");
            fs::remove_dir_all(&self.work)
                .with_context(|| format!("cannot remove {}", self.work.display()))?;
            drop(step);
        }
        fs::create_dir_all(&self.work)
            .with_context(|| format!("cannot make {}", self.work.display()))?;
        fs::write(&note, &self.base).with_context(|| format!("cannot write {}", note.display()))
    }

    fn make(from: &Path, objects: &Path) -> Command {
        let mut command = programs::command("make");
        let mut output = OsString::from("O=");
        output.push(objects);
        command
            .arg("-C")
            .arg(from)
            .arg(output)
            .args(["ARCH=arm64", &format!("CROSS_COMPILE={CROSS}")])
            // The same source makes the same Image.
            .args(["LOCALVERSION=", "KBUILD_BUILD_VERSION=1"])
            .args(["KBUILD_BUILD_USER=warmbus", "KBUILD_BUILD_HOST=warmbus"])
            .arg("KBUILD_BUILD_TIMESTAMP=1970-01-01")
            .env("LC_ALL", "C");
        // Where a `make` started this program, its ways are not ours.
        for variable in ["MAKEFLAGS", "MAKELEVEL", "MFLAGS", "KCONFIG_CONFIG"] {
            command.env_remove(variable);
        }
        command
    }

    /// Makes the configuration and returns it. Says what of it could not be.
    fn configure(&self, from: &Path, objects: &Path) -> Result<String> {
        let wanted = self.work.join("wanted.config");
        fs::write(&wanted, self.wanted)?;
        let file = objects.join(".config");
        let mut command = Self::make(from, objects);
        command
            .arg("alldefconfig")
            .env("KCONFIG_ALLCONFIG", &wanted);
        process::output(&mut command)?;
        let config =
            fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?;
        let missing = unmet(self.wanted, &config);
        if missing.iter().any(|name| name.contains("_PAGES")) {
            return Err(UsageError(format!("Linux {} cannot have such pages", self.label)).into());
        }
        if missing.contains(&CONSUMER) {
            bail!("Linux {} cannot have {CONSUMER}", self.label);
        }
        if !missing.is_empty() {
            eprintln!(
                "Linux {} does not accept these settings: {}",
                self.label,
                missing.join(", ")
            );
        }
        if missing.contains(&"CONFIG_KEXEC_HANDOVER") {
            eprintln!(
                "Linux {} has no Kexec HandOver and will be started without the cache",
                self.label
            );
        }
        Ok(config)
    }

    fn compile(&self, from: &Path, objects: &Path) -> Result<()> {
        let mut step = Progress::begin(&format!("building Linux {}, once", self.label));
        let jobs = thread::available_parallelism().map_or(1, usize::from);
        let mut command = Self::make(from, objects);
        command.args([&format!("-j{jobs}"), self.target]);
        let mut done = 0;
        process::watch(&mut command, LIMIT, |line| {
            if let Some(file) = compiled(line) {
                done += 1;
                step.so_far(&format!("{done} files, now {file}"));
            }
        })?;
        let time = step.elapsed();
        step.end(&format!(
            "built Linux {}: {done} files in {time}",
            self.label
        ));
        Ok(())
    }
}

/// The file that a line of the build names as being compiled.
fn compiled(line: &str) -> Option<&str> {
    let (tool, file) = line.trim().split_once(' ')?;
    ["CC", "AS", "HOSTCC"]
        .contains(&tool)
        .then(|| file.trim_start())
}

/// The options of `wanted` that are otherwise in `config`.
fn unmet<'a>(wanted: &'a str, config: &str) -> Vec<&'a str> {
    let set = |name: &str| {
        config.lines().find_map(|line| {
            line.strip_prefix(name)
                .and_then(|rest| rest.strip_prefix('='))
        })
    };
    wanted
        .lines()
        .filter_map(|line| {
            let off = line
                .strip_prefix("# ")
                .and_then(|line| line.strip_suffix(" is not set"));
            let (name, value) = match off {
                Some(name) => (name, None),
                None => line
                    .split_once('=')
                    .filter(|_| line.starts_with("CONFIG_"))
                    .map(|(name, value)| (name, Some(value)))?,
            };
            (set(name) != value).then_some(name)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_version_has_otherwise_is_named() {
        let wanted = "# CONFIG_ALL is a comment\nCONFIG_A=y\nCONFIG_AB=y\nCONFIG_C=64\n# CONFIG_D is not set\n# CONFIG_E is not set\n";
        let config = "CONFIG_A=y\nCONFIG_C=4\nCONFIG_D=m\n# CONFIG_E is not set\n";
        assert_eq!(unmet(wanted, config), ["CONFIG_AB", "CONFIG_C", "CONFIG_D"]);
    }

    #[test]
    fn only_lines_of_compilers_count() {
        let file = compiled("  CC      drivers/pci/probe.o");
        assert_eq!(file, Some("drivers/pci/probe.o"));
        let file = compiled("  HOSTCC  scripts/kconfig/conf.o");
        assert_eq!(file, Some("scripts/kconfig/conf.o"));
        assert_eq!(compiled("  CALL    scripts/checksyscalls.sh"), None);
        assert_eq!(compiled(""), None);
    }

    #[test]
    fn the_page_sizes_are_those_of_arm64() {
        for text in ["4", "16", "64"] {
            assert_eq!(PageSize::parse(text).unwrap().kib(), text);
        }
        assert!(PageSize::parse("8").is_err());
    }
}
