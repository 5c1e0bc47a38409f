//! SHA-256 digests: the only hash that trainlock trusts.

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::Digest as _;
use sha2::block_api::compress256;
use std::fmt;
use std::str::FromStr;

/// A SHA-256 digest; shown and parsed as 64 lower-case hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest([u8; 32]);

/// Why a text is no digest.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a sha256 is 64 hexadecimal digits, found `{0}`")]
pub struct DigestError(pub String);

impl Digest {
    /// The digest of bytes in memory.
    pub fn of(bytes: &[u8]) -> Digest {
        let mut hasher = Hasher::new();
        hasher.update(bytes);
        hasher.finish()
    }

    /// A digest from its 32 bytes.
    pub const fn from_bytes(bytes: [u8; 32]) -> Digest {
        Digest(bytes)
    }

    /// The 32 bytes.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The 64 hexadecimal digits.
    pub fn to_hex(&self) -> String {
        let mut out = String::with_capacity(64);
        self.write_hex(&mut out);
        out
    }

    /// Appends the 64 hexadecimal digits.
    pub(crate) fn write_hex(&self, out: &mut String) {
        const HEX: &[u8; 16] = b"0123456789abcdef";
        for byte in self.0 {
            out.push(HEX[usize::from(byte >> 4)] as char);
            out.push(HEX[usize::from(byte & 15)] as char);
        }
    }

    /// The first twelve hexadecimal digits, for people.
    pub fn short(&self) -> String {
        self.to_hex()[..12].to_owned()
    }
}

impl FromStr for Digest {
    type Err = DigestError;

    fn from_str(text: &str) -> Result<Digest, DigestError> {
        let Ok(digits) = <&[u8; 64]>::try_from(text.as_bytes()) else {
            return Err(DigestError(text.to_owned()));
        };
        // Without a branch a digit, so that the compiler can take many at once: locks are full of digests.
        if !digits.iter().fold(true, |good, b| good & b.is_ascii_hexdigit()) {
            return Err(DigestError(text.to_owned()));
        }
        let value = |b: u8| (b & 15) + 9 * (b >> 6);
        let mut out = [0; 32];
        for (byte, pair) in out.iter_mut().zip(digits.as_chunks::<2>().0) {
            *byte = value(pair[0]) << 4 | value(pair[1]);
        }
        Ok(Digest(out))
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.to_hex())
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.to_hex())
    }
}

/// As its hexadecimal digits in formats for people, as 32 bytes in others.
impl Serialize for Digest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() {
            serializer.serialize_str(&self.to_hex())
        } else {
            self.0.serialize(serializer)
        }
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Digest, D::Error> {
        if deserializer.is_human_readable() {
            String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
        } else {
            <[u8; 32]>::deserialize(deserializer).map(Digest)
        }
    }
}

/// Takes bytes as they come and ends as a [`Digest`].
#[derive(Clone, Default)]
pub struct Hasher(sha2::Sha256);

impl Hasher {
    /// Nothing taken yet.
    pub fn new() -> Hasher {
        Hasher::default()
    }

    /// Takes the next bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// The digest of all bytes taken.
    pub fn finish(self) -> Digest {
        Digest(self.0.finalize().into())
    }
}

/// Bytes in memory, with their digest: nobody else can say what it is.
#[derive(Debug, Clone)]
pub struct Hashed<B> {
    bytes: B,
    sha256: Digest,
}

impl<B: AsRef<[u8]>> Hashed<B> {
    /// Hashes bytes.
    pub fn of(bytes: B) -> Hashed<B> {
        let sha256 = Digest::of(bytes.as_ref());
        Hashed { bytes, sha256 }
    }

    /// Hashes several, two at a time, which takes less time than one after the other. The answers are in their order.
    pub fn each(all: Vec<B>) -> Vec<Hashed<B>> {
        let mut order: Vec<usize> = (0..all.len()).collect();
        // Of two of one length nothing is left that is hashed alone.
        order.sort_by_key(|i| all[*i].as_ref().len());
        let mut digests = vec![Digest([0; 32]); all.len()];
        let (pairs, alone) = order.as_chunks::<2>();
        for [a, b] in pairs {
            [digests[*a], digests[*b]] = both([all[*a].as_ref(), all[*b].as_ref()]);
        }
        for i in alone {
            digests[*i] = Digest::of(all[*i].as_ref());
        }
        all.into_iter().zip(digests).map(|(bytes, sha256)| Hashed { bytes, sha256 }).collect()
    }

    /// The bytes.
    pub fn bytes(&self) -> &[u8] {
        self.bytes.as_ref()
    }

    /// Their digest.
    pub fn sha256(&self) -> Digest {
        self.sha256
    }
}

/// What SHA-256 begins with (FIPS 180-4, section 5.3.3).
const BEGIN: [u32; 8] =
    [0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a, 0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19];

/// Hashes two at once: each round of SHA-256 waits for the one before it, so that a processor that looks ahead far enough works at
/// the next block of the other one meanwhile.
fn both(two: [&[u8]; 2]) -> [Digest; 2] {
    let mut states = [BEGIN; 2];
    let blocks = two.map(|bytes| bytes.as_chunks::<64>().0);
    let common = blocks[0].len().min(blocks[1].len());
    for (a, b) in blocks[0].iter().zip(blocks[1]) {
        compress256(&mut states[0], std::slice::from_ref(a));
        compress256(&mut states[1], std::slice::from_ref(b));
    }
    for i in 0..2 {
        compress256(&mut states[i], &blocks[i][common..]);
        let rest = two[i].as_chunks::<64>().1;
        // The rest, one bit, zeros, the length in bits (FIPS 180-4, section 5.1.1).
        let mut end = [0; 128];
        end[..rest.len()].copy_from_slice(rest);
        end[rest.len()] = 0x80;
        let blocks = if rest.len() < 56 { 1 } else { 2 };
        end[64 * blocks - 8..64 * blocks].copy_from_slice(&(two[i].len() as u64 * 8).to_be_bytes());
        compress256(&mut states[i], &end.as_chunks().0[..blocks]);
    }
    states.map(|state| {
        let mut digest = [0; 32];
        for (bytes, word) in digest.as_chunks_mut().0.iter_mut().zip(state) {
            *bytes = word.to_be_bytes();
        }
        Digest(digest)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn several_are_hashed_as_each_alone() {
        let bytes: Vec<u8> = (0..5000_u32).map(|i| ((i * i) >> 3) as u8).collect();
        let lengths: Vec<usize> = (0..200).chain([255, 256, 257, 4096, 4999, 5000, 64, 0]).collect();
        let texts = |skip: usize| lengths.iter().map(|n| &bytes[(*n / 2).min(skip)..*n]).collect::<Vec<_>>();
        for all in [&texts(0)[..], &texts(7), &texts(0)[..207], &texts(0)[3..4], &[]] {
            for (hashed, text) in Hashed::each(all.to_vec()).iter().zip(all) {
                assert_eq!((hashed.sha256(), hashed.bytes()), (Digest::of(text), *text), "{} bytes", text.len());
            }
            // Of very different lengths.
            for (i, text) in all.iter().enumerate() {
                let other = all[all.len() - 1 - i];
                assert_eq!(both([text, other]), [Digest::of(text), Digest::of(other)], "{} bytes", text.len());
            }
        }
    }

    #[test]
    fn of_the_standard_vector() {
        let hex = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(Digest::of(b"abc").to_hex(), hex);
        assert_eq!(hex.parse::<Digest>().unwrap(), Digest::of(b"abc"));
        assert_eq!(hex.to_uppercase().parse::<Digest>().unwrap(), Digest::of(b"abc"));
    }

    #[test]
    fn refuses_what_is_no_digest() {
        for text in ["", "ba78", &"g".repeat(64), &"ä".repeat(32)] {
            assert!(text.parse::<Digest>().is_err(), "{text}");
        }
    }
}
