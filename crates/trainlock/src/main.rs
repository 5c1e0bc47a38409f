//! The command-line program. The only part of trainlock that knows the terminal, colour, `$HOME` and
//! the process's environment; one file a command in `commands`.

mod airgap;
mod buckets;
mod cli;
mod commands;
mod equip;
mod exit;
mod lacking;
mod links;
mod locking;
mod place;
mod project;
mod report;
mod running;
mod settings;
mod signals;
mod ui;

use clap::Parser;

fn main() -> std::process::ExitCode {
    // A step's first process is this program too.
    trainlock_env::sandbox::main_if_asked();
    trainlock_env::keep_memory();
    let cli = cli::Cli::parse();
    let ui = ui::Ui::new(&cli.global);
    match commands::run(cli, &ui) {
        Ok(code) => code.into(),
        Err(failure) => {
            ui.failure(&failure);
            failure.code.into()
        }
    }
}
