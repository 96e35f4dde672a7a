//! `pillarbox domain`: whose mail stays here.

use std::io::{self, Write};

use serde_json::json;

use super::office::{DataOffice, Failure, Office, OfficeArgs, done, list_all};
use super::show;
use crate::daemon::control::{Order, Outcome};

/// Add and list the domains whose mail stays here
#[derive(Clone, Debug, clap::Args)]
pub struct DomainArgs {
    #[command(flatten)]
    office: OfficeArgs,
    #[command(subcommand)]
    command: DomainCommand,
}

#[derive(Clone, Debug, clap::Subcommand)]
enum DomainCommand {
    /// Make a domain local
    Add {
        /// Its name
        domain: String,
    },
    /// Make a domain foreign; it must have no accounts and aliases any more
    Remove {
        /// Its name
        domain: String,
    },
    /// List the local domains
    List,
}

/// Runs the command.
///
/// # Errors
/// One sentence.
pub fn run(args: DomainArgs) -> Result<(), Failure> {
    let mut office = DataOffice::open(&args.office.data)?;
    obey(args.command, &mut office, args.office.json, &mut io::stdout().lock())
}

fn obey(command: DomainCommand, office: &mut impl Office, json: bool, out: &mut impl Write) -> Result<(), Failure> {
    match command {
        DomainCommand::Add { domain } => {
            done(office, Order::AddDomain { domain: domain.clone() })?;
            if json { show::json(out, &json!({ "added": domain }))? } else { writeln!(out, "added {domain}")? }
        }
        DomainCommand::Remove { domain } => {
            done(office, Order::RemoveDomain { domain: domain.clone() })?;
            if json { show::json(out, &json!({ "removed": domain }))? } else { writeln!(out, "removed {domain}")? }
        }
        DomainCommand::List => {
            let domains_of = |outcome| if let Outcome::Domains { domains } = outcome { Some(domains) } else { None };
            let domains = list_all(office, |skip| Order::ListDomains { skip }, domains_of)?;
            if json {
                show::json(out, &domains)?;
            } else {
                for domain in domains {
                    writeln!(out, "{domain}")?;
                }
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::office::tests::Script;
    use crate::daemon::control::ROWS_MAX;

    #[test]
    fn a_list_longer_than_one_answer_is_told_whole() {
        let page = |count: usize| Outcome::Domains { domains: vec!["x.test".to_owned(); count] };
        let (mut office, mut out) = (Script::new([page(ROWS_MAX), page(ROWS_MAX), page(3)]), Vec::new());
        obey(DomainCommand::List, &mut office, false, &mut out).unwrap();
        assert_eq!(String::from_utf8(out).unwrap().lines().count(), 2 * ROWS_MAX + 3);
        assert_eq!(office.given[2], Order::ListDomains { skip: 2 * ROWS_MAX });
    }
}
