//! What is held to, told truly.

use super::Sandbox;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::fmt;

/// How a step is shut in, from the strongest to none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Tier {
    /// Namespaces that trainlock sets up itself.
    Namespaces,
    /// Namespaces that bwrap sets up.
    Bwrap,
    /// Only what a process can forbid itself: Landlock and seccomp.
    Landlock,
    /// Not at all.
    None,
}

impl Tier {
    /// All, the strongest first.
    pub const ALL: [Tier; 4] = [Tier::Namespaces, Tier::Bwrap, Tier::Landlock, Tier::None];

    /// Its name in records and settings.
    pub fn name(self) -> &'static str {
        match self {
            Tier::Namespaces => "namespaces",
            Tier::Bwrap => "bwrap",
            Tier::Landlock => "landlock",
            Tier::None => "none",
        }
    }
}

impl fmt::Display for Tier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// How far one promise is held to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Guarantee {
    /// The kernel holds to it.
    Enforced,
    /// It holds but for what is named.
    Partial {
        /// What gets through.
        why: String,
    },
    /// Nothing holds to it.
    NotEnforced {
        /// Why not.
        why: String,
    },
}

impl Guarantee {
    fn partial(why: &str) -> Guarantee {
        Guarantee::Partial { why: why.to_owned() }
    }

    fn not(why: impl Into<String>) -> Guarantee {
        Guarantee::NotEnforced { why: why.into() }
    }
}

impl fmt::Display for Guarantee {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Guarantee::Enforced => f.write_str("enforced"),
            Guarantee::Partial { why } => write!(f, "partial ({why})"),
            Guarantee::NotEnforced { why } => write!(f, "not enforced ({why})"),
        }
    }
}

/// What was held to while a step ran.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct Isolation {
    /// How.
    pub tier: Tier,
    /// It read nothing that it was not given.
    pub reads: Guarantee,
    /// It wrote nothing but its outputs and its temporary files.
    pub writes: Guarantee,
    /// It had no TCP connection.
    pub tcp: Guarantee,
    /// It sent and received no datagram.
    pub udp: Guarantee,
    /// Its environment, user and host name were the declared ones.
    pub environment: Guarantee,
    /// It saw no process but its own, and left none behind.
    pub processes: Guarantee,
    /// It used no more memory than declared.
    pub memory: Guarantee,
}

impl Isolation {
    /// Without any sandbox, for this reason ("the manifest says sandbox = \"off\"").
    pub fn none(why: &str) -> Isolation {
        let not = || Guarantee::not(why);
        Isolation {
            tier: Tier::None,
            reads: not(),
            writes: not(),
            tcp: not(),
            udp: not(),
            environment: Guarantee::partial(
                "its variables are the declared ones; user, host name and files are the host's",
            ),
            processes: Guarantee::partial("its process group is ended with it; a process that left the group lives on"),
            memory: not(),
        }
    }

    /// What a tier holds to. `memory`: why no limit is set, if there is none; `copied`: how many inputs lie as private
    /// copies in writable folders.
    pub(crate) fn of(sandbox: &Sandbox, memory: Result<(), String>, copied: usize) -> Isolation {
        if sandbox.tier == Tier::None {
            return Isolation::none("the step has no sandbox");
        }
        let network = |offline| if sandbox.network { Guarantee::not("the step declares network") } else { offline };
        let copies = format!("{copied} inputs beside its outputs are copies of its own, which it can change");
        let memory = match memory {
            Ok(()) => Guarantee::Enforced,
            Err(why) => Guarantee::NotEnforced { why },
        };
        if sandbox.tier == Tier::Landlock {
            let mut writes = "modes and times of files can be changed; /dev/shm is the host's".to_owned();
            if copied > 0 {
                writes = format!("{copies}; {writes}");
            }
            return Isolation {
                tier: sandbox.tier,
                reads: Guarantee::partial(
                    "that an undeclared file exists, and its size, can be seen; its content can't",
                ),
                writes: Guarantee::Partial { why: writes },
                tcp: network(Guarantee::Enforced),
                udp: network(Guarantee::Enforced),
                environment: Guarantee::partial(
                    "its variables are the declared ones; user, host name and paths are the host's",
                ),
                processes: Guarantee::partial(
                    "it sees the host's processes, and can reach sockets of theirs that are files; its own end with it",
                ),
                memory,
            };
        }
        let writes = if copied > 0 { Guarantee::Partial { why: copies } } else { Guarantee::Enforced };
        Isolation {
            tier: sandbox.tier,
            reads: Guarantee::Enforced,
            writes,
            tcp: network(Guarantee::Enforced),
            udp: network(Guarantee::Enforced),
            environment: Guarantee::Enforced,
            processes: Guarantee::Enforced,
            memory,
        }
    }

    /// The guarantees by name.
    pub fn guarantees(&self) -> [(&'static str, &Guarantee); 7] {
        [
            ("reads", &self.reads),
            ("writes", &self.writes),
            ("tcp", &self.tcp),
            ("udp", &self.udp),
            ("environment", &self.environment),
            ("processes", &self.processes),
            ("memory", &self.memory),
        ]
    }

    /// Whether nothing undeclared could influence the step. A limit of memory is no part of this.
    pub fn is_hermetic(&self) -> bool {
        self.guarantees().iter().all(|(name, g)| *name == "memory" || **g == Guarantee::Enforced)
    }
}

impl fmt::Display for Isolation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let groups = self.guarantees();
        let enforced: Vec<&str> =
            groups.iter().filter(|(_, g)| **g == Guarantee::Enforced).map(|(name, _)| *name).collect();
        let enforced = if enforced.is_empty() { "nothing".to_owned() } else { enforced.join(", ") };
        write!(f, "{}: {enforced} enforced", self.tier)?;
        for (name, guarantee) in groups.into_iter().filter(|(_, g)| **g != Guarantee::Enforced) {
            write!(f, "; {name} {guarantee}")?;
        }
        Ok(())
    }
}
