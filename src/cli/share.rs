//! `pillarbox share`: who else may do what with an account's mailboxes.

use std::io::{self, Write};

use serde_json::json;

use super::office::{DataOffice, Failure, Office, OfficeArgs, done, list_all};
use super::show;
use crate::daemon::control::{Order, Outcome};

/// Share mailboxes of an account with other accounts, and list who may do what there
#[derive(Clone, Debug, clap::Args)]
pub struct ShareArgs {
    #[command(flatten)]
    office: OfficeArgs,
    #[command(subcommand)]
    command: ShareCommand,
}

#[derive(Clone, Debug, clap::Subcommand)]
enum ShareCommand {
    /// Give an account, or all, rights on a mailbox, in place of those it has there
    Give {
        /// The address of the account whose mailbox it is
        account: String,
        /// The mailbox, such as INBOX or Work/Plans
        mailbox: String,
        /// The other account's address, or `anyone` for every account of this server
        who: String,
        /// `read`, `write` (mark, add and remove mail too), `full` (mailboxes below it too), or letters of RFC 4314
        rights: String,
    },
    /// Take all rights on a mailbox away from an account, or from all
    Take {
        /// The address of the account whose mailbox it is
        account: String,
        /// The mailbox
        mailbox: String,
        /// The other account's address, or `anyone`
        who: String,
    },
    /// List who else has which rights on an account's mailboxes
    List {
        /// Its address
        account: String,
    },
}

/// The letters that a word stands for. Nobody needs `a` who does not ask for it by its letter.
fn letters(rights: &str) -> &str {
    match rights {
        "read" => "lrs",
        "write" => "lrswite",
        "full" => "lrswipkxte",
        letters => letters,
    }
}

/// Runs the command.
///
/// # Errors
/// One sentence.
pub fn run(args: ShareArgs) -> Result<(), Failure> {
    let mut office = DataOffice::open(&args.office.data)?;
    obey(args.command, &mut office, args.office.json, &mut io::stdout().lock())
}

fn obey(command: ShareCommand, office: &mut impl Office, json: bool, out: &mut impl Write) -> Result<(), Failure> {
    match command {
        ShareCommand::Give { account, mailbox, who, rights } => {
            let rights = letters(&rights).to_owned();
            if rights.is_empty() {
                return Err(Failure("no rights at all are what `pillarbox share take` leaves".to_owned()));
            }
            let (address, given) = (account.clone(), rights.clone());
            done(office, Order::Share { account, mailbox: mailbox.clone(), who: who.clone(), rights })?;
            if json {
                show::json(out, &json!({ "account": address, "mailbox": mailbox, "who": who, "rights": given }))?;
            } else {
                writeln!(out, "{who} has the rights {given} on {mailbox} of {address}")?;
                writeln!(out, "mail programs show it as Other Users/{address}/{mailbox}")?;
            }
        }
        ShareCommand::Take { account, mailbox, who } => {
            let (address, rights) = (account.clone(), String::new());
            done(office, Order::Share { account, mailbox: mailbox.clone(), who: who.clone(), rights })?;
            if json {
                show::json(out, &json!({ "account": address, "mailbox": mailbox, "who": who, "rights": "" }))?;
            } else {
                writeln!(out, "{who} has no rights of its own on {mailbox} of {address} any more")?;
            }
        }
        ShareCommand::List { account } => {
            let shares_of = |outcome| if let Outcome::Shares { shares } = outcome { Some(shares) } else { None };
            let rows = list_all(office, |skip| Order::ListShares { account: account.clone(), skip }, shares_of)?;
            if json {
                show::json(out, &rows)?;
            } else {
                let mut table = vec![["MAILBOX", "WHO", "RIGHTS"].map(str::to_owned)];
                table.extend(rows.into_iter().map(|row| [row.mailbox, row.who, row.rights]));
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
    use crate::daemon::control::ShareRow;

    #[test]
    fn a_word_stands_for_letters() {
        let (mut office, mut out) = (Script::new([Outcome::Done]), Vec::new());
        let [account, mailbox, who] = ["ann@x.test", "Work", "bob@x.test"].map(str::to_owned);
        let give = ShareCommand::Give { account, mailbox, who, rights: "write".to_owned() };
        obey(give, &mut office, false, &mut out).unwrap();
        let [account, mailbox, who] = ["ann@x.test", "Work", "bob@x.test"].map(str::to_owned);
        assert_eq!(office.given, [Order::Share { account, mailbox, who, rights: "lrswite".to_owned() }]);
        let said = String::from_utf8(out).unwrap();
        assert!(said.contains("bob@x.test has the rights lrswite on Work of ann@x.test\n"), "{said}");
        assert!(said.contains("Other Users/ann@x.test/Work\n"), "{said}");
    }

    #[test]
    fn rights_are_listed_and_taken_away() {
        let [account, mailbox, who] = ["ann@x.test", "Work", "anyone"].map(str::to_owned);
        let shares = vec![ShareRow { mailbox: mailbox.clone(), who: who.clone(), rights: "lr".to_owned() }];
        let mut out = Vec::new();
        let list = ShareCommand::List { account: account.clone() };
        obey(list, &mut Script::new([Outcome::Shares { shares }]), true, &mut out).unwrap();
        let said = String::from_utf8(out).unwrap();
        assert_eq!(said, "[{\"mailbox\":\"Work\",\"who\":\"anyone\",\"rights\":\"lr\"}]\n");
        let (mut office, take) = (Script::new([Outcome::Done]), ShareCommand::Take { account, mailbox, who });
        obey(take, &mut office, false, &mut Vec::new()).unwrap();
        assert!(matches!(office.given.as_slice(), [Order::Share { rights, .. }] if rights.is_empty()));
    }
}
