//! `trainlock run`.

use crate::cli::{Global, LockOptions, Select};
use crate::exit::{Exit, Failure};
use crate::place;
use crate::ui::Ui;
use std::ffi::OsString;
use std::os::unix::process::CommandExt as _;
use std::process::Command;

/// Run a command with the locked tools and python packages, where you are
///
/// For notebooks, editors and debugging: nothing is shut in unless --hermetic says so, and nothing is recorded. The exit code is
/// the command's.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  trainlock run -- python3\n  trainlock run -- jupyter lab\n  trainlock run --hermetic -- python3 train.py"
)]
pub(crate) struct Args {
    /// The command and its arguments, behind `--`
    #[arg(required = true, last = true, value_name = "CMD")]
    command: Vec<OsString>,
    /// Shut it in as a step is: the project's folder, the locked tools, no network, no home
    #[arg(long)]
    hermetic: bool,
    /// The profile whose python packages are taken
    #[arg(long, value_name = "NAME")]
    profile: Option<String>,
    #[command(flatten)]
    select: Select,
    #[command(flatten)]
    lock: LockOptions,
}

pub(crate) fn run(args: &Args, global: &Global, ui: &Ui) -> Result<Exit, Failure> {
    let place = place::make(global, &args.select, args.profile.as_deref(), args.lock, ui)?;
    if args.hermetic {
        let words = args.command.iter().map(|word| word.to_str().map(str::to_owned)).collect::<Option<Vec<String>>>();
        let words = words.ok_or_else(|| Failure::new(Exit::Invalid, "a word of the command is not UTF-8"))?;
        let code = place.run_shut_in(&words)?;
        std::process::exit(code);
    }
    let (program, arguments) = args.command.split_first().unwrap_or_else(|| unreachable!("clap wants one"));
    let error = Command::new(program).args(arguments).envs(place.variables()).exec();
    Err(Failure::new(Exit::Failed, format!("can't run `{}`: {error}", program.to_string_lossy()))
        .hint("it is looked for among the locked tools and packages, then on PATH"))
}
