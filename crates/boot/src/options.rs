//! What the boot arguments ask of Warmbus.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::time::Duration;

use log::LevelFilter;

use warmbus_kho::KhoAbi;
use warmbus_linux::command_line::{parameters, switches_cache_off};
use warmbus_memory::MemoryRange;
use warmbus_memory::PhysAddr;
use warmbus_pci::{Sbdf, VfPolicy, VfScope};

/// Which version of the Kexec HandOver ABI the cache is handed over with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum KhoChoice {
    /// The one that the kernel image names, if it names one.
    #[default]
    Auto,
    /// None: Linux is started without the cache.
    Off,
    /// None, as Linux was asked not to use it.
    UnusedByLinux,
    /// The one that the kernel image names, where a name that is not known
    /// stands for the layout of `kho-v4`.
    LikeV4,
    /// This one, whatever the kernel image names.
    Abi(KhoAbi),
}

impl KhoChoice {
    /// The choice for a Linux with this command line: where nobody chose, a cache
    /// that Linux would only free is not handed over.
    #[must_use]
    pub fn for_linux(self, command_line: &str) -> Self {
        if self == Self::Auto && switches_cache_off(command_line) {
            Self::UnusedByLinux
        } else {
            self
        }
    }
}

/// What is printed for people beside the few lines of every boot. A serial
/// port of 115,200 baud takes a second for 11 KB.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Show {
    /// The hierarchy: host bridges, and a line for each function.
    pub tree: bool,
    /// The totals, and the time of each phase.
    pub summary: bool,
}

impl Show {
    /// The words between the commas of `warmbus.show=`.
    fn parse(words: &str) -> Option<Self> {
        let mut show = Self::default();
        for word in words.split(',') {
            match word {
                "tree" => show.tree = true,
                "summary" => show.summary = true,
                _ => return None,
            }
        }
        Some(show)
    }
}

/// What the boot arguments ask for. Every switch is off and every number is
/// `None` unless its word is there.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is one independent word of the command line"
)]
pub struct Options {
    /// `warmbus.loglevel=`: what is logged; `info` unless said otherwise.
    pub log_level: LevelFilter,
    /// `warmbus.preserve`: leave bus numbers and BARs as they are found.
    pub preserve: bool,
    /// `warmbus.controllers`: also use host bridges whose own registers are in
    /// the way, which only answer once a loader has set them up.
    pub controllers: bool,
    /// `warmbus.verify`: read everything again and compare it with the cache.
    pub verify: bool,
    /// `warmbus.report`: print the JSON report on the console.
    pub report: bool,
    /// `warmbus.show=`: what else is printed for people.
    pub show: Show,
    /// `warmbus.lspci`: print a dump that `lspci -F` reads.
    pub lspci: bool,
    /// `warmbus.hotplug_buses=`: buses to keep free below a hot-plug port, 0
    /// to 255.
    pub hotplug_buses: Option<u8>,
    /// `warmbus.wait=`: how long a device that is not ready is waited for, in
    /// milliseconds.
    pub wait: Option<Duration>,
    /// The same for single ports, `warmbus.wait=SBDF=MILLISECONDS`, which are
    /// waited for even while they are empty.
    pub port_waits: Vec<(Sbdf, Duration)>,
    /// `warmbus.probe_only`: stop before Linux, even if there is one.
    pub probe_only: bool,
    /// `warmbus.kho=`: `auto`, `off`, `v1`, `v3`, `v4` or `like-v4`; `auto`
    /// unless said otherwise.
    pub kho: KhoChoice,
    /// `warmbus.vfs=`: which virtual functions are captured: `off`, `found`,
    /// `all`, or physical functions with how many each, and `keep`; those that
    /// are found enabled unless said otherwise.
    pub vfs: VfPolicy,
    /// `warmbus.kernel=ADDRESS,SIZE`: where a loader that cannot say so in the
    /// device tree has put the kernel; address and bytes, the latter not 0.
    pub kernel: Option<MemoryRange>,
    /// `warmbus.initrd=ADDRESS,SIZE`: the same for the initrd.
    pub initrd: Option<MemoryRange>,
    /// `warmbus.kernel=` is there, whether it is understood or not: Linux is
    /// to be started.
    pub names_kernel: bool,
    /// What could not be understood, as sentences.
    pub warnings: Vec<String>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            log_level: LevelFilter::Info,
            preserve: false,
            controllers: false,
            verify: false,
            report: false,
            show: Show::default(),
            lspci: false,
            hotplug_buses: None,
            wait: None,
            port_waits: Vec::new(),
            probe_only: false,
            kho: KhoChoice::Auto,
            vfs: VfPolicy::default(),
            kernel: None,
            initrd: None,
            names_kernel: false,
            warnings: Vec::new(),
        }
    }
}

impl Options {
    /// Reads the words that start with `warmbus.` from a kernel command line.
    ///
    /// The line is shared with Linux: all other words, and everything after
    /// `--`, are not looked at. Of a word that is there twice the last one
    /// counts. A word that is not understood becomes a warning.
    #[must_use]
    pub fn from_bootargs(bootargs: &str) -> Self {
        let mut options = Self::default();
        for word in parameters(bootargs).take_while(|&word| word != "--") {
            let Some(setting) = word.strip_prefix("warmbus.") else {
                continue;
            };
            options.names_kernel |= setting.starts_with("kernel");
            if !options.set(setting) {
                options
                    .warnings
                    .push(format!("the boot argument \"{word}\" is not understood"));
            }
        }
        options
    }

    /// The kernel and the initrd that `bootargs` name by `warmbus.kernel=` and
    /// `warmbus.initrd=`. Nothing is allocated for that, however long the
    /// command line is.
    #[must_use]
    pub fn modules_in(bootargs: &str) -> [Option<MemoryRange>; 2] {
        let mut modules = [None; 2];
        for word in parameters(bootargs).take_while(|&word| word != "--") {
            for (module, name) in modules.iter_mut().zip(["kernel=", "initrd="]) {
                let place = word.strip_prefix("warmbus.");
                let place = place.and_then(|setting| setting.strip_prefix(name));
                *module = place.and_then(region).or(*module);
            }
        }
        modules
    }

    /// Applies one word; `false` where it is not understood.
    fn set(&mut self, setting: &str) -> bool {
        match setting.split_once('=') {
            None => {
                let switch = match setting {
                    "preserve" => &mut self.preserve,
                    "controllers" => &mut self.controllers,
                    "verify" => &mut self.verify,
                    "report" => &mut self.report,
                    "lspci" => &mut self.lspci,
                    "probe_only" => &mut self.probe_only,
                    _ => return false,
                };
                *switch = true;
                true
            }
            Some(("loglevel", level)) => {
                // LevelFilter itself would also take other spellings.
                let lower = !level.bytes().any(|byte| byte.is_ascii_uppercase());
                let level = level.parse().ok().filter(|_| lower);
                level.map(|level| self.log_level = level).is_some()
            }
            // For the test Linux, where both have one command line.
            Some(("test", _)) => true,
            Some(("hotplug_buses", number)) => {
                let number = number.parse().ok();
                self.hotplug_buses = number.or(self.hotplug_buses);
                number.is_some()
            }
            Some(("show", words)) => Show::parse(words).map(|show| self.show = show).is_some(),
            Some(("wait", words)) => self.set_waits(words).is_some(),
            Some((what @ ("kernel" | "initrd"), place)) => {
                let module = region(place);
                let kept = match what {
                    "kernel" => &mut self.kernel,
                    _ => &mut self.initrd,
                };
                *kept = module.or(*kept);
                module.is_some()
            }
            Some(("kho", choice)) => {
                self.kho = match choice {
                    "auto" => KhoChoice::Auto,
                    "off" => KhoChoice::Off,
                    "like-v4" => KhoChoice::LikeV4,
                    "v1" => KhoChoice::Abi(KhoAbi::V1),
                    "v3" => KhoChoice::Abi(KhoAbi::V3),
                    "v4" => KhoChoice::Abi(KhoAbi::V4),
                    _ => return false,
                };
                true
            }
            Some(("vfs", words)) => {
                let policy = vf_policy(words);
                let is_understood = policy.is_some();
                self.vfs = policy.unwrap_or_else(|| core::mem::take(&mut self.vfs));
                is_understood
            }
            Some(_) => false,
        }
    }
}

impl Options {
    /// Applies the words between the commas of `warmbus.wait=`, all or none.
    fn set_waits(&mut self, words: &str) -> Option<()> {
        let mut wait = self.wait;
        let mut ports = self.port_waits.clone();
        for word in words.split(',') {
            let (port, milliseconds) = match word.split_once('=') {
                None => (None, word),
                Some((port, milliseconds)) => (Some(port.parse().ok()?), milliseconds),
            };
            let milliseconds: u32 = milliseconds.parse().ok()?;
            let time = Duration::from_millis(milliseconds.into());
            match port {
                None => wait = Some(time),
                Some(port) => ports.push((port, time)),
            }
        }
        (self.wait, self.port_waits) = (wait, ports);
        Some(())
    }
}

/// The words between the commas of `warmbus.vfs=`.
fn vf_policy(words: &str) -> Option<VfPolicy> {
    let mut policy = VfPolicy::default();
    for word in words.split(',') {
        match word {
            "off" => policy.scope = VfScope::Off,
            "found" => policy.scope = VfScope::Found,
            "all" => policy.scope = VfScope::All,
            "keep" => policy.keep = true,
            listed => {
                let (function, count) = listed.split_once('=')?;
                let function: Sbdf = function.parse().ok()?;
                policy.listed.push((function, count.parse().ok()?));
            }
        }
    }
    Some(policy)
}

/// `ADDRESS,SIZE`, each decimal or, with `0x`, hexadecimal.
fn region(text: &str) -> Option<MemoryRange> {
    let number = |text: &str| match text.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16).ok(),
        None => text.parse().ok(),
    };
    let (base, size) = text.split_once(',')?;
    let (base, size) = (number(base)?, number(size)?);
    base.checked_add(size.checked_sub(1)?)?;
    Some(MemoryRange::new(PhysAddr(base), size))
}

#[cfg(test)]
mod tests;
