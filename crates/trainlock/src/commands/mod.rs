//! One file a command: its arguments, and what it does.

pub(crate) mod audit;
pub(crate) mod bundle;
pub(crate) mod completions;
pub(crate) mod diff;
pub(crate) mod doctor;
pub(crate) mod env;
pub(crate) mod fetch;
pub(crate) mod fix;
pub(crate) mod init;
pub(crate) mod lock;
pub(crate) mod metadata;
pub(crate) mod outdated;
pub(crate) mod reference;
pub(crate) mod reproduce;
pub(crate) mod run;
pub(crate) mod runs;
pub(crate) mod schema;
pub(crate) mod seal;
pub(crate) mod status;
pub(crate) mod store;
pub(crate) mod train;
pub(crate) mod update;
pub(crate) mod vendor;
pub(crate) mod verify;
pub(crate) mod why;

use crate::cli::{Cli, Command};
use crate::exit::{Exit, Failure};
use crate::ui::Ui;

/// Does what the command line says.
pub(crate) fn run(cli: Cli, ui: &Ui) -> Result<Exit, Failure> {
    let global = &cli.global;
    if let Some(folder) = &global.directory {
        #[expect(clippy::disallowed_methods, reason = "-C means just that, and nothing else runs yet")]
        std::env::set_current_dir(folder)
            .map_err(|e| Failure::new(Exit::Invalid, format!("can't work in `{}`: {e}", folder.display())))?;
    }
    match cli.command {
        Command::Init(args) => init::run(&args, ui),
        Command::Lock(args) => lock::run(&args, global, ui),
        Command::Update(args) => update::run(&args, global, ui),
        Command::Outdated(args) => outdated::run(&args, global, ui),
        Command::Fetch(args) => fetch::run(&args, global, ui),
        Command::Run(args) => self::run::run(&args, global, ui),
        Command::Env(args) => env::run(&args, global, ui),
        Command::Vendor(args) => vendor::run(&args, global, ui),
        Command::Bundle(args) => bundle::run(&args, global, ui),
        Command::Train(args) => train::run(&args, global, ui),
        Command::Seal(args) => seal::run(&args, global, ui),
        Command::Verify(args) => verify::run(&args, global, ui),
        Command::Reproduce(args) => reproduce::run(&args, global, ui),
        Command::Diff(args) => diff::run(&args, global, ui),
        Command::Status(args) => status::run(&args, global, ui),
        Command::Why(args) => why::run(&args, global, ui),
        Command::Fix(args) => fix::run(&args, global, ui),
        Command::Doctor(args) => doctor::run(&args, global, ui),
        Command::Audit(args) => audit::run(&args, global, ui),
        Command::Runs(args) => runs::run(&args, global, ui),
        Command::Store(args) => store::run(&args, global, ui),
        Command::Metadata(args) => metadata::run(&args, global, ui),
        Command::Reference(args) => reference::run(&args, ui),
        Command::Schema(args) => schema::run(&args, ui),
        Command::Completions(args) => completions::run(&args, ui),
    }
}
