//! What a kernel file is packed in: gzip, zstd, EFI zboot, a unified kernel
//! image, or the ELF file of the build.

use anyhow::{Context, Result, bail, ensure};
use object::elf::{EM_AARCH64, PT_LOAD};
use object::pe::{IMAGE_FILE_MACHINE_ARM64, ImageNtHeaders64};
use object::read::elf::{ElfFile64, FileHeader, ProgramHeader};
use object::read::pe::{PeFile, PeFile64};
use object::{Endianness, Object, ObjectSection};
use ruzstd::decoding::StreamingDecoder;
use std::io::Read;
use warmbus_linux::decompress::KernelFormat;
use warmbus_linux::image::ImageHeader;

/// Most bytes of a decompressed kernel: a kernel that claims more is damaged.
const MAX_KERNEL: usize = 512 << 20;

/// Most packings around each other. A unified kernel image around a zboot file
/// has two.
const MAX_LAYERS: usize = 4;

/// A kernel without its packings.
pub(super) struct Unpacked {
    /// The packings, the outermost first.
    pub(super) layers: Vec<&'static str>,
    /// The `Image`.
    pub(super) image: Vec<u8>,
    /// The command line in a unified kernel image.
    pub(super) command_line: Option<String>,
}

/// Unpacks `file`. An error names what is damaged, or the packing that this
/// program does not read.
pub(super) fn unpack(file: &[u8]) -> Result<Unpacked> {
    let mut layers = Vec::new();
    let mut command_line = None;
    let mut bytes = file.to_vec();
    loop {
        let (layer, inner) = if bytes.starts_with(b"\x1f\x8b") {
            (
                "gzip",
                KernelFormat::detect(&bytes)?.decompress(MAX_KERNEL)?,
            )
        } else if bytes.starts_with(b"\x28\xb5\x2f\xfd") {
            ("zstd", zstd(&bytes)?)
        } else if bytes.starts_with(b"MZ") && bytes.get(4..8) == Some(b"zimg") {
            zboot(&bytes)?
        } else if bytes.starts_with(b"\x7fELF") {
            ("vmlinux", vmlinux(&bytes)?)
        } else if let Some(kernel) = unified(&bytes, &mut command_line)? {
            ("UKI", kernel)
        } else {
            return Ok(Unpacked {
                layers,
                image: bytes,
                command_line,
            });
        };
        ensure!(
            layers.len() < MAX_LAYERS,
            "more than {MAX_LAYERS} packings are around each other"
        );
        layers.push(layer);
        bytes = inner;
    }
}

fn zstd(bytes: &[u8]) -> Result<Vec<u8>> {
    let damaged = "the kernel compressed with zstd is damaged or cut off";
    let mut image = Vec::new();
    let mut decoder = StreamingDecoder::new(bytes).context(damaged)?;
    (&mut decoder)
        .take(MAX_KERNEL as u64 + 1)
        .read_to_end(&mut image)
        .context(damaged)?;
    ensure!(
        image.len() <= MAX_KERNEL,
        "the decompressed kernel has more than {MAX_KERNEL:#x} bytes"
    );
    if let Some(stored) = decoder.decoder.get_checksum_from_data() {
        let computed = decoder.decoder.get_calculated_checksum();
        ensure!(
            computed == Some(stored),
            "the checksum of the decompressed kernel is {:#010x} instead of {stored:#010x}",
            computed.unwrap_or_default()
        );
    }
    Ok(image)
}

/// The payload of an EFI zboot file (`drivers/firmware/efi/libstub/zboot-header.S`):
/// its offset is at 8, its size at 12, the name of the compression at 24.
fn zboot(file: &[u8]) -> Result<(&'static str, Vec<u8>)> {
    let name = file.get(24..56).context("the EFI zboot file is cut off")?;
    if name.split(|byte| *byte == 0).next() != Some(b"zstd") {
        let packed = KernelFormat::detect(file)?;
        return Ok(("zboot with gzip", packed.decompress(MAX_KERNEL)?));
    }
    let field = |at: usize| {
        let bytes = file[at..at + 4].try_into().unwrap_or_default();
        u32::from_le_bytes(bytes) as usize
    };
    let (offset, size) = (field(8), field(12));
    let payload = offset
        .checked_add(size)
        .and_then(|end| file.get(offset..end))
        .with_context(|| {
            format!(
                "the EFI zboot file is cut off: its payload is {size:#x} bytes at {offset:#x}, and the file has {:#x}",
                file.len()
            )
        })?;
    Ok(("zboot with zstd", zstd(payload)?))
}

/// The bytes in memory of an arm64 `vmlinux`: its loadable segments by their
/// physical addresses. That is how the build makes the `Image`.
fn vmlinux(bytes: &[u8]) -> Result<Vec<u8>> {
    let file = ElfFile64::<Endianness>::parse(bytes).context("the ELF file is damaged")?;
    let endian = file.endian();
    let machine = file.elf_header().e_machine(endian);
    ensure!(
        machine == EM_AARCH64,
        "the ELF file is for machine {machine}, not for arm64 ({EM_AARCH64})"
    );
    let segments = file.elf_program_headers();
    let loaded = segments
        .iter()
        .filter(|segment| segment.p_type(endian) == PT_LOAD && segment.p_filesz(endian) != 0);
    let start = loaded
        .clone()
        .map(|segment| segment.p_paddr(endian))
        .min()
        .context("the ELF file has no loadable segment")?;
    let mut image = Vec::new();
    for segment in loaded {
        let at = segment.p_paddr(endian);
        let offset = segment.p_offset(endian);
        let data = segment.data(endian, bytes).ok().with_context(|| {
            format!("the ELF file is cut off: it ends before the segment at offset {offset:#x}")
        })?;
        let begin = usize::try_from(at - start).unwrap_or(usize::MAX);
        let end = begin.saturating_add(data.len());
        ensure!(
            end <= MAX_KERNEL,
            "the segment at address {at:#x} ends {end:#x} bytes behind the first one, which has {start:#x}"
        );
        if image.len() < end {
            image.resize(end, 0);
        }
        image[begin..end].copy_from_slice(data);
    }
    Ok(image)
}

/// The kernel in a unified kernel image, if `bytes` is one: the section
/// `.linux` of a PE file.
fn unified(bytes: &[u8], command_line: &mut Option<String>) -> Result<Option<Vec<u8>>> {
    let Some(file) = portable(bytes) else {
        return Ok(None);
    };
    let Some(linux) = file.section_by_name(".linux") else {
        return Ok(None);
    };
    let machine = machine_of(&file);
    if machine != IMAGE_FILE_MACHINE_ARM64 {
        bail!("the unified kernel image is for machine {machine:#06x}, not for arm64 (0xaa64)");
    }
    let content = |section: &object::read::pe::PeSection<'_, '_, ImageNtHeaders64>| {
        let data = section
            .data()
            .context("the unified kernel image is cut off")?;
        let size = usize::try_from(section.size()).unwrap_or(usize::MAX);
        anyhow::Ok(data[..data.len().min(size)].to_vec())
    };
    if let Some(section) = file.section_by_name(".cmdline") {
        let text = String::from_utf8_lossy(&content(&section)?).into_owned();
        *command_line = Some(text.trim_matches(['\0', '\n', ' ']).to_string());
    }
    Ok(Some(content(&linux)?))
}

/// `bytes` as a PE32+ file, if they are one.
fn portable(bytes: &[u8]) -> Option<PeFile64<'_>> {
    bytes.starts_with(b"MZ").then_some(())?;
    PeFile::<ImageNtHeaders64>::parse(bytes).ok()
}

fn machine_of(file: &PeFile64<'_>) -> u16 {
    let header = file.nt_headers().file_header;
    header.machine.get(object::LittleEndian)
}

/// Whether `image` has an EFI stub: it is a PE file for arm64. An error says
/// that the file ends before one of the sections does.
pub(super) fn efi_stub(image: &[u8]) -> Result<bool> {
    let Some(file) = portable(image) else {
        return Ok(false);
    };
    for section in file.sections() {
        let Some((offset, size)) = section.file_range() else {
            continue;
        };
        let end = offset.saturating_add(size);
        ensure!(
            end <= image.len() as u64,
            "the kernel is cut off: its section {} ends at {end:#x}, and it has {:#x} bytes",
            section.name().unwrap_or("without a name"),
            image.len()
        );
    }
    Ok(machine_of(&file) == IMAGE_FILE_MACHINE_ARM64)
}

/// Why the firmware does not start `file` as its payload, if it does not: the
/// reason of the code in the firmware.
pub(crate) fn refused_by_firmware(file: &[u8]) -> Option<String> {
    let checked = || -> Result<()> {
        let packed = KernelFormat::detect(file)?;
        let image = packed.decompress(MAX_KERNEL)?;
        let header = ImageHeader::parse(&image)?;
        header.check_file(image.len() as u64)?;
        Ok(())
    };
    checked().err().map(|error| error.to_string())
}

/// The configuration that is embedded in `image` (`CONFIG_IKCONFIG`), as text.
pub(super) fn configuration(image: &[u8]) -> Option<String> {
    const START: &[u8] = b"IKCFG_ST";
    const END: &[u8] = b"IKCFG_ED";
    let mut from = 0;
    while let Some(at) = find(&image[from..], START) {
        let begin = from + at + START.len();
        let packed = &image[begin..];
        if packed.starts_with(b"\x1f\x8b")
            && let Some(end) = find(packed, END)
            && let Ok(text) = KernelFormat::Gzip(&packed[..end]).decompress(16 << 20)
        {
            return Some(String::from_utf8_lossy(&text).into_owned());
        }
        from = begin;
    }
    None
}

fn find(bytes: &[u8], text: &[u8]) -> Option<usize> {
    let finder = warmbus_memory::search::Finder::new(text);
    finder.find_in(bytes).next()
}
