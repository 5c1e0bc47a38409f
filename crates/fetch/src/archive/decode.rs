//! Compressed streams: which one it is, and the bytes inside.

use flate2::bufread::GzDecoder;
use std::io::{self, BufRead, Read};

/// How a stream is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Codec {
    Gzip,
    Zstd,
    Xz,
    Bzip2,
}

impl Codec {
    /// The codec whose mark these first bytes bear.
    pub(crate) fn of(head: &[u8]) -> Option<Codec> {
        match head {
            [0x1f, 0x8b, ..] => Some(Codec::Gzip),
            [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Some(Codec::Zstd),
            [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => Some(Codec::Xz),
            [b'B', b'Z', b'h', b'1'..=b'9', ..] => Some(Codec::Bzip2),
            _ => None,
        }
    }

    /// What a file of it is, with its article.
    pub(crate) const fn single_file(self) -> &'static str {
        match self {
            Codec::Gzip => "a single file compressed with gzip",
            Codec::Zstd => "a single file compressed with zstd",
            Codec::Xz => "a single file compressed with xz",
            Codec::Bzip2 => "a single file compressed with bzip2",
        }
    }

    /// The decoded bytes.
    pub(crate) fn decoder<'a>(self, input: impl BufRead + Send + 'a) -> io::Result<Box<dyn Read + Send + 'a>> {
        Ok(match self {
            Codec::Gzip => Box::new(Members::new(input)),
            Codec::Zstd => Box::new(zstd::stream::read::Decoder::with_buffer(input)?),
            Codec::Xz => Box::new(lzma_rust2::XzReader::new(input, true)),
            Codec::Bzip2 => Box::new(bzip2::bufread::MultiBzDecoder::new(input)),
        })
    }
}

/// The members of a gzip file one after the other. Zeros may follow the last one (tapes and `tar`'s
/// blocking leave them); anything else behind it is an error, where gzip itself only warns.
struct Members<R: BufRead>(Option<GzDecoder<R>>);

impl<R: BufRead> Members<R> {
    fn new(input: R) -> Members<R> {
        Members(Some(GzDecoder::new(input)))
    }
}

impl<R: BufRead> Read for Members<R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        while let Some(decoder) = &mut self.0 {
            let n = decoder.read(out)?;
            if n > 0 || out.is_empty() {
                return Ok(n);
            }
            let mut input = self.0.take().expect("it was just used").into_inner();
            if input.fill_buf()?.first() == Some(&0x1f) {
                self.0 = Some(GzDecoder::new(input));
            } else {
                only_zeros(&mut input, "gzip")?;
            }
        }
        Ok(0)
    }
}

/// Reads to the end, and refuses anything but zeros.
pub(crate) fn only_zeros(input: &mut impl BufRead, what: &str) -> io::Result<()> {
    loop {
        let bytes = input.fill_buf()?;
        let n = bytes.len();
        if n == 0 {
            return Ok(());
        }
        if bytes.iter().any(|b| *b != 0) {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                format!("something else follows the end of the {what} data"),
            ));
        }
        input.consume(n);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    fn decode(bytes: &[u8]) -> io::Result<Vec<u8>> {
        let mut out = Vec::new();
        Codec::of(bytes).unwrap().decoder(bytes)?.read_to_end(&mut out).map(|_| out)
    }

    #[test]
    fn gzip_members_and_what_may_follow() {
        let two = [gzip(b"one "), gzip(b""), gzip(b"two")].concat();
        assert_eq!(decode(&two).unwrap(), b"one two");
        assert_eq!(decode(&[two.clone(), vec![0; 600]].concat()).unwrap(), b"one two");
        assert_eq!(decode(&[two.clone(), b"rest".to_vec()].concat()).unwrap_err().kind(), io::ErrorKind::InvalidData);
        assert_eq!(decode(&[two.clone(), vec![0x1f]].concat()).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
        assert_eq!(decode(&two[..two.len() - 3]).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    }

    #[test]
    fn the_others_notice_truncation_and_damage() {
        let text: Vec<u8> = (0..50_000u32).flat_map(|i| (i * i).to_le_bytes()).collect();
        let mut xz = lzma_rust2::XzWriter::new(Vec::new(), lzma_rust2::XzOptions::with_preset(1)).unwrap();
        xz.write_all(&text).unwrap();
        let mut bz = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::fast());
        bz.write_all(&text).unwrap();
        let mut zst = zstd::stream::write::Encoder::new(Vec::new(), 1).unwrap();
        zst.include_checksum(true).unwrap();
        zst.write_all(&text).unwrap();
        for file in [xz.finish().unwrap(), bz.finish().unwrap(), zst.finish().unwrap(), gzip(&text)] {
            let codec = Codec::of(&file).unwrap();
            assert!(decode(&file).unwrap() == text, "{codec:?}");
            for cut in [file.len() / 2, file.len() - 5, 20] {
                assert!(decode(&file[..cut]).is_err(), "{codec:?} cut at {cut}");
            }
            let mut flipped = file.clone();
            flipped[file.len() / 2] ^= 1;
            assert!(decode(&flipped).is_err(), "{codec:?}");
            assert!(decode(&[file, b"rest".to_vec()].concat()).is_err(), "{codec:?}");
        }
    }
}
