//! The command line of a machine, and what starts it.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::{Machine, Payload, Start};
use crate::process::words;
use crate::qemu::{Running, uefi};
use crate::{process, programs, setup};

impl Machine {
    /// The command that starts QEMU.
    #[must_use]
    pub fn command(&self) -> Command {
        // QEMU must not outlive its parent, even one that was killed.
        let mut command = programs::command("setpriv");
        command.args(["--pdeathsig", "KILL", "--", "qemu-system-aarch64"]);
        if programs::find("setpriv").is_none() {
            command = programs::command("qemu-system-aarch64");
        }
        command
            .args(setup::qemu_data())
            .args([
                "-M",
                &self.options.join(","),
                "-cpu",
                &self.cpu,
                "-m",
                &self.memory,
            ])
            .args(["-smp", &self.smp.to_string()])
            // No default network card: only the devices of the topology are on PCIe.
            .args(["-nic", "none", "-display", "none"]);
        if self.interactive {
            command.args(["-serial", "mon:stdio"]);
        } else {
            command.args(["-monitor", "none", "-serial", "stdio"]);
        }
        command.arg("-no-reboot");
        match &self.start {
            Start::Kernel(image) => {
                command.arg("-kernel").arg(image);
                if !self.bootargs.is_empty() {
                    command.args(["-append", &self.bootargs.join(" ")]);
                }
            }
            Start::Bios(bios) => drop(command.arg("-bios").arg(bios)),
            Start::Uefi {
                directory, code, ..
            } => drop(command.args(uefi::arguments(directory, code.as_deref()))),
            Start::Loaders => {}
        }
        if let Some(file) = &self.device_tree {
            command.arg("-dtb").arg(file);
        }
        for loader in &self.loaders {
            command.args(["-device", &format!("loader,{loader}")]);
        }
        // From UEFI it comes on the volume.
        let payload = match &self.start {
            Start::Uefi { .. } => None,
            _ => self.payload.as_ref(),
        };
        for device in payload.into_iter().flat_map(Payload::arguments) {
            command.args(["-device", &device]);
        }
        if self.trace {
            command.args([
                "-trace",
                "memory_region_ops_read",
                "-trace",
                "memory_region_ops_write",
            ]);
        }
        if let Some(shift) = self.instruction_time {
            command.args(["-icount", &format!("shift={shift},sleep=off")]);
        }
        if self.time_stamps {
            command.args(["-msg", "timestamp=on"]);
        }
        if let Some(path) = &self.qmp {
            command.arg("-no-shutdown");
            command.args([
                "-qmp",
                &format!("unix:{},server=on,wait=off", path.display()),
            ]);
        }
        command.args(&self.devices).args(&self.extra);
        command
    }

    /// Writes the device tree that QEMU makes for this machine to `file`.
    pub fn dump_device_tree(&self, file: &Path) -> Result<()> {
        let mut machine = self.clone();
        machine.options.push(format!("dumpdtb={}", file.display()));
        process::output(&mut machine.command()).map(drop)
    }

    /// Runs QEMU on the terminal of this program until it ends. Fails unless
    /// its exit status is 0.
    pub fn interact(&self) -> Result<()> {
        self.prepare()?;
        let mut command = self.clone().interactive().command();
        let status = command
            .status()
            .with_context(|| format!("cannot start {}", words(&command)))?;
        if !status.success() {
            bail!("QEMU failed ({status})");
        }
        Ok(())
    }

    /// Makes the files that the machine starts from.
    pub(in crate::qemu) fn prepare(&self) -> Result<()> {
        match &self.start {
            Start::Uefi {
                image,
                how,
                signed,
                directory,
                is_made: false,
                ..
            } => uefi::prepare(
                directory,
                (image, *how),
                *signed,
                self.payload.as_ref(),
                &self.bootargs.join(" "),
            ),
            _ => Ok(()),
        }
    }

    /// Starts QEMU.
    pub fn start(&self) -> Result<Running> {
        self.prepare()?;
        Running::start(&mut self.command(), self.qmp.as_deref())
    }
}
