//! `pillarbox account`: who may log in, with which password or certificate, and how much may be kept.

use std::io::{self, Write};

use ring::rand::{SecureRandom as _, SystemRandom};
use serde_json::json;

use super::office::{DataOffice, Failure, Office, OfficeArgs, done, list_all, unexpected};
use super::{ask, show};
use crate::daemon::control::{AccountRow, Order, Outcome};
use crate::mail::secret::{GENERATED_BYTES, ITERATIONS_DEFAULT, Password, ScramVerifier};
use crate::store::Quota;

mod certificate; // logging in with a certificate

use certificate::CertificateCommand;

/// Add, list and change accounts
#[derive(Clone, Debug, clap::Args)]
pub struct AccountArgs {
    #[command(flatten)]
    office: OfficeArgs,
    #[command(subcommand)]
    command: AccountCommand,
}

#[derive(Clone, Debug, clap::Subcommand)]
enum AccountCommand {
    /// Add an account; its domain becomes local
    Add {
        /// Its address, which is also its login
        address: String,
        /// Read the password from standard input instead of asking or making one up
        #[arg(long)]
        password_stdin: bool,
        /// How much mail it may keep, such as 2GiB
        #[arg(long, value_name = "BYTES", value_parser = show::parse_bytes)]
        quota_bytes: Option<u64>,
        /// How many messages it may keep
        #[arg(long, value_name = "N")]
        quota_messages: Option<u64>,
    },
    /// Remove an account and all its mail
    Remove {
        /// Its address
        address: String,
        /// Do not ask
        #[arg(long)]
        yes: bool,
    },
    /// List the accounts
    List,
    /// Change a password
    Password {
        /// The account's address
        address: String,
        /// Read the password from standard input instead of asking or making one up
        #[arg(long)]
        password_stdin: bool,
    },
    /// Show or change what an account may keep
    Quota {
        /// The account's address
        address: String,
        /// How much mail, such as 2GiB, or `none` for no limit
        #[arg(long, value_parser = parse_limit_of_bytes)]
        bytes: Option<Limit>,
        /// How many messages, or `none` for no limit
        #[arg(long, value_name = "N", value_parser = parse_limit_of_messages)]
        messages: Option<Limit>,
    },
    #[command(flatten)]
    Certificate(CertificateCommand),
}

/// A limit as given; none is no limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Limit(Option<u64>);

fn parse_limit_of_bytes(text: &str) -> Result<Limit, String> {
    if text == "none" { Ok(Limit(None)) } else { show::parse_bytes(text).map(|bytes| Limit(Some(bytes))) }
}

fn parse_limit_of_messages(text: &str) -> Result<Limit, String> {
    let number = text.parse().map(|number| Limit(Some(number)));
    if text == "none" { Ok(Limit(None)) } else { number.map_err(|_| "expected a number or `none`".into()) }
}

/// Runs the command.
///
/// # Errors
/// One sentence.
pub fn run(args: AccountArgs) -> Result<(), Failure> {
    let AccountArgs { office, command } = args;
    // Questions come first: nothing is held open while somebody thinks.
    let password = match &command {
        AccountCommand::Add { address, password_stdin, .. } | AccountCommand::Password { address, password_stdin } => {
            Some(choose_password(address, *password_stdin)?)
        }
        AccountCommand::Remove { address, yes } => {
            confirm_removal(address, *yes)?;
            None
        }
        AccountCommand::List | AccountCommand::Quota { .. } | AccountCommand::Certificate(_) => None,
    };
    let mut data = DataOffice::open(&office.data)?;
    let out = &mut io::stdout().lock();
    match command {
        AccountCommand::Certificate(command) => {
            certificate::obey(command, &office.data.join("tls"), &mut data, office.json, out)
        }
        command => obey(command, password, &mut data, office.json, out),
    }
}

/// A password and whether nobody but us knows it yet.
struct Chosen {
    password: Password,
    made_up: bool,
}

fn choose_password(address: &str, from_stdin: bool) -> Result<Chosen, Failure> {
    if from_stdin {
        return Ok(Chosen { password: ask::password_from_stdin()?, made_up: false });
    }
    let typed = if ask::is_possible() { ask::new_password(address)? } else { None };
    match typed {
        Some(password) => Ok(Chosen { password, made_up: false }),
        None => Ok(Chosen { password: Password::generate(&random::<GENERATED_BYTES>()?), made_up: true }),
    }
}

fn confirm_removal(address: &str, yes: bool) -> Result<(), Failure> {
    if yes {
        return Ok(());
    }
    if !ask::is_possible() {
        return Err(Failure(format!("this removes {address} with all its mail; say --yes if it is meant")));
    }
    let sure = ask::are_you_sure(&format!("Remove {address} with all its mail?"))?;
    if sure { Ok(()) } else { Err(Failure("nothing was removed".into())) }
}

fn obey(
    command: AccountCommand,
    password: Option<Chosen>,
    office: &mut impl Office,
    json: bool,
    out: &mut impl Write,
) -> Result<(), Failure> {
    match command {
        AccountCommand::Add { address, quota_bytes, quota_messages, .. } => {
            let chosen = password.ok_or_else(unexpected)?;
            let quota = Quota { bytes: quota_bytes, messages: quota_messages };
            let verifier = verifier_of(&chosen.password)?;
            done(office, Order::AddAccount { address: address.clone(), verifier, quota })?;
            tell_password(&address, "added", &chosen, json, out)
        }
        AccountCommand::Password { address, .. } => {
            let chosen = password.ok_or_else(unexpected)?;
            let verifier = verifier_of(&chosen.password)?;
            done(office, Order::SetPassword { address: address.clone(), verifier })?;
            tell_password(&address, "changed", &chosen, json, out)
        }
        AccountCommand::Remove { address, .. } => {
            done(office, Order::RemoveAccount { address: address.clone() })?;
            tell(json, out, &json!({ "removed": address }), &format!("removed {address}"))
        }
        AccountCommand::List => {
            let rows = list_all(office, |skip| Order::ListAccounts { skip }, accounts_of)?;
            list(&rows, json, out)
        }
        AccountCommand::Quota { address, bytes, messages } => {
            let shown = accounts_of(office.give(Order::ShowAccount { address: address.clone() })?);
            let mut row = shown.and_then(|rows| rows.into_iter().next()).ok_or_else(unexpected)?;
            if bytes.is_some() || messages.is_some() {
                row.quota.bytes = bytes.map_or(row.quota.bytes, |limit| limit.0);
                row.quota.messages = messages.map_or(row.quota.messages, |limit| limit.0);
                done(office, Order::SetQuota { address, quota: row.quota })?;
            }
            list(&[row], json, out)
        }
        AccountCommand::Certificate(_) => Err(unexpected()),
    }
}

fn accounts_of(outcome: Outcome) -> Option<Vec<AccountRow>> {
    if let Outcome::Accounts { accounts } = outcome { Some(accounts) } else { None }
}

fn verifier_of(password: &Password) -> Result<ScramVerifier, Failure> {
    Ok(ScramVerifier::derive(password, random()?, ITERATIONS_DEFAULT))
}

fn random<const LENGTH: usize>() -> Result<[u8; LENGTH], Failure> {
    let mut bytes = [0; LENGTH];
    let filled = SystemRandom::new().fill(&mut bytes);
    filled.map(|()| bytes).map_err(|_| Failure("the operating system gives no random bytes".into()))
}

/// Says what was done, and the password if nobody knows it yet.
fn tell_password(address: &str, verb: &str, chosen: &Chosen, json: bool, out: &mut impl Write) -> Result<(), Failure> {
    if !chosen.made_up {
        return tell(json, out, &json!({ "address": address }), &format!("{verb} {address}"));
    }
    let password = chosen.password.reveal();
    let told = json!({ "address": address, "password": password });
    tell(json, out, &told, &format!("{verb} {address}\npassword: {password}"))
}

fn tell(json: bool, out: &mut impl Write, value: &serde_json::Value, text: &str) -> Result<(), Failure> {
    if json {
        show::json(out, value)?;
    } else {
        writeln!(out, "{text}")?;
    }
    Ok(())
}

fn list(rows: &[AccountRow], json: bool, out: &mut impl Write) -> Result<(), Failure> {
    if json {
        return Ok(show::json(out, &rows)?);
    }
    let limit = |limit: Option<String>| limit.unwrap_or_else(|| "none".into());
    let mut table = vec![["ACCOUNT", "MESSAGES", "SIZE", "MOST MESSAGES", "MOST SIZE"].map(str::to_owned)];
    table.extend(rows.iter().map(|row| {
        [
            row.address.clone(),
            row.used.messages.to_string(),
            show::bytes(row.used.bytes),
            limit(row.quota.messages.map(|messages| messages.to_string())),
            limit(row.quota.bytes.map(show::bytes)),
        ]
    }));
    Ok(show::table(out, &table)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::office::tests::Script;
    use crate::mail::secret::tests::password;
    use crate::store::Usage;
    use clap::Parser;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        args: AccountArgs,
    }

    fn parse(line: &str) -> Result<AccountArgs, clap::Error> {
        Line::try_parse_from(std::iter::once("account").chain(line.split(' '))).map(|line| line.args)
    }

    fn said(line: &str, chosen: Option<Chosen>, office: &mut Script) -> Result<String, Failure> {
        let mut out = Vec::new();
        let args = parse(line).unwrap();
        obey(args.command, chosen, office, args.office.json, &mut out)?;
        Ok(String::from_utf8(out).unwrap())
    }

    fn row() -> AccountRow {
        let used = Usage { bytes: 1536, messages: 3 };
        AccountRow { address: "ann@x.test".into(), quota: Quota { bytes: Some(2 << 30), messages: None }, used }
    }

    #[test]
    fn a_made_up_password_is_told_once_and_a_given_one_never() {
        let mut office = Script::new([Outcome::Done]);
        let chosen = Chosen { password: password("lusab-babad"), made_up: true };
        let told = said("add ann@x.test --quota-bytes 2GiB --json", Some(chosen), &mut office).unwrap();
        assert_eq!(told, "{\"address\":\"ann@x.test\",\"password\":\"lusab-babad\"}\n");
        let [Order::AddAccount { address, verifier, quota }] = office.given.as_slice() else { panic!() };
        assert_eq!((address.as_str(), quota.bytes, quota.messages), ("ann@x.test", Some(2 << 30), None));
        assert!(verifier.matches(&password("lusab-babad")));

        let mut office = Script::new([Outcome::Done]);
        let chosen = Chosen { password: password("secret"), made_up: false };
        assert_eq!(said("password ann@x.test", Some(chosen), &mut office).unwrap(), "changed ann@x.test\n");
    }

    #[test]
    fn a_list_is_a_table_or_json() {
        let table = said("list", None, &mut Script::new([Outcome::Accounts { accounts: vec![row()] }])).unwrap();
        assert_eq!(
            table,
            "ACCOUNT     MESSAGES  SIZE     MOST MESSAGES  MOST SIZE\nann@x.test  3         1.5 KiB  none           2 GiB\n"
        );
        let json = said("list --json", None, &mut Script::new([Outcome::Accounts { accounts: vec![row()] }])).unwrap();
        assert_eq!(
            json,
            "[{\"address\":\"ann@x.test\",\"quota\":{\"bytes\":2147483648,\"messages\":null},\"used\":{\"bytes\":1536,\"messages\":3}}]\n"
        );
    }

    #[test]
    fn a_quota_changes_only_where_it_is_named() {
        let mut office = Script::new([Outcome::Accounts { accounts: vec![row()] }, Outcome::Done]);
        said("quota ann@x.test --messages 10", None, &mut office).unwrap();
        let quota = Quota { bytes: Some(2 << 30), messages: Some(10) };
        assert_eq!(office.given[1], Order::SetQuota { address: "ann@x.test".into(), quota });
        let mut office = Script::new([Outcome::Accounts { accounts: vec![row()] }, Outcome::Done]);
        said("quota ann@x.test --bytes none", None, &mut office).unwrap();
        assert_eq!(office.given[1], Order::SetQuota { address: "ann@x.test".into(), quota: Quota::default() });
        let mut office = Script::new([Outcome::Accounts { accounts: vec![row()] }]);
        said("quota ann@x.test", None, &mut office).unwrap();
        assert_eq!(office.given.len(), 1);
    }

    #[test]
    fn a_refusal_is_the_answer() {
        let mut office = Script::refusing("there is no account ann@x.test");
        let error = said("remove ann@x.test --yes", None, &mut office).unwrap_err();
        assert_eq!(error.to_string(), "there is no account ann@x.test");
    }

    #[test]
    fn a_removal_nobody_can_be_asked_about_needs_yes() {
        assert!(confirm_removal("ann@x.test", true).is_ok());
        if !ask::is_possible() {
            let error = confirm_removal("ann@x.test", false).unwrap_err();
            assert!(error.to_string().contains("--yes"), "{error}");
        }
    }

    #[test]
    fn the_command_line_knows_its_words() {
        let args = parse("list --data /tmp/x --json").unwrap();
        assert!(args.office.json && args.office.data.ends_with("x"));
        for line in ["add", "frobnicate", "add a@x --quota-bytes many", "quota a@x --messages few", "list a@x"] {
            assert!(parse(line).is_err(), "{line}");
        }
    }
}
