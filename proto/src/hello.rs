//! The first message of a training stream: protocol version, then the client's identity certificate.

/// Encodes a `Hello`: version (4 bytes, big endian), then the identity certificate.
pub fn encode(version: u32, identity_certificate: &[u8]) -> Vec<u8> {
    let mut bytes = version.to_be_bytes().to_vec();
    bytes.extend_from_slice(identity_certificate);
    bytes
}

/// Splits a `Hello` into version and identity certificate; `None` if it is too short for a version.
pub fn decode(bytes: &[u8]) -> Option<(u32, &[u8])> {
    let (version, certificate) = bytes.split_first_chunk::<4>()?;
    Some((u32::from_be_bytes(*version), certificate))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_trip_and_short_input() {
        assert_eq!(decode(&encode(7, b"certificate")), Some((7, &b"certificate"[..])));
        assert_eq!(decode(&encode(1, b"")), Some((1, &b""[..])));
        assert_eq!(decode(&[0, 0, 1]), None);
    }
}
