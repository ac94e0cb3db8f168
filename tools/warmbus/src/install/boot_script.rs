//! `warmbus install u-boot`: a script in the folder that U-Boot reads.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use warmbus_linux::image::ImageHeader;

use super::steps::{Step, Target};
use super::{Place, Way, perform_listed, target};
use crate::check_kernel;
use crate::u_boot::{self, Script};

/// Where the list is of what was made.
pub(super) const LIST: &str = r"\warmbus-installed.json";
const FIRMWARE: &str = "warmbus.img";
const SCRIPT: &str = r"\boot.scr";
/// What U-Boot takes before such a script (U-Boot,
/// `include/config_distro_bootcmd.h`).
const BEFORE: [&str; 2] = [r"\extlinux\extlinux.conf", r"\boot.scr.uimg"];
/// The first bytes of a flattened device tree (Devicetree Specification 5.2).
const TREE: [u8; 4] = [0xd0, 0x0d, 0xfe, 0xed];

/// What Warmbus starts. The files have to be in the folder, or below it.
#[derive(Clone, Copy, Debug)]
pub struct Started<'a> {
    /// The kernel.
    pub kernel: &'a Path,
    /// Its initrd.
    pub initrd: &'a Path,
    /// The device tree; `None` for the one that U-Boot has.
    pub tree: Option<&'a Path>,
    /// The command line of Warmbus and of the kernel.
    pub parameters: &'a str,
    /// From here on memory is free; `None` for U-Boot's `kernel_addr_r`.
    pub load_address: Option<u64>,
}

/// Installs the image in `files` in the folder at `place`, with a script that
/// has it start what is `started`.
///
/// # Errors
///
/// If it is installed already, if U-Boot would start something else, if a file is
/// not what it has to be, or if a step fails. [`super::uninstall`] removes what
/// was made until then.
pub fn install_boot_script(
    place: &Place<'_>,
    files: &Path,
    started: &Started<'_>,
) -> Result<String> {
    let target = target(place, false)?;
    target.is_free()?;
    for path in BEFORE {
        ensure!(
            !target.has(path),
            "U-Boot starts what {} says, and runs no boot.scr",
            target.file(path).display()
        );
    }
    let image = format!(r"\{FIRMWARE}");
    target.lacks(&image)?;
    target.lacks(SCRIPT)?;

    let firmware = files.join(FIRMWARE);
    let bytes = read(&firmware)?;
    ImageHeader::parse(&bytes)
        .with_context(|| format!("{} is no image of Warmbus", firmware.display()))?;
    if let Some(why) = check_kernel::refused_by_firmware(&read(started.kernel)?) {
        let kernel = started.kernel.display();
        anyhow::bail!("Warmbus does not start {kernel}: {why}");
    }
    if let Some(tree) = started.tree {
        ensure!(
            read(tree)?.starts_with(&TREE),
            "{} is no flattened device tree",
            tree.display()
        );
    }
    let kernel = below(&target, started.kernel)?;
    let initrd = below(&target, started.initrd)?;
    let tree = started.tree.map(|tree| below(&target, tree)).transpose()?;
    let script = Script {
        load_address: started.load_address,
        firmware: &bytes,
        firmware_parameters: started.parameters,
        linux_parameters: started.parameters,
        files: u_boot::Files {
            kernel: &kernel,
            initrd: &initrd,
            tree: tree.as_deref(),
        },
    };
    let script = u_boot::pack(&script.text()?);
    // The script last: until then U-Boot does what it did.
    let steps = vec![
        Step::WriteFile(image, bytes),
        Step::WriteFile(SCRIPT.to_owned(), script),
    ];
    perform_listed(Way::UBoot, &target, steps, place.dry_run)
}

fn read(file: &Path) -> Result<Vec<u8>> {
    fs::read(file).with_context(|| format!("cannot read {}", file.display()))
}

/// The name of `file` as seen from the folder.
fn below(target: &Target, file: &Path) -> Result<String> {
    let full = |path: &Path| -> Result<PathBuf> {
        path.canonicalize()
            .with_context(|| format!("cannot read {}", path.display()))
    };
    let (folder, found) = (full(&target.root)?, full(file)?);
    let name = found.strip_prefix(&folder).ok().with_context(|| {
        format!(
            "{} is not below {}, where U-Boot looks",
            found.display(),
            folder.display()
        )
    })?;
    let name = name.to_str();
    Ok(name
        .with_context(|| format!("the name of {} is no text", file.display()))?
        .to_owned())
}
