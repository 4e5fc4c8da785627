//! CRC-32C, plain and seeded with a place.

/// CRC-32C of `bytes`.
#[must_use]
pub fn checksum(bytes: &[u8]) -> u32 {
    crc32c::crc32c(bytes)
}

/// CRC-32C of `place` followed by `bytes`: right bytes in a wrong place do not match, so
/// misdirected reads and writes are seen.
#[must_use]
pub fn checksum_seeded(place: u64, bytes: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&place.to_le_bytes()), bytes)
}

/// CRC-32C of what `checksum` covers followed by `bytes`, for what does not come in one piece.
#[must_use]
pub fn checksum_append(checksum: u32, bytes: &[u8]) -> u32 {
    crc32c::crc32c_append(checksum, bytes)
}
