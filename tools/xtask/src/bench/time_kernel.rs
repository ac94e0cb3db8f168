//! Where the kernels that are measured have the functions at which they are stopped.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Result, ensure};
use warmbus_boot::report::console::Event;

use crate::qemu::Machine;

/// Functions of Linux where a part of its work begins or ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Function {
    /// Its first function in C.
    StartKernel,
    /// Sets up all of PCI by a device tree.
    GenericPci,
    /// Sets up all of PCI by ACPI, and what else ACPI has.
    Acpi,
    /// Starts the first process.
    RunInitProcess,
    /// Starts the next kernel.
    Kexec,
    /// Creates virtual functions.
    CreateVfs,
    /// Gives the processor to another process.
    Yield,
    /// Waits for milliseconds.
    Sleep,
    /// Waits for a time between two.
    SleepRange,
}

impl Function {
    const ALL: [Self; 9] = [
        Self::StartKernel,
        Self::GenericPci,
        Self::Acpi,
        Self::RunInitProcess,
        Self::Kexec,
        Self::CreateVfs,
        Self::Yield,
        Self::Sleep,
        Self::SleepRange,
    ];

    const fn name(self) -> &'static str {
        match self {
            Self::StartKernel => "start_kernel",
            Self::GenericPci => "gen_pci_driver_init",
            Self::Acpi => "acpi_init",
            Self::RunInitProcess => "run_init_process",
            Self::Kexec => "kernel_kexec",
            Self::CreateVfs => "sriov_numvfs_store",
            Self::Yield => "__arm64_sys_sched_yield",
            Self::Sleep => "msleep",
            Self::SleepRange => "usleep_range_state",
        }
    }
}

/// A kernel, and where its functions are.
pub(super) struct Kernel {
    image: PathBuf,
    functions: BTreeMap<Function, u64>,
}

impl Kernel {
    /// Boots `image` once to ask it where its functions are, on the machine that has it
    /// do these steps.
    pub(super) fn ask(
        image: PathBuf,
        machine: impl FnOnce(&Path, &str) -> Machine,
    ) -> Result<Self> {
        let steps = Function::ALL.map(|function| format!("symbol:{},", function.name()));
        let mut running = machine(&image, &steps.concat()).start()?;
        let mut functions = BTreeMap::new();
        while let Some(event) = running.event()? {
            let Event::Text(text) = &event else {
                continue;
            };
            let words: Vec<_> = text.split_whitespace().collect();
            if let [.., "symbol", address, name] = words[..]
                && let Some(found) = Function::ALL.iter().find(|one| one.name() == name)
            {
                functions.insert(*found, u64::from_str_radix(address, 16)?);
            }
        }
        running.end()?;
        for function in Function::ALL {
            let name = function.name();
            let is_there = functions.contains_key(&function);
            ensure!(is_there, "{} has no function {name}", image.display());
        }
        Ok(Self { image, functions })
    }

    /// Its file.
    pub(super) fn image(&self) -> &Path {
        &self.image
    }

    /// The virtual address of `function`.
    pub(super) fn at(&self, function: Function) -> u64 {
        self.functions[&function]
    }
}
