//! Packed and unpacked kernels. With `WARMBUS_KERNELS` naming a folder, every
//! kernel in it is tried as well.

use std::sync::LazyLock;

use proptest::prelude::*;
use warmbus_kho::KhoAbi;
use warmbus_linux::constants::constants;
use warmbus_linux::decompress::{DecompressError, KernelFormat};
use warmbus_linux::detect::{detect, page_size};
use warmbus_linux::image::ImageHeader;
use warmbus_memory::PageSize;
use warmbus_pcie_sim::proptest_config;
use warmbus_tests::filtered;

/// A kernel image of a few MiB that compresses somewhat.
fn image() -> Vec<u8> {
    let mut image = vec![0; 5 << 20];
    let mut state = 1_u32;
    for (number, byte) in image.iter_mut().enumerate() {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        *byte = if number % 3 == 0 {
            (state >> 24) as u8
        } else {
            (number >> 9) as u8
        };
    }
    image[..64].fill(0);
    image[16..24].copy_from_slice(&(6_u64 << 20).to_le_bytes());
    image[24] = 0xa;
    image[56..60].copy_from_slice(b"ARM\x64");
    image[0x12_3450..][..8].copy_from_slice(b"\0kho-v4\0");
    image
}

#[test]
fn what_gzip_packs_comes_out_whole() {
    let image = image();
    for level in ["-1", "-9"] {
        let file = filtered("gzip", &[level, "-c"], &image);
        let packed = KernelFormat::detect(&file).unwrap();
        assert!(matches!(packed, KernelFormat::Gzip(_)));
        assert_eq!(packed.decompress(64 << 20).unwrap(), image);
        assert_eq!(packed.decompress(image.len()).unwrap(), image);
        let mut room = vec![0; image.len() + 5];
        assert_eq!(packed.decompress_into(&mut room), Ok(image.len()));
        assert_eq!(room[..image.len()], image);
        let mut start = [0; 64];
        assert_eq!(packed.read_prefix(&mut start), Ok(64));
        assert_eq!(start, image[..64]);
    }
}

#[test]
fn too_little_room_is_reported_and_not_overrun() {
    let image = image();
    let file = filtered("gzip", &["-c"], &image);
    let packed = KernelFormat::detect(&file).unwrap();
    let limit = image.len() - 1;
    assert_eq!(
        packed.decompress(limit),
        Err(DecompressError::TooLarge { limit })
    );
    let error = packed.decompress_into(&mut vec![0; limit]).unwrap_err();
    assert_eq!(error, DecompressError::TooLarge { limit });
    let plain = KernelFormat::detect(&image).unwrap();
    assert_eq!(
        plain.decompress(limit),
        Err(DecompressError::TooLarge { limit })
    );
    assert_eq!(
        plain.decompress_into(&mut [0; 9]),
        Err(DecompressError::TooLarge { limit: 9 })
    );
    assert_eq!(plain.decompress(image.len()).unwrap(), image);
}

#[test]
fn optional_fields_of_the_gzip_header_are_skipped() {
    let image = image();
    let plain = filtered("gzip", &["-c"], &image);
    let mut file = plain[..10].to_vec();
    file[3] = 2 | 4 | 8 | 16;
    file.extend_from_slice(&[3, 0, 1, 2, 3]);
    file.extend_from_slice(b"Image\0a comment\0");
    let crc = crc32fast::hash(&file) as u16;
    file.extend_from_slice(&crc.to_le_bytes());
    file.extend_from_slice(&plain[10..]);
    assert_eq!(
        KernelFormat::Gzip(&file).decompress(8 << 20).unwrap(),
        image
    );
    file[16] ^= 1;
    assert!(matches!(
        KernelFormat::Gzip(&file).decompress(8 << 20),
        Err(DecompressError::GzipHeader { .. })
    ));
}

#[test]
fn damage_is_named() {
    let image = image();
    let file = filtered("gzip", &["-c"], &image);
    let end = file.len();
    let damaged = |at: usize| {
        let mut file = file.clone();
        file[at] ^= 0x10;
        KernelFormat::Gzip(&file).decompress(8 << 20).unwrap_err()
    };
    assert!(matches!(damaged(end - 8), DecompressError::Crc { .. }));
    assert!(matches!(damaged(end - 4), DecompressError::Size { .. }));
    assert!(matches!(damaged(2), DecompressError::GzipHeader { .. }));
    let unpack = |file: &[u8]| KernelFormat::Gzip(file).decompress(8 << 20);
    assert_eq!(unpack(&file[..end - 1]), Err(DecompressError::Truncated));
    assert_eq!(unpack(&file[..end / 2]), Err(DecompressError::Truncated));
    assert_eq!(unpack(&file[..9]), Err(DecompressError::Truncated));
    let mut longer = file.clone();
    longer.extend_from_slice(&[0; 512]);
    assert_eq!(unpack(&longer).unwrap(), image);
    longer.push(1);
    assert_eq!(
        unpack(&longer),
        Err(DecompressError::TrailingData { bytes: 513 })
    );
}

fn zboot(name: &[u8], payload: &[u8]) -> Vec<u8> {
    let mut file = vec![0; 0x400];
    file[..2].copy_from_slice(b"MZ");
    file[4..8].copy_from_slice(b"zimg");
    file[8..12].copy_from_slice(&0x400_u32.to_le_bytes());
    file[12..16].copy_from_slice(&(payload.len() as u32).to_le_bytes());
    file[24..24 + name.len()].copy_from_slice(name);
    file.extend_from_slice(payload);
    file.extend_from_slice(&[0x5a; 100]);
    file
}

#[test]
fn an_efi_zboot_file_is_taken_apart_if_it_is_gzip() {
    let image = image();
    let file = zboot(b"gzip", &filtered("gzip", &["-c"], &image));
    assert_eq!(
        KernelFormat::detect(&file)
            .unwrap()
            .decompress(8 << 20)
            .unwrap(),
        image
    );
    let error = KernelFormat::detect(&zboot(b"zstd", b"payload")).unwrap_err();
    assert!(error.to_string().contains("'zstd'"));
    let mut far = file.clone();
    far[8..12].fill(0xff);
    assert_eq!(KernelFormat::detect(&far), Err(DecompressError::Truncated));
    assert_eq!(
        KernelFormat::detect(&file[..40]),
        Err(DecompressError::Truncated)
    );
    let bare = zboot(b"gzip", b"no gzip here");
    assert_eq!(KernelFormat::detect(&bare), Err(DecompressError::Corrupt));
}

proptest! {
    #![proptest_config(proptest_config::properties(300))]

    #[test]
    fn damaged_files_never_panic_and_never_pass_as_another_image(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
        cut in any::<prop::sample::Index>(),
        truncate in any::<bool>(),
    ) {
        static SMALL: LazyLock<(Vec<u8>, Vec<u8>)> = LazyLock::new(|| {
            let mut image = image();
            image.truncate(0x1_0000);
            let file = zboot(b"gzip", &filtered("gzip", &["-c"], &image));
            (image, file)
        });
        let (image, mut file) = (&SMALL.0, SMALL.1.clone());
        for (at, value) in changes {
            let at = at.index(file.len());
            file[at] = value;
        }
        if truncate {
            file.truncate(cut.index(file.len()));
        }
        let _ = ImageHeader::parse(&file);
        let _ = detect(&file);
        if let Ok(packed @ KernelFormat::Gzip(_)) = KernelFormat::detect(&file) {
            let _ = packed.read_prefix(&mut [0; 64]);
            if let Ok(unpacked) = packed.decompress(1 << 20) {
                prop_assert_eq!(&unpacked, image);
            }
        }
    }
}

#[test]
fn kernels_in_the_folder_are_recognised_by_what_they_are_named() {
    let Some(folder) = std::env::var_os("WARMBUS_KERNELS") else {
        println!("WARMBUS_KERNELS is not set: no real kernels tried");
        return;
    };
    let mut tried = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_string();
        if !name.starts_with("Image-") {
            continue;
        }
        let file = std::fs::read(&path).unwrap();
        let unpacked = KernelFormat::detect(&file)
            .unwrap()
            .decompress(256 << 20)
            .unwrap();
        let header = ImageHeader::parse(&unpacked).unwrap();
        header.check_file(unpacked.len() as u64).unwrap();
        // A search through all of the kernel finds nothing that is not found
        // among its constants.
        let part = constants(&unpacked).unwrap();
        assert!(part.len() * 4 < unpacked.len(), "{name}: {}", part.len());
        for text in [&b"\0kho-v"[..], b"Linux version 7.", b"Linux version 6."] {
            let count = |bytes| memchr::memmem::find_iter(bytes, text).count();
            assert_eq!(count(part), count(&unpacked), "{name}");
        }
        let started = std::time::Instant::now();
        let abi = detect(&unpacked).unwrap();
        println!(
            "{name}: {} bytes, {} in memory, {:?}, {}, found in {:?}",
            unpacked.len(),
            header.image_size,
            abi,
            page_size(&header).unwrap(),
            started.elapsed(),
        );
        let expected = match &name[6..9] {
            "6.1" | "7.0" => Some(KhoAbi::V1),
            "7.1" => Some(KhoAbi::V3),
            "7.2" | "7.3" => Some(KhoAbi::V4),
            _ => None,
        };
        assert_eq!(abi, expected);
        let size = match () {
            () if name.contains("-16k") => PageSize::K16,
            () if name.contains("-64k") => PageSize::K64,
            () => PageSize::K4,
        };
        assert_eq!(header.page_size, Some(size));
        tried += 1;
    }
    assert!(tried > 0, "no file Image-* in the folder");
}
