//! The console, and the firmware interface that powers the machine off: all
//! that it takes to report an error and to stop.

use alloc::string::String;
use core::ops::ControlFlow;

use super::basics::is_root_child;
use super::cells;
use crate::{MachineMemory, UartLayout};
use warmbus_fdt::{DeviceTree, FdtError, FdtNode, text, tolerate_damage_after};
use warmbus_memory::{MemoryRange, PhysAddr};

/// Register layout of a serial port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConsoleKind {
    /// Arm `PrimeCell` PL011, or the part of it that SBSA asks for.
    Pl011,
    /// 16550 and its relatives, such as the Synopsys `DesignWare` UART.
    Ns16550,
    /// The UART of i.MX from i.MX21 on.
    Imx,
    /// The low-power UART of i.MX from i.MX7ULP on.
    Lpuart,
    /// The UART of Amlogic Meson.
    Meson,
}

/// The serial port that `/chosen/stdout-path` names; where the tree has none,
/// the only one in it that is supported.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Console {
    /// Path of its node.
    pub path: String,
    /// Its registers.
    pub kind: ConsoleKind,
    /// Physical address of its first register.
    pub base: PhysAddr,
    /// Bytes of its registers.
    pub size: u64,
    /// Registers are `1 << register_shift` bytes apart (`reg-shift`), 0 to 3.
    pub register_shift: u8,
    /// Bytes of one access (`reg-io-width`): 1, 2 or 4.
    pub access_width: u8,
}

/// How PSCI is called (Arm DEN 0022).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PsciConduit {
    /// By `HVC`.
    Hvc,
    /// By `SMC`.
    Smc,
}

/// What the description of a machine says of PSCI 0.2 or later.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Psci {
    /// It cannot be read.
    #[default]
    NotKnown,
    /// There is none that may be called: no node has it, or that is disabled.
    None,
    /// It is called in this way.
    By(PsciConduit),
}

/// The console and the interface to power off. Where the tree is damaged, those
/// that come before the damage.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EarlyDevices {
    /// The console, if the tree names one that is supported.
    pub console: Option<Console>,
    /// Whether PSCI may be called, and how.
    pub psci: Psci,
}

impl EarlyDevices {
    /// Reads as much as can be read from a device tree, which may be damaged.
    #[must_use]
    pub fn from_device_tree(bytes: &[u8]) -> Self {
        DeviceTree::new(bytes).map_or_else(|_| Self::default(), |tree| Self::of(&tree))
    }

    /// The same of a tree that is open.
    pub(crate) fn of(tree: &DeviceTree<'_>) -> Self {
        let mut reader = Reader::default();
        let walked = tree.walk(&mut |node| reader.visit(node));
        // A node may be beyond the damage.
        let psci = reader.psci.unwrap_or(match walked {
            Ok(()) => Psci::None,
            Err(_) => Psci::NotKnown,
        });
        let stdout = reader.stdout.or(reader.linux_stdout);
        let stdout = tolerate_damage_after(stdout, walked);
        let console = stdout.and_then(|stdout| {
            let line = reader.bootargs.and_then(text).unwrap_or_default();
            console(tree, stdout.and_then(text), line)
        });
        Self {
            console: console.unwrap_or_default(),
            psci,
        }
    }
}

/// What one walk over a tree finds.
#[derive(Default)]
struct Reader<'a> {
    psci: Option<Psci>,
    /// The properties of `/chosen`.
    stdout: Option<&'a [u8]>,
    linux_stdout: Option<&'a [u8]>,
    bootargs: Option<&'a [u8]>,
}

impl<'a> Reader<'a> {
    fn visit(&mut self, node: &FdtNode<'_, 'a>) -> Result<ControlFlow<()>, FdtError> {
        if self.stdout.is_none() && is_root_child(node, "chosen")? {
            self.stdout = node.property("stdout-path")?;
            self.linux_stdout = node.property("linux,stdout-path")?;
            self.bootargs = node.property("bootargs")?;
        }
        // PSCI 0.1 has neither fixed function numbers nor SYSTEM_OFF.
        let names = node.compatible()?;
        let is_psci = names.lists("arm,psci-0.2") || names.lists("arm,psci-1.0");
        if is_psci && !matches!(self.psci, Some(Psci::By(_))) {
            self.psci = Some(match node.text("method")? {
                Some("hvc") if node.is_okay()? => Psci::By(PsciConduit::Hvc),
                Some("smc") if node.is_okay()? => Psci::By(PsciConduit::Smc),
                _ => Psci::None,
            });
        }
        Ok(ControlFlow::Continue(()))
    }
}

/// The port that `stdout` names, `/chosen/stdout-path`; where the tree has none,
/// one that the command line `line` gives the address or the number of.
fn console(
    tree: &DeviceTree<'_>,
    stdout: Option<&str>,
    line: &str,
) -> Result<Option<Console>, FdtError> {
    let Some(stdout) = stdout else {
        return match earlycon(tree, line) {
            None => only_port(tree, line),
            console => Ok(console),
        };
    };
    // After a colon is the line setting, which is not changed.
    let name = stdout.split(':').next().unwrap_or_default();
    let path = if name.starts_with('/') {
        name
    } else {
        match tree.root_child_property("aliases", name)?.and_then(text) {
            Some(path) => path,
            None => return Ok(None),
        }
    };
    let mut console = None;
    let walked = tree.walk(&mut |node| {
        let Some(rest) = below(node, path)? else {
            return Ok(ControlFlow::Break(()));
        };
        if rest.is_empty() && console.is_none() {
            console = port(node)?;
        }
        Ok(ControlFlow::Continue(()))
    });
    tolerate_damage_after(console, walked)
}

/// The serial port that `earlycon=` or `console=` of the command line gives the
/// address of (Linux `Documentation/admin-guide/kernel-parameters.txt`), unless
/// it would be in memory.
fn earlycon(tree: &DeviceTree<'_>, line: &str) -> Option<Console> {
    let words = line.split_whitespace();
    let console = words.take_while(|&word| word != "--").find_map(|word| {
        let value = word
            .strip_prefix("earlycon=")
            .or_else(|| word.strip_prefix("console="))?;
        let (driver, rest) = value.split_once(',')?;
        let (space, address) = rest.split_once(',').unwrap_or(("", rest));
        let address = match space {
            "mmio" | "mmio32" => address.split(',').next()?,
            // Without a space the address comes first.
            _ => rest.split(',').next()?,
        };
        let (kind, register_shift, access_width) = match (driver, space) {
            ("pl011", _) => (ConsoleKind::Pl011, 2, 4),
            ("uart" | "uart8250", "mmio") => (ConsoleKind::Ns16550, 0, 1),
            ("uart" | "uart8250", "mmio32") => (ConsoleKind::Ns16550, 2, 4),
            _ => return None,
        };
        let base = u64::from_str_radix(address.strip_prefix("0x")?, 16).ok()?;
        let last = UartLayout::of(kind, register_shift).last(access_width);
        let is_sound = base != 0
            && base.is_multiple_of(u64::from(access_width))
            && base.checked_add(last).is_some();
        is_sound.then(|| Console {
            path: word.into(),
            kind,
            base: PhysAddr(base),
            size: last + 1,
            register_shift,
            access_width,
        })
    });
    let console = console?;
    let registers = MemoryRange::new(console.base, console.size);
    let is_memory = |memory: &MachineMemory| memory.ranges.iter().any(|r| r.overlaps(registers));
    let memory = MachineMemory::of(tree).ok();
    memory.filter(|memory| !is_memory(memory)).map(|_| console)
}

/// The only serial port of a tree that is supported and may be used; of several
/// ports the one whose number the command line has, as Linux counts them.
///
/// Virtual machine monitors write no `stdout-path`.
fn only_port(tree: &DeviceTree<'_>, line: &str) -> Result<Option<Console>, FdtError> {
    let numbered = numbered_port(line);
    let mut only = None;
    let mut count = 0;
    let mut wanted = None;
    let mut before = 0;
    tree.walk(&mut |node| {
        // What is below a device that is not there is not there either.
        if !node.is_okay()? {
            return Ok(ControlFlow::Break(()));
        }
        if let Some(console) = port(node)? {
            if let Some((kind, number)) = numbered
                && console.kind == kind
            {
                if before == number {
                    wanted = Some(console.clone());
                }
                before += 1;
            }
            count += 1;
            only = Some(console);
        }
        Ok(ControlFlow::Continue(()))
    })?;
    Ok(if count > 1 { wanted } else { only })
}

/// The kind and the number of the first port that a `console=` of `line` names
/// by the name that Linux gives it. Without aliases, Linux counts the ports of a
/// driver in the order of the tree.
fn numbered_port(line: &str) -> Option<(ConsoleKind, u32)> {
    let words = line.split_whitespace().take_while(|&word| word != "--");
    let mut names = words.filter_map(|word| word.strip_prefix("console="));
    names.find_map(|name| {
        let name = name.split(',').next().unwrap_or_default();
        let (kind, number) = if let Some(number) = name.strip_prefix("ttyS") {
            (ConsoleKind::Ns16550, number)
        } else {
            (ConsoleKind::Pl011, name.strip_prefix("ttyAMA")?)
        };
        Some((kind, number.parse().ok()?))
    })
}

/// The rest of `path` below `node`; `None` where it goes through another node.
fn below<'t>(node: &FdtNode<'_, '_>, path: &'t str) -> Result<Option<&'t str>, FdtError> {
    let Some(parent) = node.parent() else {
        return Ok(Some(path.trim_matches('/')));
    };
    let Some(rest) = below(parent, path)? else {
        return Ok(None);
    };
    let (component, rest) = rest.split_once('/').unwrap_or((rest, ""));
    let name = node.name()?;
    // The unit address is optional (DT 2.2.3).
    let base = name.split('@').next().unwrap_or_default();
    let matches = !component.is_empty() && (component == name || component == base);
    Ok(matches.then_some(rest))
}

/// How a `compatible` is driven: the registers, and their shift and width where
/// the node need not say so.
type PortRow = (&'static str, ConsoleKind, Option<(u8, u8)>);

const PORTS: [PortRow; 22] = {
    use ConsoleKind::{Imx, Lpuart, Meson, Ns16550, Pl011};
    const WORDS: Option<(u8, u8)> = Some((2, 4));
    [
        ("arm,pl011", Pl011, WORDS),
        ("arm,sbsa-uart", Pl011, WORDS),
        ("snps,dw-apb-uart", Ns16550, None),
        // Before the generic names, which their nodes may have as well.
        ("mediatek,mt6577-uart", Ns16550, WORDS),
        ("ti,am654-uart", Ns16550, WORDS),
        ("ti,omap2-uart", Ns16550, WORDS),
        ("ti,omap3-uart", Ns16550, WORDS),
        ("ti,omap4-uart", Ns16550, WORDS),
        ("ti,am3352-uart", Ns16550, WORDS),
        ("ti,dra742-uart", Ns16550, WORDS),
        ("nvidia,tegra20-uart", Ns16550, WORDS),
        ("brcm,bcm2835-aux-uart", Ns16550, WORDS),
        ("fsl,imx6q-uart", Imx, WORDS),
        ("fsl,imx21-uart", Imx, WORDS),
        ("fsl,imx7ulp-lpuart", Lpuart, WORDS),
        ("fsl,imx8qxp-lpuart", Lpuart, WORDS),
        ("fsl,imx8ulp-lpuart", Lpuart, WORDS),
        ("amlogic,meson-ao-uart", Meson, WORDS),
        ("amlogic,meson-gx-uart", Meson, WORDS),
        ("ns16550a", Ns16550, None),
        ("ns16550", Ns16550, None),
        ("ns16450", Ns16550, None),
    ]
};

/// Bytes of the longest `reg` of a serial port.
const MAX_REG: usize = 256;

fn port(node: &FdtNode<'_, '_>) -> Result<Option<Console>, FdtError> {
    if !node.is_okay()? {
        return Ok(None);
    }
    let names = node.compatible()?;
    let found = PORTS.iter().find(|&&(model, ..)| names.lists(model));
    let Some(&(_, kind, registers)) = found else {
        return Ok(None);
    };
    if node.property("reg")?.is_none_or(|reg| reg.len() > MAX_REG) {
        return Ok(None);
    }
    let Ok(regions) = cells::regions(node, "reg") else {
        return Ok(None);
    };
    let Some(region) = regions.first() else {
        return Ok(None);
    };
    let offset = node.cell("reg-offset")?.unwrap_or(0);
    let shift = node.cell("reg-shift")?.unwrap_or(0);
    let width = node.cell("reg-io-width")?.unwrap_or(1);
    let base = region.start.0.checked_add(u64::from(offset));
    let (Some(base), 0..=3, 1 | 2 | 4) = (base, shift, width) else {
        return Ok(None);
    };
    let (register_shift, access_width) = registers.unwrap_or((shift as u8, width as u8));
    let aligned = base.is_multiple_of(u64::from(access_width))
        && (1 << register_shift) % u32::from(access_width) == 0;
    let last = UartLayout::of(kind, register_shift).last(access_width);
    let size = region.size.saturating_sub(u64::from(offset));
    Ok(
        (aligned && size > last && base.checked_add(last).is_some()).then(|| Console {
            path: node.path(),
            kind,
            base: PhysAddr(base),
            size,
            register_shift,
            access_width,
        }),
    )
}
