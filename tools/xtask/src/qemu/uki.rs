//! Unified kernel images (UAPI Group Specification 5): the stub of systemd-boot
//! with a kernel, its initrd and its command line as sections of one PE file.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};

use super::Payload;

/// Offset of the offset of the PE signature.
const PE_OFFSET: usize = 0x3c;
/// Bytes of the signature and the file header.
const FILE_HEADER: usize = 24;
/// Bytes of an entry of the section table.
const SECTION: usize = 40;
/// Data that is read only.
const READ_ONLY_DATA: u32 = 0x4000_0040;

/// Writes the image of `stub` with what `payload` has, and the command line
/// `line`, to the file `to`.
pub(super) fn write(to: &Path, stub: &Path, payload: &Payload, line: &str) -> Result<()> {
    let read =
        |file: &Path| fs::read(file).with_context(|| format!("cannot read {}", file.display()));
    let kernel = read(&payload.kernel)?;
    let initrd = payload.initrd.as_deref().map(read).transpose()?;
    let mut sections = vec![(".cmdline", line.as_bytes())];
    sections.extend(initrd.as_deref().map(|initrd| (".initrd", initrd)));
    sections.push((".linux", &kernel));
    fs::write(to, with_sections(&read(stub)?, &sections)?)
        .with_context(|| format!("cannot write {}", to.display()))
}

/// The PE file `stub` with `sections` added, names and contents (Microsoft PE
/// Format, revision 11).
fn with_sections(stub: &[u8], sections: &[(&str, &[u8])]) -> Result<Vec<u8>> {
    let mut file = stub.to_vec();
    let header = number(&file, PE_OFFSET)? as usize;
    ensure!(
        file.get(header..header + 4) == Some(b"PE\0\0"),
        "the stub is no PE file"
    );
    let optional = header + FILE_HEADER;
    let count = usize::from(short(&file, header + 6)?);
    let table = optional + usize::from(short(&file, header + 20)?);
    let [in_memory, in_file] = [
        number(&file, optional + 32)?.max(1),
        number(&file, optional + 36)?.max(1),
    ];
    let headers = number(&file, optional + 60)? as usize;
    let end_of_table = table + SECTION * (count + sections.len());
    ensure!(
        end_of_table <= headers,
        "the headers of the stub have {headers} bytes, and {end_of_table} are needed"
    );
    let mut memory = number(&file, optional + 56)?;
    for (index, (name, content)) in sections.iter().enumerate() {
        let size = u32::try_from(content.len()).context("a section is too large")?;
        memory = memory.next_multiple_of(in_memory);
        file.resize(file.len().next_multiple_of(in_file as usize), 0);
        let place = u32::try_from(file.len())?;
        file.extend_from_slice(content);
        file.resize(file.len().next_multiple_of(in_file as usize), 0);
        let mut entry = name.as_bytes().to_vec();
        ensure!(entry.len() <= 8, "{name} is too long for a section");
        entry.resize(8, 0);
        for field in [size, memory, size.next_multiple_of(in_file), place, 0, 0, 0] {
            entry.extend(field.to_le_bytes());
        }
        entry.extend(READ_ONLY_DATA.to_le_bytes());
        let at = table + SECTION * (count + index);
        file[at..at + SECTION].copy_from_slice(&entry);
        memory = memory.checked_add(size).context("the file is too large")?;
    }
    let total = u16::try_from(count + sections.len())?;
    file[header + 6..header + 8].copy_from_slice(&total.to_le_bytes());
    let memory = memory.next_multiple_of(in_memory);
    file[optional + 56..optional + 60].copy_from_slice(&memory.to_le_bytes());
    Ok(file)
}

fn number(file: &[u8], at: usize) -> Result<u32> {
    let bytes = file.get(at..at + 4).context("the stub is too short")?;
    Ok(u32::from_le_bytes(bytes.try_into()?))
}

fn short(file: &[u8], at: usize) -> Result<u16> {
    let bytes = file.get(at..at + 2).context("the stub is too short")?;
    Ok(u16::from_le_bytes(bytes.try_into()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{process, programs};
    use std::process::Command;

    /// A PE file for arm64 with one section of code.
    fn stub() -> Vec<u8> {
        let mut file = vec![0; 0x400];
        let mut put = |at: usize, bytes: &[u8]| file[at..at + bytes.len()].copy_from_slice(bytes);
        put(0, b"MZ");
        put(PE_OFFSET, &[0x40]);
        put(0x40, b"PE\0\0\x64\xaa\x01\0");
        put(0x54, &[0xf0, 0, 0x06, 0x02, 0x0b, 0x02]);
        put(0x58 + 32, &0x1000_u32.to_le_bytes());
        put(0x58 + 36, &0x200_u32.to_le_bytes());
        put(0x58 + 56, &0x2000_u32.to_le_bytes());
        put(0x58 + 60, &0x400_u32.to_le_bytes());
        put(0x58 + 108, &[16]);
        put(0x148, b".text\0\0\0");
        put(0x148 + 8, &0x10_u32.to_le_bytes());
        put(0x148 + 12, &0x1000_u32.to_le_bytes());
        put(0x148 + 16, &0x200_u32.to_le_bytes());
        put(0x148 + 20, &0x400_u32.to_le_bytes());
        put(0x148 + 36, &0x6000_0020_u32.to_le_bytes());
        file.resize(0x600, 0x1f);
        file
    }

    #[test]
    fn binutils_find_each_section_with_its_content() {
        let Some(objcopy) = programs::find("aarch64-linux-gnu-objcopy") else {
            println!("skipped: there is no aarch64-linux-gnu-objcopy");
            return;
        };
        let contents = [vec![7; 0x1234], b"console=ttyAMA0".to_vec()];
        let sections = [(".linux", &contents[0][..]), (".cmdline", &contents[1])];
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("uki.efi");
        fs::write(&file, with_sections(&stub(), &sections).unwrap()).unwrap();
        for (name, content) in sections {
            let out = directory.path().join("section");
            let mut command = Command::new(&objcopy);
            command
                .args(["-O", "binary", "-j", name])
                .args([&file, &out]);
            process::output(&mut command).unwrap();
            // What is loaded is as long as the section, in whole blocks.
            let found = fs::read(&out).unwrap();
            assert_eq!(found.get(..content.len()), Some(content), "{name}");
        }
    }

    #[test]
    fn what_has_no_room_or_is_no_program_is_an_error() {
        // With the one that is there they are 18, and 17 fit.
        let sections = [(".linux", &b"x"[..]); 17];
        let error = with_sections(&stub(), &sections).map(drop).unwrap_err();
        let error = error.to_string();
        assert!(error.contains("1024 bytes"), "{error}");
        with_sections(b"MZ", &[]).unwrap_err();
        with_sections(&[0; 0x400], &[]).unwrap_err();
        with_sections(&stub(), &[(".too-long-", b"")]).unwrap_err();
    }
}
