//! `warmbus check-kernel`: what a kernel would be handed over, and why not. The
//! answers are those of the code in the firmware.

mod packing;

pub(crate) use packing::refused_by_firmware;

use std::fmt::Write;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use serde_json::{Value, json};
use warmbus_boot::decide::{Decision, Facts, KernelFacts, PreviousFacts, SurveyFacts, decide};
use warmbus_boot::options::KhoChoice;
use warmbus_kho::KhoAbi;
use warmbus_linux::detect::{self, DetectError};
use warmbus_linux::image::ImageHeader;
use warmbus_machine::Source;
use warmbus_memory::PageSize;

use crate::Verdict;

/// The options of the configuration that are shown, if they are set.
const SHOWN_OPTIONS: &[&str] = &[
    "CONFIG_KEXEC_HANDOVER",
    "CONFIG_KEXEC_HANDOVER_DEBUGFS",
    "CONFIG_KEXEC_FILE",
    "CONFIG_PCI",
    "CONFIG_PCI_ECAM",
    "CONFIG_PCI_HOST_GENERIC",
    "CONFIG_PCI_IOV",
];

/// What an arm64 kernel says of itself.
struct Kernel {
    layers: Vec<&'static str>,
    command_line: Option<String>,
    release: Option<String>,
    page_size: Result<PageSize, DetectError>,
    abi: Result<Option<KhoAbi>, DetectError>,
    keeps_scratch_with_uefi: bool,
    has_series: bool,
    efi_stub: bool,
    /// The options of [`SHOWN_OPTIONS`] with their values; `None` without an
    /// embedded configuration.
    configuration: Option<Vec<(&'static str, String)>>,
    /// Why the firmware does not start the file as its payload.
    refused: Option<String>,
}

impl Kernel {
    /// Reads the kernel in the file `path`.
    fn load(path: &Path) -> Result<Self> {
        let name = path.display();
        let file = fs::read(path).with_context(|| format!("cannot read {name}"))?;
        Self::parse(&file).with_context(|| format!("{name} is not a complete arm64 kernel"))
    }

    fn parse(file: &[u8]) -> Result<Self> {
        let unpacked = packing::unpack(file)?;
        let image = &unpacked.image;
        let header = ImageHeader::parse(image)?;
        header.check_file(image.len() as u64)?;
        let efi_stub = packing::efi_stub(image)?;
        let configuration = packing::configuration(image).map(|text| {
            let value = |option: &&'static str| {
                let set = text
                    .lines()
                    .find_map(|line| line.strip_prefix(*option)?.strip_prefix('='));
                (*option, set.unwrap_or("n").to_string())
            };
            SHOWN_OPTIONS.iter().map(value).collect()
        });
        Ok(Self {
            release: detect::release(image).map(str::to_string),
            page_size: detect::page_size(&header),
            abi: detect::detect(image),
            keeps_scratch_with_uefi: detect::keeps_scratch_with_uefi(image),
            has_series: detect::supports_pcsc_extension(image),
            efi_stub,
            configuration,
            refused: packing::refused_by_firmware(file),
            layers: unpacked.layers,
            command_line: unpacked.command_line,
        })
    }

    /// What the firmware decides for this kernel, on a machine with nothing
    /// that would be in the way.
    fn decision(&self, source: Source, previous: PreviousFacts) -> Result<KhoAbi, String> {
        let facts = Facts {
            requested: KhoChoice::Auto,
            may_probe_vfs: false,
            source,
            pci_word: None,
            survey: Some(SurveyFacts {
                captured: 1,
                usable: 1,
                ..SurveyFacts::default()
            }),
            previous,
            page_size: self.page_size.clone(),
        };
        let kernel = KernelFacts {
            abi: self.abi.clone(),
            abi_name: None,
            keeps_scratch_with_uefi: self.keeps_scratch_with_uefi,
            reads_vf_routing: self.has_series,
        };
        match decide(&facts, &kernel, Ok(())) {
            Decision::Handover(handover) => Ok(handover.abi),
            Decision::Without(refusal) => Err(refusal.to_string()),
        }
    }

    /// What this kernel hands over when it is running, as far as its image says.
    fn as_previous(&self) -> PreviousFacts {
        match (&self.abi, &self.page_size) {
            (Ok(None), _) => PreviousFacts::Nothing,
            // Two layouts have the name kho-v1, so it is never read back.
            (Ok(Some(abi)), Ok(page_size)) if abi.has_radix_tree() => PreviousFacts::Readable {
                page_size: *page_size,
            },
            _ => PreviousFacts::Unreadable,
        }
    }
}

/// Describes the kernel in the file `image`, for a start by kexec from the
/// kernel in the file `from` if there is one. The verdict is for a machine with
/// a device tree or, with `acpi`, for one with ACPI; it is bad as well if the
/// firmware does not start the file as it is packed.
pub fn run(image: &Path, from: Option<&Path>, acpi: bool, json: bool) -> Result<(String, Verdict)> {
    let kernel = Kernel::load(image)?;
    let previous = from.map(Kernel::load).transpose()?;
    let previous = previous.map_or(PreviousFacts::Nothing, |kernel| kernel.as_previous());
    let tree = kernel.decision(Source::DeviceTree, previous);
    let tables = kernel.decision(Source::Acpi, previous);
    let chosen = if acpi { &tables } else { &tree };
    let verdict = if chosen.is_ok() && kernel.refused.is_none() {
        Verdict::Good
    } else {
        Verdict::Bad
    };
    let text = if json {
        format!("{:#}\n", to_json(&kernel, &tree, &tables))
    } else {
        to_text(&kernel, &tree, &tables)
    };
    Ok((text, verdict))
}

fn to_json(
    kernel: &Kernel,
    tree: &Result<KhoAbi, String>,
    tables: &Result<KhoAbi, String>,
) -> Value {
    let with = |decision: &Result<KhoAbi, String>| match decision {
        Ok(abi) => json!({ "handover": abi.to_string(), "reason": null }),
        Err(reason) => json!({ "handover": null, "reason": reason }),
    };
    let abi = match &kernel.abi {
        Ok(abi) => abi.map(|abi| abi.to_string()),
        Err(DetectError::Unknown { found }) => Some(found.clone()),
        Err(_) => None,
    };
    let configuration = kernel.configuration.as_ref().map(|options| {
        let options = options
            .iter()
            .map(|(name, value)| ((*name).to_string(), json!(value)));
        options.collect::<serde_json::Map<_, _>>()
    });
    json!({
        "schema": "warmbus-check-kernel/1",
        "packings": kernel.layers,
        "release": kernel.release,
        "page_size": kernel.page_size.as_ref().ok().map(|size| size.bytes()),
        "kho": abi,
        "reads_cache": kernel.has_series,
        "efi_stub": kernel.efi_stub,
        "command_line": kernel.command_line,
        "configuration": configuration,
        "refused_as_payload": kernel.refused,
        "device_tree": with(tree),
        "acpi": with(tables),
    })
}

fn to_text(
    kernel: &Kernel,
    tree: &Result<KhoAbi, String>,
    tables: &Result<KhoAbi, String>,
) -> String {
    let mut out = String::new();
    let mut row = |name: &str, value: &str| {
        // Writing to a string cannot fail.
        let _ = writeln!(out, "{name:<14} {value}");
    };
    let with = |decision: &Result<KhoAbi, String>| match decision {
        Ok(abi) => format!("the cache is handed over as {abi}"),
        Err(reason) => format!("nothing is handed over: {reason}"),
    };
    let sentence =
        |result: Result<String, &DetectError>| result.unwrap_or_else(ToString::to_string);
    let or_unknown = |text: &Option<String>| text.clone().unwrap_or_else(|| "unknown".to_string());
    row("release", &or_unknown(&kernel.release));
    let packings = if kernel.layers.is_empty() {
        "none".to_string()
    } else {
        kernel.layers.join(", then ")
    };
    row("packed in", &packings);
    let pages = kernel.page_size.as_ref().map(ToString::to_string);
    row("pages", &sentence(pages));
    let abi = kernel.abi.as_ref().map(|abi| match abi {
        Some(abi) => abi.to_string(),
        None => "none".to_string(),
    });
    row("Kexec HandOver", &sentence(abi));
    let reads = if kernel.has_series {
        "read by this kernel, which has the series B of linux/patches"
    } else {
        "not read by this kernel, which does not have the series B of linux/patches"
    };
    row("cache", reads);
    row("EFI stub", if kernel.efi_stub { "yes" } else { "no" });
    if let Some(line) = &kernel.command_line {
        row("command line", line);
    }
    match &kernel.configuration {
        None => row("configuration", "not in the image (CONFIG_IKCONFIG)"),
        Some(options) => {
            for (name, value) in options {
                row("configuration", &format!("{name}={value}"));
            }
        }
    }
    row(
        "as payload",
        &kernel.refused.as_ref().map_or_else(
            || "can be started".to_string(),
            |reason| format!("not started in this packing: {reason}"),
        ),
    );
    if kernel.refused.is_some() {
        row("once unpacked", "the firmware decides as follows");
    }
    row("device tree", &with(tree));
    row("ACPI", &with(tables));
    if tree.is_ok() || tables.is_ok() {
        row("needs", "kho=on on the kernel command line");
    }
    out
}
