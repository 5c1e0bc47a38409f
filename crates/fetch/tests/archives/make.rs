//! Archives made byte by byte, so that they can be as wrong as a test needs.

use std::io::Write as _;

/// A tar header of 512 bytes with a right checksum.
pub(crate) fn header(name: &[u8], kind: u8, size: u64, mode: u32, link: &[u8]) -> [u8; 512] {
    let mut block = [0; 512];
    block[..name.len()].copy_from_slice(name);
    block[100..107].copy_from_slice(format!("{mode:07o}").as_bytes());
    if size < 1 << 33 {
        block[124..135].copy_from_slice(format!("{size:011o}").as_bytes());
    } else {
        block[124] = 0x80;
        block[128..136].copy_from_slice(&size.to_be_bytes());
    }
    block[136..147].copy_from_slice(b"00000000000");
    block[156] = kind;
    block[157..157 + link.len()].copy_from_slice(link);
    block[257..265].copy_from_slice(b"ustar\x0000");
    sum(&mut block);
    block
}

/// Puts the right checksum into a header.
pub(crate) fn sum(block: &mut [u8; 512]) {
    block[148..156].fill(b' ');
    let sum: u32 = block.iter().map(|b| u32::from(*b)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
}

/// A member with its data and padding.
pub(crate) fn member(name: &[u8], kind: u8, mode: u32, link: &[u8], data: &[u8]) -> Vec<u8> {
    let mut out = header(name, kind, data.len() as u64, mode, link).to_vec();
    out.extend_from_slice(data);
    out.resize(out.len().next_multiple_of(512), 0);
    out
}

/// A regular file.
pub(crate) fn file(name: &str, data: &[u8]) -> Vec<u8> {
    member(name.as_bytes(), b'0', 0o644, b"", data)
}

/// A symbolic link.
pub(crate) fn symlink(name: &str, target: &str) -> Vec<u8> {
    member(name.as_bytes(), b'2', 0o777, target.as_bytes(), b"")
}

/// A pax header with these records.
pub(crate) fn pax(kind: u8, records: &[(&str, &str)]) -> Vec<u8> {
    let mut data = Vec::new();
    for (key, value) in records {
        let body = key.len() + value.len() + 3;
        let length = (1..5).map(|digits| body + digits).find(|n| n.to_string().len() + body == *n).unwrap();
        data.extend_from_slice(format!("{length} {key}={value}\n").as_bytes());
    }
    member(b"pax", kind, 0o644, b"", &data)
}

/// A tar of members, with its end mark.
pub(crate) fn tar(members: &[Vec<u8>]) -> Vec<u8> {
    [members.concat(), vec![0; 1024]].concat()
}

pub(crate) fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

pub(crate) fn zstd(bytes: &[u8]) -> Vec<u8> {
    zstd::stream::encode_all(bytes, 1).unwrap()
}

pub(crate) fn xz(bytes: &[u8]) -> Vec<u8> {
    let mut writer = lzma_rust2::XzWriter::new(Vec::new(), lzma_rust2::XzOptions::with_preset(1)).unwrap();
    writer.write_all(bytes).unwrap();
    writer.finish().unwrap()
}

pub(crate) fn bzip2(bytes: &[u8]) -> Vec<u8> {
    let mut writer = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::fast());
    writer.write_all(bytes).unwrap();
    writer.finish().unwrap()
}

/// A member of a zip, stored without compression; the fields that tests make wrong.
#[derive(Clone)]
pub(crate) struct Zipped {
    pub(crate) name: Vec<u8>,
    pub(crate) local_name: Vec<u8>,
    pub(crate) data: Vec<u8>,
    pub(crate) flags: u16,
    pub(crate) method: u16,
    pub(crate) mode: u32,
    pub(crate) crc: u32,
    pub(crate) size: u32,
    pub(crate) local_size: u32,
}

impl Zipped {
    pub(crate) fn new(name: &str, data: &[u8]) -> Zipped {
        let mut crc = flate2::Crc::new();
        crc.update(data);
        let (name, size) = (name.as_bytes().to_vec(), data.len() as u32);
        Zipped {
            local_name: name.clone(),
            name,
            data: data.to_vec(),
            flags: 0x800,
            method: 0,
            mode: 0o100_644,
            crc: crc.sum(),
            size,
            local_size: size,
        }
    }
}

/// A zip of members.
pub(crate) fn zip(members: &[Zipped]) -> Vec<u8> {
    let (mut out, mut directory) = (Vec::new(), Vec::new());
    for m in members {
        let offset = out.len() as u32;
        let packed = m.data.len() as u32;
        out.extend_from_slice(b"PK\x03\x04\x14\x00");
        for field in [m.flags, m.method, 0, 0x21] {
            out.extend_from_slice(&field.to_le_bytes());
        }
        for field in [m.crc, packed, m.local_size] {
            out.extend_from_slice(&field.to_le_bytes());
        }
        out.extend_from_slice(&(m.local_name.len() as u16).to_le_bytes());
        out.extend_from_slice(&[0; 2]);
        out.extend_from_slice(&m.local_name);
        out.extend_from_slice(&m.data);

        directory.extend_from_slice(b"PK\x01\x02\x14\x03\x14\x00");
        for field in [m.flags, m.method, 0, 0x21] {
            directory.extend_from_slice(&field.to_le_bytes());
        }
        for field in [m.crc, packed, m.size] {
            directory.extend_from_slice(&field.to_le_bytes());
        }
        for field in [m.name.len() as u16, 0, 0, 0, 0] {
            directory.extend_from_slice(&field.to_le_bytes());
        }
        for field in [m.mode << 16, offset] {
            directory.extend_from_slice(&field.to_le_bytes());
        }
        directory.extend_from_slice(&m.name);
    }
    let (offset, size, count) = (out.len() as u32, directory.len() as u32, members.len() as u16);
    out.extend_from_slice(&directory);
    out.extend_from_slice(b"PK\x05\x06\0\0\0\0");
    for field in [count, count] {
        out.extend_from_slice(&field.to_le_bytes());
    }
    for field in [size, offset] {
        out.extend_from_slice(&field.to_le_bytes());
    }
    out.extend_from_slice(&[0; 2]);
    out
}
