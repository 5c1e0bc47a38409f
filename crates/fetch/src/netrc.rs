//! netrc: user names and passwords by host, as ftp(1), curl and git read them.
//!
//! Source: netrc(5) of inetutils, and curl's reading of it (quoted values, `#` comments).

/// What a netrc file says. Its `Debug` shows no secret.
#[derive(Default)]
pub(crate) struct Netrc {
    machines: Vec<(String, Login)>,
    fallback: Option<Login>,
}

/// A user name and a password.
#[derive(Clone, Default, PartialEq, Eq)]
pub(crate) struct Login {
    pub(crate) user: String,
    pub(crate) password: String,
}

impl Netrc {
    /// Reads a netrc file's text; what has no place in one is passed over, as curl does.
    pub(crate) fn parse(text: &str) -> Netrc {
        let mut netrc = Netrc::default();
        let mut tokens = Tokens(text);
        // None at the beginning and inside of a macro's definition.
        let mut current: Option<&mut Login> = None;
        while let Some(token) = tokens.next() {
            match token.as_str() {
                "machine" => {
                    netrc.machines.push((tokens.next().unwrap_or_default().to_ascii_lowercase(), Login::default()));
                    current = netrc.machines.last_mut().map(|(_, login)| login);
                }
                "default" => current = Some(netrc.fallback.insert(Login::default())),
                // A macro ends at an empty line.
                "macdef" => {
                    let end = tokens.0.find("\n\n").map_or(tokens.0.len(), |i| i + 2);
                    tokens.0 = &tokens.0[end..];
                }
                "login" => set(&mut current, &mut tokens, |login| &mut login.user),
                "password" => set(&mut current, &mut tokens, |login| &mut login.password),
                "account" => drop(tokens.next()),
                _ => {}
            }
        }
        netrc
    }

    /// The login for a host. `first` is whether the manifest named the host; the `default` entry is
    /// not for hosts that a redirect leads to.
    pub(crate) fn login(&self, host: &str, first: bool) -> Option<&Login> {
        let named =
            self.machines.iter().find(|(machine, _)| machine.eq_ignore_ascii_case(host)).map(|(_, login)| login);
        named.or(self.fallback.as_ref().filter(|_| first)).filter(|login| **login != Login::default())
    }
}

fn set(current: &mut Option<&mut Login>, tokens: &mut Tokens<'_>, field: impl Fn(&mut Login) -> &mut String) {
    let value = tokens.next().unwrap_or_default();
    if let Some(login) = current {
        *field(login) = value;
    }
}

/// Words between white space; `"…"` with `\` before what is meant literally; `#` to the end of the line.
struct Tokens<'a>(&'a str);

impl Iterator for Tokens<'_> {
    type Item = String;

    fn next(&mut self) -> Option<String> {
        self.0 = self.0.trim_start();
        while self.0.starts_with('#') {
            self.0 = self.0.find('\n').map_or("", |end| &self.0[end..]).trim_start();
        }
        if self.0.is_empty() {
            return None;
        }
        let mut token = String::new();
        let mut quoted = false;
        let mut chars = self.0.char_indices();
        let mut end = self.0.len();
        while let Some((i, c)) = chars.next() {
            match c {
                '"' if i == 0 => quoted = true,
                '"' if quoted => {
                    end = i + 1;
                    break;
                }
                '\\' if quoted => token.extend(chars.next().map(|(_, c)| c)),
                c if c.is_whitespace() && !quoted => {
                    end = i;
                    break;
                }
                c => token.push(c),
            }
        }
        self.0 = &self.0[end..];
        Some(token)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_and_the_default() {
        let netrc = Netrc::parse(
            "# mine\nmachine Data.Example.org login ann password s3cret\n\
             machine other.org\n  login \"b o\\\"b\" # not a token\n  account x password \"p w\"\n\
             macdef init\nmachine trap.org login t password t\n\ndefault login anonymous password me@",
        );
        let login = |host: &str, first| netrc.login(host, first).map(|l| (l.user.as_str(), l.password.as_str()));
        assert_eq!(login("data.example.org", false), Some(("ann", "s3cret")));
        assert_eq!(login("other.org", true), Some(("b o\"b", "p w")));
        assert_eq!(login("trap.org", false), None);
        assert_eq!(login("example.org", true), Some(("anonymous", "me@")));
        assert_eq!(login("example.org", false), None);
    }

    #[test]
    fn odd_texts() {
        for text in ["", "machine", "login x", "machine a login", "\"", "machine a\nmacdef x", "#", "default"] {
            assert!(Netrc::parse(text).login("h", true).is_none(), "{text:?}");
        }
    }
}
