//! Compressed streams: which one it is, its header's noise, and the bytes inside.

use super::blob::Blob;
use super::model::{Body, Facts, Opened, Stop};
use super::report::NoiseKind;
use flate2::bufread::{DeflateDecoder, MultiGzDecoder, ZlibDecoder};
use std::io::{self, BufReader, Read};

/// How a stream is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Codec {
    /// RFC 1952.
    Gzip,
    /// RFC 1950, as joblib writes it.
    Zlib,
    /// RFC 1951, as in a zip.
    Deflate,
    /// RFC 8878.
    Zstd,
    /// The .xz format.
    Xz,
    /// bzip2.
    Bzip2,
}

/// Unpacked data beyond this is not followed: a small file can stand for any amount.
const UNPACKED_MAX: u64 = 32 << 30;
/// Up to here any ratio is followed, beyond it no more than [`RATIO_MAX`].
const ANY_RATIO: u64 = 256 << 20;
const RATIO_MAX: u64 = 256;

/// How much `packed` may unpack to.
pub(super) fn limit(packed: &Blob) -> u64 {
    packed.len().saturating_mul(RATIO_MAX).clamp(ANY_RATIO, UNPACKED_MAX)
}

impl Codec {
    /// The codec whose mark these first bytes bear.
    pub(super) fn of(head: &[u8]) -> Option<Codec> {
        match head {
            [0x1f, 0x8b, 8, ..] => Some(Codec::Gzip),
            [0x28, 0xb5, 0x2f, 0xfd, ..] => Some(Codec::Zstd),
            [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => Some(Codec::Xz),
            [b'B', b'Z', b'h', b'1'..=b'9', 0x31, 0x41, 0x59, 0x26, ..] => Some(Codec::Bzip2),
            // A zlib header is too short to be sure: it counts only where a pickle is inside.
            [0x78, 0x01 | 0x5e | 0x9c | 0xda, ..] => {
                let mut inner = [0; 2];
                let pickle = ZlibDecoder::new(head).read_exact(&mut inner).is_ok() && matches!(inner, [0x80, 2..=5]);
                pickle.then_some(Codec::Zlib)
            }
            _ => None,
        }
    }

    const fn what(self) -> &'static str {
        match self {
            Codec::Gzip => "a gzip file",
            Codec::Zlib => "a zlib stream",
            Codec::Deflate => "a deflate stream",
            Codec::Zstd => "a zstd file",
            Codec::Xz => "an xz file",
            Codec::Bzip2 => "a bzip2 file",
        }
    }

    /// The bytes inside.
    pub(super) fn decoder(self, packed: &Blob) -> io::Result<Box<dyn Read>> {
        let input = BufReader::with_capacity(64 << 10, packed.reader());
        Ok(match self {
            Codec::Gzip => Box::new(MultiGzDecoder::new(input)),
            Codec::Zlib => Box::new(ZlibDecoder::new(input)),
            Codec::Deflate => Box::new(DeflateDecoder::new(input)),
            Codec::Zstd => {
                let mut decoder = zstd::stream::read::Decoder::with_buffer(input)?;
                // The window that zstd itself accepts without being told more: 128 MiB.
                decoder.window_log_max(27)?;
                Box::new(decoder)
            }
            Codec::Xz => Box::new(lzma_rust2::XzReader::new(input, true)),
            Codec::Bzip2 => Box::new(bzip2::bufread::MultiBzDecoder::new(input)),
        })
    }

    /// The unpacked bytes, kept where there is room for them.
    pub(super) fn unpack(self, packed: &Blob) -> Result<Blob, Stop> {
        Ok(Blob::spool(&mut *self.decoder(packed)?, limit(packed))?)
    }
}

/// Opens a compressed file called `name`.
pub(super) fn open(codec: Codec, packed: Blob, name: &str) -> Result<Opened, Stop> {
    let mut facts = Facts::new();
    let mut inner = name.rsplit_once('.').map_or("", |(stem, _)| stem).to_owned();
    if codec == Codec::Gzip
        && let Some(header) = MultiGzDecoder::new(BufReader::new(packed.reader())).header()
    {
        facts.push((NoiseKind::Time, header.mtime().to_string()));
        let given = header.filename().map(|name| String::from_utf8_lossy(name).into_owned()).unwrap_or_default();
        if name.ends_with(".tgz") {
            inner.push_str(".tar");
        }
        facts.push((NoiseKind::ContainerName, given));
        facts.push((NoiseKind::Extra, format!("system {}", header.operating_system())));
    } else if codec == Codec::Zlib {
        // joblib's own compression keeps the pickle's name.
        name.clone_into(&mut inner);
    }
    Ok(Opened { what: codec.what(), facts, body: Body::Stream { codec, packed, name: inner } })
}
