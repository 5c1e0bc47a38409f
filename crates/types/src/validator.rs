//! What a server says of the bytes at an address besides their size.

use std::fmt;

/// A server's name for the bytes at an address, or their time: a hint. Two that are equal prove nothing of the bytes; two that
/// differ are a reason to fetch and see.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Validator {
    /// An entity tag (RFC 9110) that looks like a digest, without its quotes.
    Tag(String),
    /// When the bytes were changed last, as the server writes it.
    Modified(String),
}

impl Validator {
    /// The entity tag of a header, if it is strong and looks like a digest: what object stores, forges and hubs make of the
    /// content. Those of file servers, made of times and inodes, differ from host to host and after each upload.
    pub fn of_tag(header: &str) -> Option<Validator> {
        let tag = header.strip_prefix('"')?.strip_suffix('"')?;
        let (hex, parts) = tag.split_once('-').unwrap_or((tag, "1"));
        let is_digest = (32..=128).contains(&hex.len()) && hex.bytes().all(|b| b.is_ascii_hexdigit());
        let is_count = (1..=6).contains(&parts.len()) && parts.bytes().all(|b| b.is_ascii_digit());
        (is_digest && is_count).then(|| Validator::Tag(tag.to_owned()))
    }

    /// The tag in a header, whatever it looks like.
    pub fn bare_tag(header: &str) -> &str {
        header.strip_prefix("W/").unwrap_or(header).trim_matches('"')
    }
}

impl fmt::Display for Validator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Validator::Tag(tag) => write!(f, "ETag {tag}"),
            Validator::Modified(date) => write!(f, "Last-Modified {date}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_that_look_like_digests() {
        let md5 = "9e107d9d372bb6826bd81d3542a419d6";
        let sha256 = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        for tag in [md5.to_owned(), sha256.to_owned(), format!("{md5}-12")] {
            assert_eq!(Validator::of_tag(&format!("\"{tag}\"")), Some(Validator::Tag(tag)));
        }
        // nginx, Apache, Azure, a weak one, no tag at all.
        for other in [
            "\"65f2a1b0-1f4\"",
            "\"1f4-5d3c0a1b2c3d4\"",
            "\"0x8DC4A1B2C3D4E5F\"",
            &format!("W/\"{md5}\""),
            md5,
            "",
            "\"",
        ] {
            assert_eq!(Validator::of_tag(other), None, "{other}");
        }
        assert_eq!(Validator::bare_tag(&format!("W/\"{md5}\"")), md5);
    }
}
