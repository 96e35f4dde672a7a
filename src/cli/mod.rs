//! One file per subcommand.
//!
//! What a command tells goes to standard output, the log and errors to standard error; an error is
//! one sentence. Exit code 1 says that it failed, 2 that the command line was not understood
//! (for `check-store` 1 says that something is damaged, and 2 also that the store could not be checked; for
//! `scan` 1 says that something was found, and 2 also that something could not be scanned).

use std::process::ExitCode;

use clap::{Parser, Subcommand};

pub mod account; // who may log in
pub mod alias; //   addresses whose mail goes to accounts or elsewhere
mod ask; //         questions to the person at the terminal
mod backup; //      the whole box into one encrypted file
mod board; //      what this computer is, and its memory budget
mod carry; //       what import and export share
mod check; //       is this config file good?
mod check_store; // is everything in the store whole?
pub mod compact; // the index without its holes
mod detached; //    signatures beside ClamAV's containers
pub mod dkim; //    the keys that mail is signed with
mod dmarc; //       what others report about mail in our names
pub mod dns; //     what a domain has to publish
pub mod domain; //  whose mail stays here
mod export; //      mail to mbox files and Maildirs
mod import; //      mail from mbox files and Maildirs
pub mod list; //    mailing lists
#[cfg(feature = "mdns")]
mod mdns; //        the name in the local network
mod metrics; //     the status for Prometheus
pub mod office; //  where orders go: the running server or the store
pub mod queue; //   mail on its way out
mod restore; //     a data folder out of backups
mod salvage; //     mail out of a ruined store
mod scan; //        malware in files
mod serve; //       the server
mod setup; //       a card's first set-up
pub mod share; //   who else may do what with an account's mailboxes
mod show; //        tables, amounts, JSON
pub mod signatures; // what malware is known by
pub mod spam; //    what the spam filter thinks, and teaching it
mod status; //      how the running server is
mod test; //        checks on a sender: SPF, DKIM, ARC, DMARC
mod try_; //        the server for trying out, with accounts and a letter

/// Pillarbox: a mail server for small computers that stand alone.
#[derive(Debug, Parser)]
#[command(name = "pillarbox", version, propagate_version = true, disable_help_subcommand = true)]
struct Cli {
    /// What to log: error, warn, info, debug, trace or off (overrides the config file)
    #[arg(long, global = true, value_name = "LEVEL")]
    log_level: Option<String>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Start a server to try out, with two accounts, as an ordinary user
    Try(try_::Args),
    /// Start the server
    Serve(serve::Args),
    /// Check a config file without starting
    Check(check::Args),
    /// Show how the running server is
    Status(status::Args),
    /// Show the board profile that is used here, why, and its memory budget
    Board(board::Args),
    Account(account::AccountArgs),
    Alias(alias::AliasArgs),
    List(list::ListArgs),
    Share(share::ShareArgs),
    Domain(domain::DomainArgs),
    Dkim(dkim::DkimArgs),
    Dns(dns::DnsArgs),
    Queue(queue::QueueArgs),
    Import(import::ImportArgs),
    Export(export::ExportArgs),
    Compact(compact::CompactArgs),
    CheckStore(check_store::CheckStoreArgs),
    Backup(backup::BackupArgs),
    Restore(restore::RestoreArgs),
    Salvage(salvage::SalvageArgs),
    Spam(spam::SpamArgs),
    #[cfg(feature = "mdns")]
    /// Tell the local network the box's name and services (mDNS), until a signal says stop
    Mdns(mdns::Args),
    Scan(scan::ScanArgs),
    /// Take over what a card's pillarbox-setup.toml says; the image calls it at each start
    Setup(setup::Args),
    Signatures(signatures::SignaturesArgs),
    Test(test::TestArgs),
    Dmarc(dmarc::DmarcArgs),
    /// Print the version
    Version,
}

/// Why a command failed: one sentence.
type Failure = Box<dyn std::error::Error>;

/// Runs the command line.
#[must_use]
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version come this way too, and go to standard output.
            let _ = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2));
        }
    };
    name_damage();
    let log_level = cli.log_level.as_deref();
    let done = match cli.command {
        Command::Try(args) => try_::run(&args, log_level),
        Command::Serve(args) => serve::run(&args, log_level),
        Command::Check(args) => check::run(&args),
        Command::Status(args) => status::run(&args),
        Command::Board(args) => board::run(&args),
        Command::Account(args) => account::run(args).map_err(Failure::from),
        Command::Alias(args) => alias::run(args).map_err(Failure::from),
        Command::List(args) => list::run(args).map_err(Failure::from),
        Command::Share(args) => share::run(args).map_err(Failure::from),
        Command::Domain(args) => domain::run(args).map_err(Failure::from),
        Command::Dkim(args) => dkim::run(args).map_err(Failure::from),
        Command::Dns(args) => match dns::run(&args) {
            Ok(code) => return code,
            Err(failure) => Err(failure.into()),
        },
        Command::Queue(args) => queue::run(args).map_err(Failure::from),
        Command::Import(args) => import::run(&args).map_err(Failure::from),
        Command::Export(args) => export::run(&args).map_err(Failure::from),
        Command::Backup(args) => backup::run(&args).map_err(Failure::from),
        Command::Restore(args) => restore::run(&args).map_err(Failure::from),
        Command::Salvage(args) => salvage::run(&args).map_err(Failure::from),
        Command::Spam(args) => spam::run(&args).map_err(Failure::from),
        Command::Test(args) => test::run(&args),
        Command::Scan(args) => return scan::run(&args),
        Command::Signatures(args) => signatures::run(&args).map_err(Failure::from),
        Command::Dmarc(args) => dmarc::run(&args),
        Command::Compact(args) => compact::run(&args).map_err(Failure::from),
        Command::CheckStore(args) => match check_store::run(&args) {
            Ok(true) => Ok(()),
            // What is damaged was told.
            Ok(false) => return ExitCode::FAILURE,
            Err(failure) => {
                eprintln!("pillarbox: {failure}");
                return ExitCode::from(2);
            }
        },
        #[cfg(feature = "mdns")]
        Command::Mdns(args) => mdns::run(&args),
        Command::Setup(args) => setup::run(&args),
        Command::Version => version(),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        // Whoever reads us has seen enough (`pillarbox status | head`).
        Err(failure) if is_broken_pipe(&*failure) => ExitCode::FAILURE,
        Err(failure) => {
            eprintln!("pillarbox: {failure}");
            ExitCode::FAILURE
        }
    }
}

/// Has a panic over a damaged mail file end with a sentence that names the file, after the panic's own
/// words, which whoever looks into it needs.
fn name_damage() {
    let before = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        before(panic);
        if let Some(sentence) = crate::store::damage::sentence(panic) {
            eprintln!("pillarbox: {sentence}");
        }
    }));
}

fn is_broken_pipe(failure: &(dyn std::error::Error + 'static)) -> bool {
    failure.downcast_ref::<std::io::Error>().is_some_and(|error| error.kind() == std::io::ErrorKind::BrokenPipe)
}

fn version() -> Result<(), Failure> {
    print(&format!("pillarbox {}\n", env!("CARGO_PKG_VERSION")))
}

/// Prints to standard output and makes sure that it got there.
fn print(text: &str) -> Result<(), Failure> {
    use std::io::Write as _;
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }
}
