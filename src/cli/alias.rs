//! `pillarbox alias`: addresses whose mail goes to accounts, or elsewhere.

use std::io::{self, Write};

use serde_json::json;

use super::office::{DataOffice, Failure, Office, OfficeArgs, done, list_all};
use super::show;
use crate::daemon::control::{Order, Outcome};

/// Add and list addresses whose mail goes to accounts, or elsewhere
#[derive(Clone, Debug, clap::Args)]
pub struct AliasArgs {
    #[command(flatten)]
    office: OfficeArgs,
    #[command(subcommand)]
    command: AliasCommand,
}

#[derive(Clone, Debug, clap::Subcommand)]
enum AliasCommand {
    /// Let mail for an address go to these accounts or addresses elsewhere, beside those it goes to already
    Add {
        /// The address; '*@DOMAIN' takes what is nobody's in a domain
        address: String,
        /// Addresses of accounts, or in others' domains
        #[arg(required = true)]
        targets: Vec<String>,
    },
    /// Remove an alias
    Remove {
        /// Its address
        address: String,
    },
    /// List the aliases
    List,
}

/// Runs the command.
///
/// # Errors
/// One sentence.
pub fn run(args: AliasArgs) -> Result<(), Failure> {
    let mut office = DataOffice::open(&args.office.data)?;
    obey(args.command, &mut office, args.office.json, &mut io::stdout().lock())
}

fn obey(command: AliasCommand, office: &mut impl Office, json: bool, out: &mut impl Write) -> Result<(), Failure> {
    match command {
        AliasCommand::Add { address, targets } => {
            done(office, Order::AddAlias { address: address.clone(), targets: targets.clone() })?;
            if json {
                show::json(out, &json!({ "added": address, "targets": targets }))?;
            } else {
                writeln!(out, "mail for {address} goes to {}", targets.join(", "))?;
            }
        }
        AliasCommand::Remove { address } => {
            done(office, Order::RemoveAlias { address: address.clone() })?;
            if json { show::json(out, &json!({ "removed": address }))? } else { writeln!(out, "removed {address}")? }
        }
        AliasCommand::List => {
            let aliases_of = |outcome| if let Outcome::Aliases { aliases } = outcome { Some(aliases) } else { None };
            let rows = list_all(office, |skip| Order::ListAliases { skip }, aliases_of)?;
            if json {
                show::json(out, &rows)?;
            } else {
                let mut table = vec![["ALIAS", "GOES TO"].map(str::to_owned)];
                table.extend(rows.into_iter().map(|row| [row.address, row.targets.join(", ")]));
                show::table(out, &table)?;
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::office::tests::Script;
    use crate::daemon::control::AliasRow;

    #[test]
    fn an_alias_is_added_and_listed() {
        let (mut office, mut out) = (Script::new([Outcome::Done]), Vec::new());
        let (address, targets) = ("*@x.test".to_owned(), vec!["ann@x.test".to_owned(), "bob@x.test".to_owned()]);
        let add = AliasCommand::Add { address: address.clone(), targets: targets.clone() };
        obey(add, &mut office, false, &mut out).unwrap();
        assert_eq!(office.given, [Order::AddAlias { address: address.clone(), targets: targets.clone() }]);
        assert_eq!(String::from_utf8(out).unwrap(), "mail for *@x.test goes to ann@x.test, bob@x.test\n");

        let mut out = Vec::new();
        let aliases = vec![AliasRow { address, targets }];
        obey(AliasCommand::List, &mut Script::new([Outcome::Aliases { aliases }]), true, &mut out).unwrap();
        let json = String::from_utf8(out).unwrap();
        assert_eq!(json, "[{\"address\":\"*@x.test\",\"targets\":[\"ann@x.test\",\"bob@x.test\"]}]\n");
    }

    #[test]
    fn an_answer_to_another_question_is_an_error() {
        let mut office = Script::new([Outcome::Done]);
        assert!(obey(AliasCommand::List, &mut office, false, &mut Vec::new()).is_err());
    }
}
