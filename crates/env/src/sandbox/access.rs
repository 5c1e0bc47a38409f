//! What a stopped system call is about: read from its process's memory and from /proc.

use super::{Access, sys};
use std::ffi::OsString;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Component, Path, PathBuf};

/// A call, understood.
#[derive(Debug)]
pub(super) enum Call {
    /// It is about this absolute path.
    Path(Access, OsString),
    /// It is about these.
    Sockets(Vec<Socket>),
    /// It is none that says anything.
    Other,
}

/// One use of a socket.
#[derive(Debug)]
pub(super) struct Socket {
    pub(super) access: Access,
    /// None where the socket is connected.
    pub(super) address: Option<Address>,
    /// The beginning of what is sent.
    pub(super) payload: Vec<u8>,
}

/// An address of a socket.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Address {
    Internet(SocketAddr),
    /// A file, or `@name`.
    Local(OsString),
}

impl Socket {
    pub(super) fn is_name_server(&self) -> bool {
        matches!(&self.address, Some(Address::Internet(a)) if a.port() == 53)
    }
}

/// Understands a call.
pub(super) fn call(pid: u32, number: i64, a: [u64; 6]) -> Call {
    let path = |access, folder: i32, address: u64| match path(pid, folder, address) {
        Some(path) => Call::Path(access, path),
        None => Call::Other,
    };
    let here = libc::AT_FDCWD;
    let at = a[0] as i32;
    let opened = |flags: u64| {
        let flags = flags as i32;
        if flags & libc::O_ACCMODE != libc::O_RDONLY || flags & libc::O_CREAT != 0 {
            Access::Write
        } else {
            Access::Read
        }
    };
    match number {
        libc::SYS_execve => path(Access::Execute, here, a[0]),
        libc::SYS_execveat => path(Access::Execute, at, a[1]),
        libc::SYS_openat => path(opened(a[2]), at, a[1]),
        libc::SYS_newfstatat | libc::SYS_statx | libc::SYS_faccessat | libc::SYS_faccessat2 | libc::SYS_readlinkat => {
            path(Access::Stat, at, a[1])
        }
        #[cfg(target_arch = "x86_64")]
        libc::SYS_open => path(opened(a[1]), here, a[0]),
        #[cfg(target_arch = "x86_64")]
        libc::SYS_creat => path(Access::Write, here, a[0]),
        #[cfg(target_arch = "x86_64")]
        libc::SYS_stat | libc::SYS_lstat | libc::SYS_access | libc::SYS_readlink => path(Access::Stat, here, a[0]),
        libc::SYS_connect | libc::SYS_bind => {
            let access = if number == libc::SYS_connect { Access::Connect } else { Access::Bind };
            Call::Sockets(vec![Socket { access, address: address(pid, a[1], a[2]), payload: Vec::new() }])
        }
        libc::SYS_sendto => {
            let payload = memory(pid, a[1], (a[2] as usize).min(512));
            Call::Sockets(vec![Socket { access: Access::Send, address: address(pid, a[4], a[5]), payload }])
        }
        libc::SYS_sendmsg => Call::Sockets(sent(pid, a[1]).into_iter().collect()),
        libc::SYS_sendmmsg => {
            // struct mmsghdr: a msghdr and a length, padded.
            let count = a[2].min(8);
            Call::Sockets((0..count).filter_map(|i| sent(pid, a[1].checked_add(i * 64)?)).collect())
        }
        _ => Call::Other,
    }
}

/// A message, from its `struct msghdr`.
fn sent(pid: u32, header: u64) -> Option<Socket> {
    let header = memory(pid, header, 56);
    let number = |at: usize| Some(u64::from_ne_bytes(header.get(at..at + 8)?.try_into().ok()?));
    let (name, length) = (number(0)?, number(8)? & 0xffff_ffff);
    let (vectors, count) = (number(16)?, number(24)?);
    let vector = if count > 0 { memory(pid, vectors, 16) } else { Vec::new() };
    let payload = match vector.split_first_chunk::<8>() {
        Some((base, size)) => {
            let size = size.try_into().map_or(0, usize::from_ne_bytes);
            memory(pid, u64::from_ne_bytes(*base), size.min(512))
        }
        None => Vec::new(),
    };
    Some(Socket { access: Access::Send, address: address(pid, name, length), payload })
}

fn address(pid: u32, at: u64, length: u64) -> Option<Address> {
    if at == 0 {
        return None;
    }
    parse_address(&memory(pid, at, (length as usize).min(128)))
}

/// An address as the system calls take it.
fn parse_address(bytes: &[u8]) -> Option<Address> {
    let family = i32::from(u16::from_ne_bytes([*bytes.first()?, *bytes.get(1)?]));
    let port = || Some(u16::from_be_bytes([*bytes.get(2)?, *bytes.get(3)?]));
    let internet = |ip: IpAddr| Some(Address::Internet(SocketAddr::new(ip, port()?)));
    match family {
        libc::AF_INET => internet(Ipv4Addr::from(<[u8; 4]>::try_from(bytes.get(4..8)?).ok()?).into()),
        libc::AF_INET6 => internet(Ipv6Addr::from(<[u8; 16]>::try_from(bytes.get(8..24)?).ok()?).into()),
        libc::AF_UNIX => {
            let name = bytes.get(2..)?;
            let (mark, name) = match name.split_first()? {
                (0, rest) => (&b"@"[..], rest),
                _ => (&b""[..], name.split(|b| *b == 0).next()?),
            };
            Some(Address::Local(OsString::from_vec([mark, name].concat())))
        }
        _ => None,
    }
}

/// The host that a query of the domain name system asks for (RFC 1035, 4.1): a header that says one question and no
/// answer, and a name of labels.
pub(super) fn asked_name(packet: &[u8]) -> Option<String> {
    let header = packet.get(..12)?;
    let counts = [header[4], header[5], header[6], header[7]];
    if header[2] & 0xf8 != 0 || counts != [0, 1, 0, 0] {
        return None;
    }
    let mut rest = &packet[12..];
    let mut name = String::new();
    loop {
        let (length, after) = rest.split_first()?;
        if *length == 0 {
            break;
        }
        // Pointers have no place in a question.
        if *length > 63 {
            return None;
        }
        let (label, after) = after.split_at_checked(usize::from(*length))?;
        if !label.iter().all(|b| b.is_ascii_graphic()) {
            return None;
        }
        if !name.is_empty() {
            name.push('.');
        }
        name.extend(label.iter().map(|b| char::from(b.to_ascii_lowercase())));
        rest = after;
    }
    (!name.is_empty()).then_some(name)
}

/// Memory of a process; less where it can't be read.
fn memory(pid: u32, at: u64, length: usize) -> Vec<u8> {
    let mut buffer = vec![0; length];
    let n = sys::read_memory(pid as i32, at, &mut buffer).unwrap_or(0);
    buffer.truncate(n);
    buffer
}

/// An absolute path, cleared of `.` and `..`, from a string in a process's memory and the folder that it is relative to.
fn path(pid: u32, folder: i32, address: u64) -> Option<OsString> {
    let text = string(pid, address)?;
    if text.is_empty() {
        // The call is about a descriptor, which was opened before.
        return None;
    }
    let given = Path::new(std::ffi::OsStr::from_bytes(&text));
    let mut whole = PathBuf::from("/");
    let base = if given.is_absolute() {
        PathBuf::new()
    } else if folder == libc::AT_FDCWD {
        link(&format!("/proc/{pid}/cwd")).ok()?.into()
    } else {
        link(&format!("/proc/{pid}/fd/{folder}")).ok()?.into()
    };
    for component in base.components().chain(given.components()) {
        match component {
            Component::Normal(name) => whole.push(name),
            Component::ParentDir => drop(whole.pop()),
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
        }
    }
    // Its own entry there is not the init's.
    if let Ok(rest) = whole.strip_prefix("/proc/self") {
        whole = Path::new("/proc").join(pid.to_string()).join(rest);
    }
    Some(whole.into())
}

/// A string up to its zero byte, read page by page: the next page may not be there.
fn string(pid: u32, mut at: u64) -> Option<Vec<u8>> {
    let mut text = Vec::new();
    let mut page = [0; 4096];
    while text.len() < libc::PATH_MAX as usize {
        let length = 4096 - (at as usize & 4095);
        let n = sys::read_memory(pid as i32, at, &mut page[..length]).ok()?;
        match page[..n].iter().position(|b| *b == 0) {
            Some(end) => {
                text.extend(&page[..end]);
                return Some(text);
            }
            None if n < length => return None,
            None => text.extend(&page[..n]),
        }
        at = at.checked_add(length as u64)?;
    }
    None
}

/// Where a link of /proc leads.
pub(super) fn link(path: &str) -> std::io::Result<OsString> {
    let target = rustix::fs::readlink(path, Vec::new())?;
    Ok(OsString::from_vec(target.into_bytes()))
}

/// The files that a process has mapped as code, from its `maps` (proc(5)).
pub(super) fn code_of(maps: &[u8]) -> Vec<OsString> {
    let lines = maps.split(|b| *b == b'\n');
    let files = lines.filter_map(|line| {
        let executable = line.split(|b| *b == b' ').nth(1)?.get(2) == Some(&b'x');
        let start = line.iter().position(|b| *b == b'/')?;
        executable.then(|| OsString::from_vec(line[start..].to_vec()))
    });
    files.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn questions() {
        let mut packet = vec![0x12, 0x34, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        packet.extend(b"\x0aHuggingFace\x02co\0\0\x01\0\x01");
        packet[12] = 11;
        assert_eq!(asked_name(&packet).unwrap(), "huggingface.co");
        for length in 0..packet.len() - 5 {
            assert_eq!(asked_name(&packet[..length]), None, "{length}");
        }
        let mut answer = packet.clone();
        answer[2] |= 0x80;
        assert_eq!(asked_name(&answer), None);
        packet[12] = 0xc0;
        assert_eq!(asked_name(&packet), None);
        assert_eq!(asked_name(b"GET / HTTP/1.1\r\nHost: example.org\r\n\r\n"), None);
    }

    #[test]
    fn addresses() {
        let v4 = [&2u16.to_ne_bytes()[..], &[0x1f, 0x90, 10, 0, 0, 1], &[0; 8]].concat();
        assert_eq!(parse_address(&v4), Some(Address::Internet("10.0.0.1:8080".parse().unwrap())));
        let mut v6 = [&10u16.to_ne_bytes()[..], &[0, 53], &[0; 24]].concat();
        v6[23] = 1;
        assert_eq!(parse_address(&v6), Some(Address::Internet("[::1]:53".parse().unwrap())));
        let local = |name: &[u8]| parse_address(&[&1u16.to_ne_bytes()[..], name].concat());
        assert_eq!(local(b"/run/x\0\0"), Some(Address::Local("/run/x".into())));
        assert_eq!(local(b"\0x"), Some(Address::Local("@x".into())));
        assert_eq!(local(b""), None);
        assert_eq!(parse_address(&v4[..6]), None);
        assert_eq!(parse_address(&[]), None);
    }

    #[test]
    fn code() {
        let maps =
            b"7f0 r-xp 00 fe:00 12   /usr/lib/a b.so\n7f1 r--p 00 fe:00 13   /usr/lib/c.so\n7f2 r-xp 0 0:0 0  [vdso]\n";
        assert_eq!(code_of(maps), ["/usr/lib/a b.so"]);
    }
}
