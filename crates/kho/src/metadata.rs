//! The `kexec-metadata` subtree: which kernel, or firmware, ran before.

/// The subtree that says which kernel was before, in Linux 7.1 and later.
pub const METADATA: &str = "kexec-metadata";

/// Bytes of the structure: a version, a release string and a count.
pub(crate) const METADATA_SIZE: u64 = 73;

/// Bytes of the longest release string; one more ends it.
const MAX_RELEASE: usize = 64;

/// The structure that says that `release`, of which Linux prints 64 bytes, is
/// the first link of the chain of kernels.
pub(crate) fn metadata(release: &str) -> [u8; METADATA_SIZE as usize] {
    const VERSION: u32 = 1;
    const COUNT: u32 = 1;
    let mut bytes = [0; METADATA_SIZE as usize];
    bytes[0..4].copy_from_slice(&VERSION.to_le_bytes());
    let length = release.len().min(MAX_RELEASE);
    bytes[4..4 + length].copy_from_slice(&release.as_bytes()[..length]);
    bytes[69..73].copy_from_slice(&COUNT.to_le_bytes());
    bytes
}
